"""Filtering one axis of a map as a product with a banded matrix, which does the padding and the change of rate as well.

    y_j = Σ_i h[p i + q − r j] x_i        h is zero beyond its ends

A filter behind `up`-fold zero-stuffing has p = up, q = the zeros in front, r = 1; one that keeps every `down`-th sample has
p = 1, q = 0, r = down. Nothing is stuffed, padded or thrown away, and forward and backward are matrix products. On a CPU
only the blocks around the diagonal are multiplied; elsewhere one dense product is quicker than many small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["Axis", "Band"]

_BLOCK = (
    32  # rows of a block, fewer where the band is flat: long enough for a quick product, short enough to waste little
)

_Blocks = tuple[tuple[slice, slice], ...]


@dataclass(frozen=True)
class Axis:
    """inputs, outputs: samples before and after; taps: length of h; p, q, r: see above."""

    inputs: int
    outputs: int
    taps: int
    p: int
    q: int
    r: int


class Band:
    """The matrix of an Axis and a filter, its transpose, and the blocks in which they are not zero.

    taps     (axis.taps,), applied as a convolution
    blocked  multiply around the diagonal only; False = dense
    """

    def __init__(self, axis: Axis, taps: Tensor, *, blocked: bool):
        i, j = torch.arange(axis.inputs, device=taps.device), torch.arange(axis.outputs, device=taps.device)
        k = axis.p * i + axis.q - axis.r * j[:, None]
        inside = (k >= 0) & (k < axis.taps)
        self.matrix = torch.where(inside, taps.flip(0)[k.clamp(0, axis.taps - 1)], 0)
        self._blocks: tuple[_Blocks | None, _Blocks | None] = _blocks(axis) if blocked else (None, None)

    def columns(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        """(M,H,inputs) -> (M,H,outputs); transposed: the other way."""
        matrix, blocks = self._sided(transposed)
        if blocks is None:
            return x @ matrix.t()
        y = x.new_empty(*x.shape[:-1], len(matrix))
        flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
        for rows, window in blocks:
            torch.mm(flat_x[:, window], matrix[rows, window].t(), out=flat_y[:, rows])
        return y

    def rows(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        """(M,inputs,W) -> (M,outputs,W); transposed: the other way."""
        matrix, blocks = self._sided(transposed)
        if blocks is None:
            return matrix @ x
        y = x.new_empty(len(x), len(matrix), x.shape[-1])
        for rows, window in blocks:
            torch.bmm(matrix[rows, window].expand(len(x), -1, -1), x[:, window], out=y[:, rows])
        return y

    def _sided(self, transposed: bool) -> tuple[Tensor, _Blocks | None]:
        return (self.matrix.t() if transposed else self.matrix), self._blocks[transposed]


@lru_cache(maxsize=1024)
def _blocks(axis: Axis) -> tuple[_Blocks, _Blocks]:
    """(rows, columns beyond which those rows are zero) of the matrix, and of its transpose."""
    k = axis.p * np.arange(axis.inputs) + axis.q - axis.r * np.arange(axis.outputs)[:, None]
    inside = (k >= 0) & (k < axis.taps)
    return _split(inside, axis.r / axis.p), _split(inside.T, axis.p / axis.r)


def _split(inside: np.ndarray, slope: float) -> _Blocks:
    """slope: columns that the band moves on with each row."""
    height = max(1, round(_BLOCK * min(1.0, 1 / slope)))
    found = []
    for start in range(0, len(inside), height):
        used = np.flatnonzero(inside[start : start + height].any(0))
        window = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        found.append((slice(start, start + height), window))
    return tuple(found)
