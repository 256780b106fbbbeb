"""Random numbers and random fields for a batch of n pictures, all drawn from one generator.

    value noise  normals on a coarse grid of c×c cells, interpolated bicubically
    1/f noise    Σ_k 2⁻ᵏ · value noise of 3·2ᵏ cells

The same generator state gives the same numbers; the device is the generator's own. Perlin 1985 for lattice noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Dice", "coordinates", "gather", "pink_noise", "value_noise"]


class Dice:
    """Random numbers for n pictures; every tensor leads with n."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator, self.device = n, generator, generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *shape) between low and high."""
        return low + (high - low) * torch.rand(self.n, *shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int, deviation: float = 1.0) -> Tensor:
        """(n, *shape) with mean 0."""
        return deviation * torch.randn(self.n, *shape, generator=self.generator, device=self.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        """float (n, *shape), 1 with this probability, else 0."""
        return (torch.rand(self.n, *shape, generator=self.generator, device=self.device) < share).float()

    def integers(self, *shape: int, count: int) -> Tensor:
        """int64 (n, *shape) from 0 to count - 1."""
        return torch.randint(count, (self.n, *shape), generator=self.generator, device=self.device)


def coordinates(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (right) and y (down) of pixel centres in [-1,1], each (1,1,size,size)."""
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x[None, None], y[None, None]


def value_noise(dice: Dice, cells: int, size: int, *, channels: int = 1) -> Tensor:
    """Smooth noise (n,channels,size,size) with deviation of about 0.8, `cells` bumps to a side."""
    grid = dice.normal(channels, cells + 1, cells + 1)
    return F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=True)


def pink_noise(dice: Dice, size: int) -> Tensor:
    """Noise with detail at every scale, (n,1,size,size)."""
    octaves = [value_noise(dice, 3 * 2**k, size) / 2**k for k in range(4) if 3 * 2**k < size]
    return torch.stack(octaves).sum(0)


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Values (n,K,C) picked by int64 index (n,1,H,W) -> (n,C,H,W)."""
    n, _, channels = values.shape
    height, width = index.shape[-2:]
    flat = index.view(n, -1, 1).expand(-1, -1, channels)
    return values.gather(1, flat).movedim(1, -1).view(n, channels, height, width)
