"""How far two decompositions of a picture are apart, whatever their scale.

Both logs are shifted to the truth's median first. With m = exp(log / 2), for albedo and for shading alike:

    L = |m̂ - m| + ¼ |log m̂² - log m²| + ½ Σ_k |∇_k log m̂² - ∇_k log m²| / 4 + ½ √mean (g - αp)²,   α = Σ gp / Σ p²

∇_k: steps between neighbours after k halvings, k = 0 … 3 (Li and Snavely 2018, arXiv 1804.00607). The last term is the
scale-invariant error by which answers are judged; without it the answers grow decisive where they should hedge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["decomposition_loss", "log_distance"]

_SCALES = 4
_LEAST = 1e-6


def decomposition_loss(answer: tuple[Tensor, Tensor], shading: Tensor, albedo: Tensor) -> Tensor:
    """(log S, log A) of the network, linear truth (B,1,H,W), (B,3,H,W) -> losses (2,): shading, albedo."""
    truth = (shading.clamp(min=3e-3).log(), albedo.clamp(min=3e-3).log())
    return torch.stack([log_distance(p, g) for p, g in zip(answer, truth, strict=True)])


def log_distance(guess: Tensor, truth: Tensor) -> Tensor:
    """L above of two log maps (B,C,H,W), a scalar."""
    guess = guess - _median(guess - truth)
    off = guess - truth
    p, g = guess.clamp(max=2).exp(), truth.exp()
    alpha = (g * p).sum((1, 2, 3), keepdim=True) / (p * p).sum((1, 2, 3), keepdim=True).clamp(min=_LEAST)
    fitted = ((g - alpha * p).square().mean((1, 2, 3)) + _LEAST).sqrt().mean()
    roots = ((guess / 2).clamp(max=1).exp() - (truth / 2).exp()).abs().mean()
    return roots + 0.25 * off.abs().mean() + 0.5 * _gradients(off) + 0.5 * fitted


def _gradients(off: Tensor) -> Tensor:
    """Mean absolute step of the difference over four scales."""
    total = off.new_zeros(())
    for _ in range(_SCALES):
        total = total + off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
        off = F.avg_pool2d(off, 2)
    return total / (2 * _SCALES)


def _median(x: Tensor) -> Tensor:
    return x.detach().flatten(1).median(1).values.view(-1, 1, 1, 1)
