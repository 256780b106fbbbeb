"""The classic ways to split a picture, none of which is trained: square root, Retinex, and the blend of both.

With ℓ = log(I + 0.01) per channel, ℓ̄ its mean over channels, all giving log shading s up to one constant:

    square root  s = ½ ℓ̄
    Retinex      ∇s = ∇ℓ̄, but 0 where the step is paint: where |∇ℓ̄| > T or |∇(ℓ - ℓ̄)| > T_c;   then Δs = div, a
                 Poisson equation with reflecting borders, solved exactly by the cosine transform
    blend        s = ½ (square root) + ½ (Retinex): the geometric mean of both answers

Land and McCann 1971; Horn 1974; the colour threshold and the least-squares integration as in Grosse et al., ICCV 2009.
The transform is a product with the orthonormal DCT-II matrix, so that it runs and batches on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["EDGES", "LOG_FLOOR", "Edges", "integrate", "log_light", "retinex", "retinex_blend", "sqrt_split"]

LOG_FLOOR = 0.01

Edges = tuple[float, float]
"""(T, T_c): steps of log intensity and of log chromaticity that count as paint."""

EDGES: Edges = (0.3, 0.12)


def log_light(linear: Tensor) -> Tensor:
    """log(I + 0.01) of linear pictures (B,3,H,W)."""
    return (linear + LOG_FLOOR).log()


def sqrt_split(linear: Tensor) -> Tensor:
    """Linear pictures (B,3,H,W) -> log shading (B,1,H,W): light and paint share every step equally."""
    return 0.5 * log_light(linear).mean(1, keepdim=True)


def retinex(linear: Tensor, edges: Edges = EDGES) -> Tensor:
    """Linear pictures (B,3,H,W) -> log shading (B,1,H,W) of mean 0. With T_c = inf this is grey Retinex."""
    light = log_light(linear)
    return integrate(_smooth_steps(light, 3, edges), _smooth_steps(light, 2, edges))


def retinex_blend(linear: Tensor, edges: Edges = EDGES) -> Tensor:
    """Linear pictures (B,3,H,W) -> log shading (B,1,H,W)."""
    return 0.5 * sqrt_split(linear) + 0.5 * retinex(linear, edges)


def integrate(right: Tensor, down: Tensor) -> Tensor:
    """The field of mean 0 whose steps are nearest, in least squares, to `right` (B,1,H,W-1) and `down` (B,1,H-1,W)."""
    height, width = right.shape[-2], down.shape[-1]
    divergence = right.new_zeros(len(right), 1, height, width)
    divergence[..., :, 1:] += right
    divergence[..., :, :-1] -= right
    divergence[..., 1:, :] += down
    divergence[..., :-1, :] -= down
    rows, columns = _cosines(height, right), _cosines(width, right)
    waves = rows @ divergence @ columns.T
    stiffness = _stiffness(height, right)[:, None] + _stiffness(width, right)
    stiffness[0, 0] = math.inf
    return rows.T @ (waves / stiffness) @ columns


def _smooth_steps(light: Tensor, dim: int, edges: Edges) -> Tensor:
    """Steps of the mean log light along one axis, 0 where they are paint."""
    step = light.diff(dim=dim)
    grey = step.mean(1, keepdim=True)
    colour = (step - grey).norm(dim=1, keepdim=True)
    return torch.where((grey.abs() > edges[0]) | (colour > edges[1]), torch.zeros_like(grey), grey)


def _cosines(n: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II matrix (n,n), waves by rows."""
    place = torch.arange(n, device=like.device, dtype=torch.float64)
    matrix = (math.pi / n * (place + 0.5) * place[:, None]).cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like.dtype)


def _stiffness(n: int, like: Tensor) -> Tensor:
    """2 - 2 cos(πk/n): what the second difference does to wave k."""
    wave = torch.arange(n, device=like.device, dtype=torch.float64)
    return (4 * (math.pi * wave / (2 * n)).sin() ** 2).to(like.dtype)
