"""Differentiable augmentation of real and drawn pictures alike: brightness, saturation, contrast, shift, cut-out.

    D sees T(x) for both x real and x = G(z); gradients flow through T, so G does not learn to draw augmented pictures.

(Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training".) Draws come from the generator given, per
picture, so a step repeats exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["KINDS", "augment"]

KINDS = ("colour", "shift", "cutout")


def colour(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness +-0.5, saturation x[0,2], contrast x[0.5,1.5]."""
    b, s, c = torch.rand(3, len(x), 1, 1, 1, generator=rng, device=x.device).unbind(0)
    x = x + (b - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * s) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (c + 0.5) + level


def shift(x: Tensor, rng: torch.Generator, ratio: float = 0.125) -> Tensor:
    """A whole number of pixels, at most an eighth of the picture each way; what comes in is black (0)."""
    n, _, h, w = x.shape
    reach = max(1, round(h * ratio))
    dy, dx = torch.randint(2 * reach + 1, (2, n, 1, 1), generator=rng, device=x.device).unbind(0)
    rows = torch.arange(h, device=x.device)[None, :, None] + dy
    columns = torch.arange(w, device=x.device)[None, None, :] + dx
    padded = F.pad(x, (reach,) * 4).permute(0, 2, 3, 1)
    batch = torch.arange(n, device=x.device)[:, None, None]
    return padded[batch, rows, columns].permute(0, 3, 1, 2)


def cutout(x: Tensor, rng: torch.Generator, ratio: float = 0.5) -> Tensor:
    """A square of half the side set to 0, its centre anywhere."""
    n, _, h, w = x.shape
    half = h * ratio / 2
    cy, cx = torch.randint(h + 1, (2, n, 1, 1), generator=rng, device=x.device).unbind(0)
    rows = (torch.arange(h, device=x.device)[None, :, None] + 0.5 - cy).abs() < half
    columns = (torch.arange(w, device=x.device)[None, None, :] + 0.5 - cx).abs() < half
    return x.masked_fill((rows & columns)[:, None], 0.0)


def augment(x: Tensor, rng: torch.Generator, kinds: tuple[str, ...] = KINDS) -> Tensor:
    """x (B,3,H,W) in about [-1,1] -> the same shape. kinds: some of KINDS, applied in that order; () returns x."""
    known = {"colour": colour, "shift": shift, "cutout": cutout}
    for kind in kinds:
        x = known[kind](x, rng)
    return x
