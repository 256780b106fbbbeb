"""From a log shading to the two maps, with one rule for their scale.

    A = I / S;   s = p99(S),  S' = min(S/s, 1);   a = p99(max_c A)/0.95,  A' = min(A/a, 1)
    I ≈ scale · A' · S',   scale = a · s,   exact where nothing was cut

Percentiles are over valid pixels: those whose brightest channel is below 0.995 in sRGB, or all where fewer than 1 % are.
The shading is grey, so that the colour of the light stays in the albedo, as one tint over the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Split", "divide", "rescale", "unclipped"]

_ALBEDO_TOP = 0.95
_CLIPPED = 0.995
_LEAST = 1e-6


@dataclass(frozen=True)
class Split:
    """albedo (B,3,H,W) and shading (B,1 or 3,H,W), linear in [0,1]; scale (B,1,1,1)."""

    albedo: Tensor
    shading: Tensor
    scale: Tensor


def unclipped(pictures: Tensor) -> Tensor:
    """sRGB pictures (B,3,H,W) -> bool (B,1,H,W): pixels that tell their colour. All of a picture where few do."""
    inside = pictures.amax(1, keepdim=True) < _CLIPPED
    enough = inside.float().mean((1, 2, 3), keepdim=True) >= 0.01
    return inside | ~enough


def divide(linear: Tensor, log_shading: Tensor) -> tuple[Tensor, Tensor]:
    """Linear pictures (B,3,H,W), log shading (B,1,H,W) -> albedo (B,3,H,W) and shading, of any scale, A·S = I."""
    shading = log_shading.exp()
    return linear / shading, shading


def rescale(albedo: Tensor, shading: Tensor, valid: Tensor) -> Split:
    """Maps of any scale, valid bool (B,1,H,W) -> maps in [0,1] by the rule above. Doing it twice changes nothing."""
    white = percentile(shading.amax(1, keepdim=True), valid, 0.99)
    brightest = percentile(albedo.amax(1, keepdim=True), valid, 0.99) / _ALBEDO_TOP
    return Split((albedo / brightest).clamp(0, 1), (shading / white).clamp(0, 1), brightest * white)


def percentile(x: Tensor, valid: Tensor, q: float) -> Tensor:
    """q-quantile of each picture's valid pixels, x (B,1,H,W) -> (B,1,1,1), at least 1e-6; of all pixels where none is.

    It is the value of a pixel, the next one below, so that cutting the map there does not move it.
    """
    rows = []
    for row, mask in zip(x, valid, strict=True):
        chosen = row[mask] if bool(mask.any()) else row.flatten()
        rows.append(chosen.sort().values[int(q * (len(chosen) - 1))])
    return torch.stack(rows).clamp(min=_LEAST).view(-1, 1, 1, 1)
