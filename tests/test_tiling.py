"""Tiles of a fake generator, whose maps are distorted truths, come back as the truth."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic, unit_vectors
from ilora_core.tiling import OVERLAP, corners, fit_affine, levels, low_pass, pyramid, reconcile, tile_maps, window

SIDE = 32


def random(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def smooth(*size, cells=5, seed=0):
    """A random map (size) in [0.2, 0.8] that changes slowly."""
    coarse = random(*size[:2], cells, cells, seed=seed)
    return 0.2 + 0.6 * F.interpolate(coarse, size[2:], mode="bicubic", align_corners=True).clamp(0, 1)


def with_detail(*size, seed=0):
    """The same with detail of a few pixels."""
    return 0.75 * smooth(*size, seed=seed) + 0.2 * smooth(*size, cells=size[-1] // 4, seed=seed + 1)


def distorted(name, change):
    """A generator that draws its own input, each tile changed by `change(number)`."""
    drawn = []

    def draw(tiles):
        rows = []
        for tile in tiles[:, :1]:
            drawn.append(tile)
            rows.append(change(len(drawn))(tile))
        return {name: torch.stack(rows)}

    return draw


def per_tile_affine(number):
    scale, shift = 0.3 + 0.2 * (number % 5), 0.4 - 0.07 * (number % 7)
    return lambda tile: scale * tile + shift


def test_affine_distortions_of_depth_are_undone():
    truth = smooth(2, 1, 90, 75)
    pictures = truth.expand(-1, 3, -1, -1)
    found = tile_maps(
        distorted("depth", per_tile_affine), pictures, {"depth": truth}, {"depth": DEPTH}, side=SIDE, pixel=2.3
    )
    torch.testing.assert_close(found["depth"], truth, atol=2e-5, rtol=0)
    bare = tile_maps(distorted("depth", per_tile_affine), pictures, {}, {"depth": DEPTH}, side=SIDE, pixel=2.3)
    assert (bare["depth"] - truth).abs().mean() > 0.1


def test_scales_of_shading_are_undone():
    truth = smooth(1, 1, 64, 80)
    draw = distorted("shading", lambda number: lambda tile: (0.3 + number) * tile)
    found = tile_maps(draw, truth.expand(-1, 3, -1, -1), {"shading": truth}, {"shading": SHADING}, side=SIDE, pixel=2.0)
    torch.testing.assert_close(found["shading"], truth, atol=2e-5, rtol=0)


def step_share(value, borders):
    """Mean step across tile borders, as a multiple of the mean step elsewhere."""
    steps = value.diff(dim=-1).abs().mean((0, 1, 2))
    at = torch.zeros_like(steps, dtype=torch.bool)
    at[[b - 1 for b in borders]] = True
    return float(steps[at].mean() / steps[~at].mean())


def test_detail_comes_from_tiles_and_no_seam_is_left():
    truth = with_detail(1, 1, 96, 96)
    small = F.interpolate(truth, (SIDE, SIDE), mode="bilinear", antialias=True)
    native = F.interpolate(small, (96, 96), mode="bilinear")
    draw, pictures = distorted("depth", per_tile_affine), truth.expand(-1, 3, -1, -1)
    found = tile_maps(draw, pictures, {"depth": native}, {"depth": DEPTH}, side=SIDE, pixel=3.0)["depth"]
    error, before = ((value - truth).square().mean().sqrt() for value in (found, native))
    assert error < before / 3
    starts = {left for _, left in corners(96, 96, SIDE)}
    borders = sorted({b for s in starts for b in (s, s + SIDE)} - {0, 96})
    assert step_share(found, borders) < step_share(truth, borders) + 0.05
    unblended = torch.zeros_like(truth)
    for number, (top, left) in enumerate(corners(96, 96, SIDE)):
        part = (..., slice(top, top + SIDE), slice(left, left + SIDE))
        unblended[part] = per_tile_affine(number)(truth[part])
    assert step_share(unblended, borders) > 2 * step_share(truth, borders)


def test_coarse_structure_comes_from_the_native_map():
    native, detail = smooth(1, 3, 48, 48, cells=3), 0.02 * torch.sign(random(1, 3, 48, 48) - 0.5)
    tile = native + 0.15 + detail  # albedo that is too bright all over
    found = reconcile(ALBEDO, tile, native, 3.0)
    assert (found - native).abs().mean() < 0.03
    kept = (found - low_pass(found, 3.0)).flatten() @ (detail - low_pass(detail, 3.0)).flatten()
    assert kept > 0.9 * (detail - low_pass(detail, 3.0)).square().sum()


def test_normals_stay_unit_vectors_and_turn_to_the_native_ones():
    native = unit_vectors(torch.cat([smooth(1, 2, 80, 64) - 0.5, -torch.ones(1, 1, 80, 64)], 1))
    turned = unit_vectors(native + torch.tensor([0.5, -0.3, 0.0]).view(1, 3, 1, 1))

    def draw(tiles):
        return {"normals": tiles * 2 - 1}

    found = tile_maps(draw, (turned + 1) / 2, {"normals": native}, {"normals": NORMALS}, side=SIDE, pixel=2.0)[
        "normals"
    ]
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1, 80, 64))
    before, after = ((value - native).norm(dim=1).mean() for value in (turned, found))
    assert after < before / 20


@pytest.mark.parametrize("tile", ["flat", "negative", "zero"])
def test_a_tile_that_cannot_be_fitted_is_the_native_map(tile):
    native = smooth(1, 1, SIDE, SIDE)
    value = {"flat": torch.full_like(native, 0.3), "negative": 1 - native, "zero": torch.zeros_like(native)}[tile]
    torch.testing.assert_close(reconcile(DEPTH, value, native, 2.0), native, atol=1e-6, rtol=0)
    if tile == "zero":
        torch.testing.assert_close(reconcile(SHADING, value, native, 2.0), native, atol=1e-6, rtol=0)


def test_only_depth_and_shading_are_scaled():
    x, y = smooth(2, 1, 16, 16), 2 * smooth(2, 1, 16, 16) + 0.5
    scale, shift, sound = fit_affine(DEPTH, x, y)
    torch.testing.assert_close(scale.flatten(), torch.full((2,), 2.0))
    torch.testing.assert_close(shift.flatten(), torch.full((2,), 0.5))
    assert sound.all()
    for intrinsic in (NORMALS, ALBEDO, Intrinsic("roughness", 1, "", "linear")):
        scale, shift, sound = fit_affine(intrinsic, x, y)
        assert (scale == 1).all()
        assert (shift == 0).all()
        assert sound.all()
        torch.testing.assert_close(fit_affine(intrinsic, y, x)[0].flatten(), torch.full((2,), 0.5))
        assert not fit_affine(intrinsic, -x, y)[2].any()


def test_the_less_a_tile_looks_like_the_native_map_the_less_detail_it_brings():
    native, detail = smooth(1, 3, SIDE, SIDE, cells=3), 0.05 * torch.sign(random(1, 3, SIDE, SIDE) - 0.5)
    wrong = smooth(1, 3, SIDE, SIDE, cells=3, seed=9)
    kept = []
    for share in (0.0, 0.7, 0.9):
        tile = (1 - share) * native + share * wrong + detail
        found = reconcile(ALBEDO, tile, native, 2.0)
        kept.append(float((found - low_pass(found, 2.0)).flatten() @ detail.flatten() / detail.square().sum()))
    assert kept[0] > 1.2 * kept[1] > 1.5 * kept[2]


def test_maps_stay_in_their_range():
    native = smooth(1, 1, SIDE, SIDE).round()
    roughness = Intrinsic("roughness", 1, "", "linear", 0.25, 0.75)
    for intrinsic, low, high in ((DEPTH, 0.0, 1.0), (ALBEDO, 0.0, 1.0), (SHADING, 0.0, 9.0), (roughness, 0.25, 0.75)):
        found = reconcile(intrinsic, 1.5 * native + 2 * (random(1, 1, SIDE, SIDE) - 0.5), native, 2.0)
        assert found.min() >= low
        assert found.max() <= high


def test_batches_and_neighbours_change_nothing():
    truth = with_detail(3, 1, 50, 70)

    def draw(tiles):
        assert len(tiles) <= 7
        return {"depth": 0.5 * tiles[:, :1] + tiles.mean((1, 2, 3), keepdim=True) / 2}

    def run(pictures, native, batch):
        return tile_maps(draw, pictures, {"depth": native}, {"depth": DEPTH}, side=SIDE, pixel=1.6, batch=batch)[
            "depth"
        ]

    together = run(truth.expand(-1, 3, -1, -1), truth, 7)
    alone = torch.cat([run(truth[i : i + 1].expand(-1, 3, -1, -1), truth[i : i + 1], 1) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 32), (100, 57), (64, 320)])
@pytest.mark.parametrize("overlap", [0.1, 0.25, 0.5, OVERLAP])
def test_tiles_cover_a_picture_and_overlap(height, width, overlap):
    seen = torch.zeros(height, width)
    found = corners(height, width, SIDE, overlap)
    for top, left in found:
        assert 0 <= top <= height - SIDE
        assert 0 <= left <= width - SIDE
        seen[top : top + SIDE, left : left + SIDE] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in found})
        assert all(b - a < SIDE * (1 - overlap) + 1 for a, b in pairwise(starts))  # whole pixels
    assert len(found) <= math.ceil(height / SIDE / (1 - overlap)) * math.ceil(width / SIDE / (1 - overlap))


@pytest.mark.parametrize("overlap", [0.0, 0.95, -1.0])
def test_bad_overlaps(overlap):
    with pytest.raises(ConfigError, match="--overlap"):
        corners(64, 64, SIDE, overlap)


def test_pictures_smaller_than_a_tile():
    with pytest.raises(ConfigError, match="--process native"):
        corners(64, 20, SIDE)


def test_windows_are_positive_and_end_softly():
    found = window(SIDE)[0, 0]
    assert found.min() > 0
    assert found[0].max() < 0.01 * found.max()
    torch.testing.assert_close(found, found.flip(0).T)


def test_low_pass_keeps_constants_and_has_its_width():
    torch.testing.assert_close(low_pass(torch.full((1, 2, 9, 11), 0.7), 3.0), torch.full((1, 2, 9, 11), 0.7))
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    line = low_pass(point, 4.0)[0, 0].sum(0)
    assert float(line.sum()) == pytest.approx(1, abs=1e-5)
    variance = float((line * (torch.arange(41) - 20).square()).sum())
    assert variance == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (32, 50, []),
        (20, 90, []),
        (64, 64, [(64, 64)]),
        (48, 48, [(48, 48)]),
        (64, 96, [(64, 96)]),
        (128, 200, [(64, 100), (128, 200)]),
        (65, 65, [(46, 46), (65, 65)]),
        (512, 512, [(64, 64), (128, 128), (256, 256), (512, 512)]),
    ],
)
def test_sizes_at_most_double_and_end_at_the_pictures(height, width, expected):
    assert levels(height, width, SIDE) == expected


def test_a_pyramid_brings_detail_octave_by_octave():
    """Each tile is drawn with its own scale and shift; what comes back is the truth at every size."""
    truth = with_detail(1, 1, 4 * SIDE, 4 * SIDE + 19)
    small = F.interpolate(truth, (SIDE, 37), mode="bilinear", antialias=True)
    pictures, known = truth.expand(-1, 3, -1, -1), {"depth": DEPTH}
    made = list(pyramid(distorted("depth", per_tile_affine), pictures, {"depth": small}, known, side=SIDE, batch=1))
    assert [each["depth"].shape[-2:] for each in made] == [(64, 74), (128, 147)]
    native = F.interpolate(small, truth.shape[-2:], mode="bilinear")
    error, before = ((value - truth).square().mean().sqrt() for value in (made[-1]["depth"], native))
    assert error < before / 3


def test_a_ramp_and_a_wall_come_back_without_a_seam():
    ramp = torch.linspace(0.1, 0.9, 5 * SIDE).expand(1, 1, 5 * SIDE, -1)
    small = F.interpolate(ramp, (SIDE, SIDE), mode="bilinear", antialias=True)
    draw = distorted("depth", per_tile_affine)
    *_, last = pyramid(draw, ramp.expand(-1, 3, -1, -1), {"depth": small}, {"depth": DEPTH}, side=SIDE)
    inner = slice(SIDE, -SIDE)  # the enlarged ramp is flat at the picture's edges
    torch.testing.assert_close(last["depth"][..., inner], ramp[..., inner], atol=2e-3, rtol=0)
    bends = last["depth"][..., inner].diff(dim=-1).diff(dim=-1).abs()
    assert bends.max() < 0.1 * ramp.diff(dim=-1).mean()
    wall = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1)
    *_, last = pyramid(
        lambda tiles: {"normals": wall.expand(len(tiles), 3, SIDE, SIDE)},
        torch.zeros(1, 3, 70, 90),
        {"normals": wall.expand(1, 3, SIDE, 41)},
        {"normals": NORMALS},
        side=SIDE,
    )
    torch.testing.assert_close(last["normals"], wall.expand(1, 3, 70, 90), atol=1e-5, rtol=0)


def test_no_border_can_be_told_at_the_default_overlap():
    """Tiles that disagree at random are averaged evenly: the variance is the same on every line, borders or not."""
    length, side = 8 * SIDE, SIDE
    starts = sorted({top for top, _ in corners(length, length, side)})
    line, total, square = window(side)[0, 0, side // 2], torch.zeros(length), torch.zeros(length)
    for start in starts:
        total[start : start + side] += line
        square[start : start + side] += line.square()
    even = (square / total.square())[side:-side]
    assert even.max() < 1.1 * even.min()
