"""Procedural albedo: twelve textures of (u, v) in metres, three linear colours each. No noise tables, no files.

Cells are hashed with integers, so that CPU and CUDA agree on which tile is which colour.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import looks

__all__ = ["albedo_of"]

Colours = tuple[Tensor, Tensor, Tensor]  # each (S,3,R)


def _hash(i: Tensor, j: Tensor) -> Tensor:
    """Cell numbers to [0,1)."""
    a, b = i.to(torch.int64), j.to(torch.int64)
    h = (a * 73856093) ^ (b * 19349663)
    h = (h ^ (h >> 13)) * 1274126177 & 0xFFFFFFFF
    return ((h >> 8) & 0xFFFF).to(torch.float32) / 65536.0


def _mix(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    w = w.unsqueeze(1).to(a.dtype)
    return a + (b - a) * w


def _plain(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    return c[0]


def _checker(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    return _mix(c[0], c[1], (u.floor() + v.floor()).remainder(2))


def _stripes(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    return _mix(c[0], c[1], u.remainder(1) < 0.4)


def _wood(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    plank = (v * 2.5).floor()
    along = u * 0.4 + _hash(plank, plank) * 7
    tone = 0.25 + 0.5 * _hash(plank, along.floor()) + 0.25 * torch.sin(18 * v + 3 * torch.sin(1.5 * u))
    gap = ((v * 2.5).remainder(1) < 0.07) | (along.remainder(1) < 0.012)
    return _mix(c[0], c[1], tone.clamp(0, 1)) * (1 - 0.45 * gap.to(u.dtype)).unsqueeze(1)


def _tiles(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    grout = (u.remainder(1) < 0.08) | (v.remainder(1) < 0.08)
    return _mix(_mix(c[0], c[1], 0.4 * _hash(u.floor(), v.floor())), c[2], grout)


def _mondrian(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    u = u * 0.7 + 0.35 * _hash((v * 0.6).floor(), (v * 0.6).floor() + 7)
    v = v * 0.6
    pick = _hash(u.floor(), v.floor())
    colour = _mix(_mix(c[0], c[1], pick > 0.4), c[2], pick > 0.7)
    line = (u.remainder(1) < 0.06) | (v.remainder(1) < 0.06)
    return _mix(colour, torch.full_like(colour, 0.05), line)


def _noise(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    total = torch.zeros_like(u)
    for octave, weight in ((0.8, 0.65), (2.1, 0.35)):
        x, y = u * octave, v * octave
        i, j = x.floor(), y.floor()
        fx, fy = x - i, y - j
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        low = _hash(i, j) * (1 - fx) + _hash(i + 1, j) * fx
        high = _hash(i, j + 1) * (1 - fx) + _hash(i + 1, j + 1) * fx
        total = total + weight * (low * (1 - fy) + high * fy)
    return _mix(c[0], c[1], total)


def _plaid(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    colour = _mix(c[0], c[1], 0.5 * (u.remainder(1) < 0.4) + 0.5 * (v.remainder(1) < 0.4))
    return _mix(colour, c[2], 0.6 * ((u.remainder(1) - 0.7).abs() < 0.04).to(u.dtype))


def _dots(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    return _mix(c[0], c[1], (u.remainder(1) - 0.5).square() + (v.remainder(1) - 0.5).square() < 0.08)


def _zigzag(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    return _mix(c[0], c[1], (v + (u.remainder(1) - 0.5).abs()).remainder(1) < 0.45)


def _bricks(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    row = (v * 2).floor()
    x = u + 0.5 * row.remainder(2)
    mortar = (x.remainder(1) < 0.06) | ((v * 2).remainder(1) < 0.12)
    return _mix(_mix(c[0], c[1], 0.5 * _hash(x.floor(), row)), c[2], mortar)


def _rings(u: Tensor, v: Tensor, c: Colours) -> Tensor:
    r = ((u.remainder(4) - 2).square() + (v.remainder(4) - 2).square()).sqrt()
    return _mix(c[0], c[1], r.remainder(1) < 0.5)


PAINT: dict[int, Callable[[Tensor, Tensor, Colours], Tensor]] = {
    looks.PLAIN: _plain, looks.CHECKER: _checker, looks.STRIPES: _stripes, looks.WOOD: _wood, looks.TILES: _tiles,
    looks.MONDRIAN: _mondrian, looks.NOISE: _noise, looks.PLAID: _plaid, looks.DOTS: _dots, looks.ZIGZAG: _zigzag,
    looks.BRICKS: _bricks, looks.RINGS: _rings,
}  # fmt: skip


def albedo_of(kind: Tensor, colours: Colours, u: Tensor, v: Tensor, present: frozenset[int]) -> Tensor:
    """Linear albedo (S,3,R). `kind`, u, v are (S,R), in periods; `present` lists the kinds that occur at all."""
    out = colours[0]
    for which in sorted(present - {looks.PLAIN}):
        out = torch.where((kind == which).unsqueeze(1), PAINT[which](u, v, colours), out)
    return out.clamp(0.01, 0.97)
