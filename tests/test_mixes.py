"""Mixes of labelers against figures worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic
from ilora_core.mixes import disagreement_of, mix_labels, mixed_intrinsics, pixel_weights

FAR = replace(DEPTH, kind="affine_depth", unit="relative")
NEAR = replace(DEPTH, kind="affine_disparity", unit="relative")
ROUGHNESS = Intrinsic("roughness", 1, "", "linear")
SIDE = 8
ALL = torch.ones(1, SIDE, SIDE, dtype=torch.bool)


def ramp(low: float = 1.0, high: float = 4.0, channels: int = 1) -> torch.Tensor:
    return torch.linspace(low, high, SIDE * SIDE).view(1, SIDE, SIDE).expand(channels, -1, -1).clone()


def tilted(degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([math.sin(angle), 0.0, -math.cos(angle)]).view(3, 1, 1).expand(3, SIDE, SIDE).clone()


def mix(intrinsics, *values, mode="mean", valid=None):
    """Mix one intrinsic of several labelers; returns map, valid, disagreement, known."""
    masks = valid or [ALL] * len(values)
    name = intrinsics[0].name
    mixed = mix_labels([{name: pair} for pair in zip(values, masks, strict=True)], [(i,) for i in intrinsics], mode)
    return *mixed[name], *mixed[f"disagreement-{name}"]


@pytest.mark.parametrize("mode", ["mean", "median"])
def test_normals_meet_halfway_and_disagree_by_half_the_angle(mode):
    value, valid, apart, known = mix([NORMALS] * 2, tilted(10), tilted(-20), mode=mode)
    assert valid.all()
    assert known.all()
    torch.testing.assert_close(value.norm(dim=0), torch.ones(SIDE, SIDE))
    assert apart.mean().item() == pytest.approx(15.0, abs=0.1 if mode == "median" else 1e-3)
    if mode == "mean":
        torch.testing.assert_close(value, tilted(-5))


def test_the_same_normals_do_not_disagree_at_all():
    assert mix([NORMALS] * 2, tilted(33), tilted(33))[2].max() < 1e-4


def test_the_median_of_three_ignores_one_outlier():
    value = mix([NORMALS] * 3, tilted(10), tilted(10), tilted(80), mode="median")[0]
    torch.testing.assert_close(value, tilted(10))
    mean = mix([NORMALS] * 3, tilted(10), tilted(10), tilted(80))[0]
    assert (mean - tilted(10)).abs().max() > 0.1


def test_opposite_normals_leave_no_direction():
    value, valid, _, known = mix([NORMALS] * 2, tilted(0), -tilted(0))
    assert not valid.any()
    assert not known.any()
    assert torch.isfinite(value).all()


def test_metres_are_not_aligned():
    value, _, apart, _ = mix([DEPTH] * 2, ramp(), ramp() + 1)
    torch.testing.assert_close(value, ramp() + 0.5)
    spread = 3.0 * 61 / 63  # from the 1st to the 99th percentile of 64 numbers: two of them
    assert apart.mean().item() == pytest.approx(0.5 / spread, rel=1e-2)


@pytest.mark.parametrize(("first", "second"), [(DEPTH, FAR), (FAR, DEPTH), (FAR, FAR)])
def test_affine_depth_is_fitted_in_depth(first, second):
    value, valid, apart, _ = mix([first, second], ramp(), 0.1 * ramp() - 0.05)
    torch.testing.assert_close(value, ramp(), atol=1e-5, rtol=1e-5)
    assert valid.all()
    assert apart.max() < 1e-4


def test_disparity_is_fitted_to_one_over_metres():
    value, valid, apart, _ = mix([DEPTH, NEAR], ramp(), 3 / ramp() + 7)
    torch.testing.assert_close(value, ramp(), atol=1e-4, rtol=1e-4)
    assert valid.all()
    assert apart.max() < 1e-3
    value = mix([NEAR, DEPTH], 3 / ramp() + 7, ramp())[0]
    torch.testing.assert_close(value, 3 / ramp() + 7, atol=1e-4, rtol=1e-4)


def test_what_lands_beyond_twice_the_farthest_is_not_valid():
    near = 1 / ramp()
    near[..., 0, 0] = 0.01  # 100 m where the first labeler has no say; its own farthest is 4 m
    seen = ALL.clone()
    seen[..., 0, 0] = False
    value, valid, _, _ = mix([DEPTH, NEAR], ramp(), near, valid=[seen, ALL])
    assert valid.sum() == SIDE * SIDE - 1
    assert value[valid].max() < 4.1


@pytest.mark.parametrize("bad", [torch.full((1, SIDE, SIDE), 2.0), -ramp()], ids=["flat", "inverted"])
def test_what_cannot_be_fitted_is_left_out(bad):
    value, valid, _, known = mix([DEPTH, FAR], ramp(), bad)
    assert torch.equal(value, ramp())
    assert valid.all()
    assert not known.any()


def test_affine_kinds_that_do_not_meet_are_refused():
    with pytest.raises(ConfigError, match="metric depth first"):
        mixed_intrinsics([(FAR,), (NEAR,)])
    assert mixed_intrinsics([(DEPTH,), (FAR,), (NEAR,)])[0] == DEPTH


def test_albedo_and_shading_have_one_scale_per_map():
    pattern = ramp(0.1, 0.4, 3)
    value, _, apart, _ = mix([ALBEDO] * 2, pattern, 2 * pattern)
    torch.testing.assert_close(value, pattern)
    assert apart.max() < 1e-6
    grey = replace(SHADING, channels=1)
    (intrinsic, disagreement) = mixed_intrinsics([(grey,), (SHADING,)])
    assert intrinsic == SHADING
    assert disagreement == disagreement_of(SHADING)
    value, _, apart, _ = mix([grey, SHADING], ramp(), 5 * ramp(channels=3))
    torch.testing.assert_close(value, ramp(channels=3))
    assert apart.max() < 1e-6


def test_a_users_own_map_is_taken_as_it_is():
    value, _, apart, _ = mix([ROUGHNESS] * 2, torch.full((1, SIDE, SIDE), 0.2), torch.full((1, SIDE, SIDE), 0.6))
    assert value.mean().item() == pytest.approx(0.4)
    assert apart.mean().item() == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="roughness"):
        mixed_intrinsics([(ROUGHNESS,), (replace(ROUGHNESS, high=2.0),)])


@pytest.mark.parametrize("mode", ["mean", "median"])
def test_where_one_is_not_valid_the_other_speaks(mode):
    mine, other = ALL.clone(), ALL.clone()
    mine[:, 0], other[:, 1], mine[:, 2], other[:, 2] = False, False, False, False
    broken = ramp()
    broken[:, 0] = torch.nan
    value, valid, apart, known = mix([DEPTH] * 2, broken, ramp() + 1, valid=[mine, other], mode=mode)
    torch.testing.assert_close(value[:, 0], ramp()[:, 0] + 1)
    torch.testing.assert_close(value[:, 1], ramp()[:, 1])
    torch.testing.assert_close(value[:, 3:], ramp()[:, 3:] + 0.5)
    assert valid[0].any(1).tolist() == [True, True, False] + [True] * 5
    assert known[0].any(1).tolist() == [False] * 3 + [True] * 5
    assert torch.isfinite(apart).all()


def test_what_only_one_gives_passes_through():
    given = [(NORMALS,), (NORMALS, DEPTH)]
    labels = [{"normals": (tilted(0), ALL)}, {"normals": (tilted(0), ALL), "depth": (ramp(), ALL)}]
    mixed = mix_labels(labels, given)
    assert list(mixed) == [i.name for i in mixed_intrinsics(given)] == ["normals", "disagreement-normals", "depth"]
    assert torch.equal(mixed["depth"][0], ramp())
    with pytest.raises(ConfigError, match="mean, median"):
        mix_labels(labels, given, "mode")


def test_weights_halve_at_the_scale():
    apart = torch.tensor([0.0, 1.0, 2.0, 4.0, 2.0]).view(1, 1, 1, 5)
    known = torch.tensor([1, 1, 1, 1, 0]).view(1, 1, 1, 5).bool()
    valid = torch.tensor([1, 1, 1, 0, 1]).view(1, 1, 1, 5).bool()
    weights = pixel_weights(apart, known, valid)  # the lower median of 0, 1, 2, 4 is 1
    assert weights.flatten().tolist() == pytest.approx([1, 1 / 2, 1 / 5, 0, 1 / 2])
    assert pixel_weights(apart, known, valid, scale=2.0).flatten().tolist() == pytest.approx([1, 0.8, 0.5, 0, 0.8])


def test_no_disagreement_is_even_weight():
    nothing, valid = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2, dtype=torch.bool)
    assert torch.equal(pixel_weights(nothing, valid, valid), torch.ones(2, 1, 2, 2))
    assert torch.equal(pixel_weights(nothing, ~valid, valid), torch.ones(2, 1, 2, 2))
