"""3x3 convolution of scaled maps by Winograd's F(4x4, 3x3): 36 products of matrices in place of 144 per tile.

    y = Aᵀ [(G w Gᵀ) ⊙ (B d Bᵀ)] A        d: a 6x6 tile of the input, y: a 4x4 tile of the output

(Toom-Cook; Lavin & Gray 2015, arXiv 1509.09308.) The points 0, ±0.7, ±1.4, ∞ keep float32's rounding close to that of the
direct sum; 0, ±1, ±2, ∞, which are usual, lose four times more. It is for CPUs: on a GPU cuDNN knows better. Everything goes
in pieces that stay in the cache; fresh memory costs more than the arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["MIN_TILES", "convolve3x3", "tiles"]

_POINTS = (0.0, 0.7, -0.7, 1.4, -1.4)
_OUT, _IN = 4, 6  # sides of a tile
_TILES = 320  # at a time
_KERNELS = 128  # output channels at a time
MIN_TILES = 128  # below that, transforming the kernels costs too much of what is saved


def tiles(height: int, width: int) -> int:
    """Number of tiles of an output."""
    return -(-height // _OUT) * -(-width // _OUT)


def convolve3x3(x: Tensor, scale: Tensor, weight: Tensor, *, padding: int) -> Tensor:
    """conv2d(x * scale, weight, padding); gradients of x and scale, none of the weight.

    x (N,C,H,W) on a CPU, scale (N,C), weight (O,C,3,3), padding 0, 1 or 2 -> (N,O,H + 2 padding − 2, …)
    """
    return _Winograd.apply(x, scale, weight, padding)  # pyright: ignore[reportReturnType]


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, scale, weight)
        ctx.padding = padding
        return _convolve(x, scale, weight, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale, weight = ctx.saved_tensors
        ones = scale.new_ones(len(x), len(weight))
        g = _convolve(gradients[0], ones, weight.flip(2, 3).transpose(0, 1), 2 - ctx.padding)
        of_scale = scale.new_empty(scale.shape)
        for n in range(len(x)):
            for c in range(0, x.shape[1], 16):
                part = slice(c, c + 16)
                of_scale[n, part] = (g[n, part] * x[n, part]).sum((1, 2))
        return g.mul_(scale[:, :, None, None]), of_scale, None, None


@dataclass(frozen=True)
class _Strip:
    """Rows `first` … `last` − 1 of tiles of the samples in `samples`."""

    samples: slice
    first: int
    last: int


def _strips(count: int, rows: int, columns: int) -> Iterator[_Strip]:
    """Whole samples where they are small, else some rows of tiles of one."""
    several = max(1, _TILES // (rows * columns))
    height = rows if several > 1 else min(rows, max(1, round(_TILES / columns)))
    for n in range(0, count, several):
        for first in range(0, rows, height):
            yield _Strip(slice(n, min(n + several, count)), first, min(first + height, rows))


def _convolve(x: Tensor, scale: Tensor, weight: Tensor, padding: int) -> Tensor:
    forth, kernels, back = (matrix.to(x.dtype) for matrix in _transforms())
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    rows, columns = -(-height // _OUT), -(-width // _OUT)
    y = x.new_empty(len(x), len(weight), rows, _OUT, columns, _OUT)
    strips = list(_strips(len(x), rows, columns))
    transformed = _kernels(weight, kernels)
    for strip in strips:
        v = _transformed(x, scale, strip, columns, padding, forth).transpose(1, 2)
        if len(strips) > 1:
            transformed = list(transformed)  # used again; for a single strip each one is dropped after its use
        for part, u in transformed:
            tile = back @ torch.bmm(u, v).flatten(1)
            grid = tile.view(_OUT, _OUT, u.shape[1], -1, strip.last - strip.first, columns)
            y[strip.samples, part, strip.first : strip.last] = grid.permute(3, 2, 4, 0, 5, 1)
    return y.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _kernels(weight: Tensor, transform: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(output channels, their kernels in the transformed domain (36,channels,C))."""
    for o in range(0, len(weight), _KERNELS):
        w = weight[o : o + _KERNELS]
        yield slice(o, o + len(w)), (transform @ w.reshape(-1, 9).t()).view(_IN * _IN, *w.shape[:2])


def _transformed(x: Tensor, scale: Tensor, strip: _Strip, columns: int, padding: int, forth: Tensor) -> Tensor:
    """The strip's tiles in the transformed domain, (36, tiles, C)."""
    padded = _padded(x, scale, strip, columns, padding)
    count, channels = len(padded) * (strip.last - strip.first), x.shape[1]
    v = x.new_empty(_IN * _IN, count, columns * channels)
    _, row, column, _ = padded.stride()
    for index in range(count):
        n, t = divmod(index, strip.last - strip.first)
        start = padded[n, _OUT * t]
        patches = start.as_strided(
            (_IN, _IN, columns, channels), (row, column, _OUT * column, 1), start.storage_offset()
        )
        torch.mm(forth, patches.reshape(_IN * _IN, -1), out=v[:, index])
    return v.view(_IN * _IN, count * columns, channels)


def _padded(x: Tensor, scale: Tensor, strip: _Strip, columns: int, padding: int) -> Tensor:
    """The scaled input that the strip's tiles cover, with zeros around it, channels last: (samples, rows, width, C)."""
    part, factors = x[strip.samples], scale[strip.samples]
    top = _OUT * strip.first - padding
    rows, width = _OUT * (strip.last - strip.first) + 2, _OUT * columns + 2
    padded = x.new_zeros(len(part), rows, width, x.shape[1])
    low, high = max(top, 0), min(top + rows, x.shape[2])
    if low < high:
        inside = padded[:, low - top : high - top, padding : padding + x.shape[3]]
        source = part[:, :, low:high, : inside.shape[2]].permute(0, 2, 3, 1)
        torch.mul(source, factors[:, None, None, :], out=inside)
    return padded


@lru_cache(maxsize=1)
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """B⊗B, G⊗G and A⊗A in float64: evaluation at the points of polynomials, and interpolation, transposed."""
    side = len(_POINTS) + 1
    powers = np.vander(_POINTS, side, increasing=True)
    whole = np.vstack([powers, np.eye(side)[-1:]])  # the last point is infinity: the leading coefficient
    b = np.linalg.inv(whole).T
    a = np.vstack([powers[:, :_OUT], np.eye(_OUT)[-1:]]).T
    g = np.vstack([powers[:, :3], np.eye(3)[-1:]])
    norms = np.abs(b).sum(1, keepdims=True)  # balanced, so that no product is much larger than the others
    b, g = b / norms, g * norms
    return tuple(torch.from_numpy(np.kron(m, m)) for m in (b, g, a))  # pyright: ignore[reportReturnType]
