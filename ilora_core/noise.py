"""Noise that depends on a sample's seed alone: not on its batch, the process it runs in, or what ran before."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["mix_seeds", "noise_like"]

_PRIME, _MASK, _WORD = 0x9E3779B97F4A7C15, (1 << 63) - 1, (1 << 64) - 1


def mix_seeds(seed: int, *parts: int) -> int:
    """One well-spread 63-bit seed from several integers: splitmix64's finaliser after each of them, in order."""
    state = 0
    for part in (seed, *parts):
        state = ((state ^ (part & _MASK)) + _PRIME) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state & _MASK


def noise_like(tensor: Tensor, seeds: Tensor | Sequence[int]) -> Tensor:
    """Standard normal noise of the tensor's shape (B,...), dtype and device; row i depends on seeds[i] only.

    Drawn on the CPU: the same numbers whatever the device.
    """
    values = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
    rows = [torch.randn(tensor.shape[1:], generator=torch.Generator().manual_seed(value)) for value in values]
    return torch.stack(rows).to(tensor.device, tensor.dtype, non_blocking=True)
