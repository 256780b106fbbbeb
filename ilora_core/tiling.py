"""Maps of large pictures from overlapping tiles, coarse to fine.

A tile is drawn without its surroundings, so its map t has its own scale and shift (depth), its own scale (shading) and its own
mistakes about what lies outside. A coarser map c of the whole picture, enlarged, lacks detail but is of one piece. With G a
Gaussian that is as wide as a pixel of the coarser map,

    fit      depth    s, b of least Σ (s Gt + b - Gc)²
             shading  s of least Σ (s Gt - Gc)²
             others   s of least Σ (s (Gt - mean Gt) - (Gc - mean Gc))², each channel with its mean, at most 1; b = 0
    correct  u = f + G(c - f),  f = s t + b             coarse structure from the coarser map, detail from the tile
    blend    map = Σ w u / Σ w,  w = sin²(π y / side) sin²(π x / side)

The first c is the native map, and the tiles at each size are corrected by the map of the size before, at most half as wide:
one octave of detail at a time, so that a tile of a small part of the picture has little left to be wrong about.

Both sides of the fit are blurred, since least squares would otherwise take detail that the coarser map lacks for noise and make
s too small. For maps that have no scale to fit, s says how far a tile's coarse structure is that of the coarser map, and so how
far to believe its detail. A tile that cannot be fitted (Gt is flat, or s is not positive) is replaced by c. Normals become unit
vectors after the correction and after the blend; other maps are kept in their range.

What tiles do not agree on is averaged away in part, the more the more tiles there are at a pixel: by Σ w² / (Σ w)². With less
overlap a border lies where one map stands alone and is rougher than its surroundings. At an overlap of two thirds Σ w and Σ w²
are the same everywhere: tiles whose mistakes do not depend on the place in the tile leave no border.

Least squares in scale and shift: Ranftl et al. 2019 (arXiv 1907.01341). Coarse structure from the whole and detail from patches:
Miangoleh et al. 2021 (arXiv 2105.14021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic, resize_map, unit_vectors

__all__ = [
    "OVERLAP",
    "corners",
    "fit_affine",
    "levels",
    "low_pass",
    "pyramid",
    "reconcile",
    "resize_maps",
    "tile_maps",
    "window",
]

OVERLAP = 0.66
"""The least share of a tile's side that neighbours have in common, unless told: two thirds, with room for rounding."""

_FLAT = 1e-6  # a variance below this share of the mean square is a flat map's rounding
_WIDEST = 0.25  # of a tile's side: a wider Gaussian would see little but repeated edges

Draw = Callable[[Tensor], Mapping[str, Tensor]]


def pyramid(
    draw: Draw,
    pictures: Tensor,
    native: Mapping[str, Tensor],
    intrinsics: Mapping[str, Intrinsic],
    *,
    side: int,
    overlap: float = OVERLAP,
    batch: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Intrinsic's name -> map (B,C,h,w) at every size of `levels`, each made from the one before, the pictures' own last.

    native: the whole pictures' maps at the size they were drawn. The rest as for `tile_maps`.
    """
    coarse = dict(native)
    for size in levels(pictures.shape[-2], pictures.shape[-1], side):
        pixel = size[0] / next(iter(coarse.values())).shape[-2]
        coarse = resize_maps(coarse, intrinsics, size)
        smaller = F.interpolate(pictures, size, mode="bilinear", antialias=True).clamp(0, 1)
        coarse = tile_maps(draw, smaller, coarse, intrinsics, side=side, pixel=pixel, overlap=overlap, batch=batch)
        yield coarse


def levels(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Sizes (h,w) between the generator's own and the picture's, ascending, in equal steps of at most 2.

    Empty for a picture whose shorter side is no longer than the generator's.
    """
    factor = min(height, width) / side
    if factor <= 1:
        return []
    count = math.ceil(math.log2(factor))
    shares = [factor ** (step / count - 1) for step in range(1, count)]
    return [*((round(height * share), round(width * share)) for share in shares), (height, width)]


def tile_maps(
    draw: Draw,
    pictures: Tensor,
    coarse: Mapping[str, Tensor],
    intrinsics: Mapping[str, Intrinsic],
    *,
    side: int,
    pixel: float,
    overlap: float = OVERLAP,
    batch: int = 1,
) -> dict[str, Tensor]:
    """Intrinsic's name -> map (B,C,H,W) from tiles of one size.

    draw        tiles (N,3,side,side) in [0,1] -> maps (N,C,side,side), N at most `batch`
    pictures    (B,3,H,W) in [0,1], no side smaller than `side`
    coarse      the whole pictures' maps, already (B,C,H,W); tiles of a map that is missing here are blended as they are
    pixel       how many pixels a pixel of the coarse map covered before it was enlarged

    Raises ConfigError for an overlap outside (0, 0.9] or pictures smaller than a tile.
    """
    height, width = pictures.shape[-2:]
    found = corners(height, width, side, overlap)
    weight, own = torch.zeros(1, 1, height, width), window(side)[0]
    for top, left in found:
        weight[0, :, top : top + side, left : left + side] += own
    places = [(row, *corner) for corner in found for row in range(len(pictures))]
    sums: dict[str, Tensor] = {}
    for start in range(0, len(places), batch):
        chosen = places[start : start + batch]
        for name, drawn in draw(_cut(pictures, chosen, side)).items():
            if name in coarse:
                drawn = reconcile(intrinsics[name], drawn, _cut(coarse[name], chosen, side), pixel)
            total = sums.setdefault(name, torch.zeros(len(pictures), drawn.shape[1], height, width))
            for (row, top, left), value in zip(chosen, drawn, strict=True):
                total[row, :, top : top + side, left : left + side] += value * own
    return {name: _within(intrinsics[name], total.div_(weight)) for name, total in sums.items()}


def resize_maps(
    maps: Mapping[str, Tensor], intrinsics: Mapping[str, Intrinsic], size: tuple[int, int]
) -> dict[str, Tensor]:
    """Maps (B,C,h,w) at another size (H,W)."""
    return {
        name: resize_map(intrinsics[name], value, torch.ones_like(value[:, :1], dtype=torch.bool), size)[0]
        for name, value in maps.items()
    }


def reconcile(intrinsic: Intrinsic, tile: Tensor, coarse: Tensor, pixel: float) -> Tensor:
    """Tiles' maps (N,C,h,w) brought to the coarser map there, (N,C,h,w), one pixel of which covered `pixel` of theirs."""
    sigma = min(pixel, _WIDEST * tile.shape[-1])
    scale, shift, sound = fit_affine(intrinsic, low_pass(tile, sigma), low_pass(coarse, sigma))
    fitted = torch.where(sound, scale * tile + shift, coarse)
    return _within(intrinsic, fitted + low_pass(coarse - fitted, sigma))


def fit_affine(intrinsic: Intrinsic, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per map of x (N,C,H,W) what brings it to y: scale, shift, each (N,1,1,1), and bool (N,1,1,1) whether they mean anything.

    Depth gets both, shading a scale, all else a scale of at most 1. Where they mean nothing (x is flat, or the scale is not
    positive) they are 1 and 0.
    """
    x, y, dtype = x.double(), y.double(), x.dtype
    ones = torch.ones(len(x), 1, 1, 1, dtype=x.dtype, device=x.device)
    shading, depth = (intrinsic.encoding == e for e in ("shading", "relative_depth"))
    centre_x, centre_y = (0 * ones if shading else v.mean((2, 3), keepdim=True) for v in (x, y))
    power = (x - centre_x).square().mean((1, 2, 3), keepdim=True)
    scale = ((x - centre_x) * (y - centre_y)).mean((1, 2, 3), keepdim=True) / power.clamp(min=1e-30)
    sound = (power > _FLAT * x.square().mean((1, 2, 3), keepdim=True).clamp(min=_FLAT)) & (scale > 0)
    scale = torch.where(sound, scale if shading or depth else scale.clamp(max=1), ones)
    shift = torch.where(sound, centre_y - scale * centre_x, 0 * ones) if depth else 0 * ones
    return scale.to(dtype), shift.to(dtype), sound


def low_pass(value: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` pixels over (N,C,H,W), cut off at three sigmas; edges are repeated."""
    radius = max(1, math.ceil(3 * sigma))
    line = torch.arange(-radius, radius + 1, dtype=value.dtype, device=value.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = kernel / kernel.sum()
    flat = F.pad(value.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None])[:, 0].view_as(value)


def window(side: int) -> Tensor:
    """A tile's weight (1,1,side,side): a Hann window, positive everywhere and nearly 0 at its edges."""
    line = torch.sin(math.pi * (torch.arange(side) + 0.5) / side).square()
    return (line[:, None] * line[None, :])[None, None]


def corners(height: int, width: int, side: int, overlap: float = OVERLAP) -> list[tuple[int, int]]:
    """Upper left corners of tiles that cover a picture, evenly spread, neighbours sharing at least `overlap` of a side."""
    if not 0 < overlap <= 0.9:
        raise ConfigError(f"--overlap is a share of a tile's side above 0 and up to 0.9, not {overlap}.")
    if min(height, width) < side:
        raise ConfigError(f"a picture of {width}x{height} pixels has no tiles of {side}; use --process native.")

    def starts(length: int) -> list[int]:
        count = 1 + math.ceil((length - side) / max(1.0, side * (1 - overlap)))
        return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]

    return [(top, left) for top in starts(height) for left in starts(width)]


def _cut(value: Tensor, places: list[tuple[int, int, int]], side: int) -> Tensor:
    return torch.stack([value[row, :, top : top + side, left : left + side] for row, top, left in places])


def _within(intrinsic: Intrinsic, value: Tensor) -> Tensor:
    """What a correction or a blend may have carried out of the map's range, back in it."""
    if intrinsic.encoding == "unit_vector":
        return unit_vectors(value)
    if intrinsic.encoding == "shading":
        return value.clamp(min=0)
    low, high = (0.0, 1.0) if intrinsic.encoding == "relative_depth" else (intrinsic.low, intrinsic.high)
    return value.clamp(low, high)
