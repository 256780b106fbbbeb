"""Paradigms: ranges, determinism, and that picture, albedo, shading and gloss belong together."""

from __future__ import annotations

import pytest
import torch

from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms.fields import Dice, gather, value_noise
from ilora_paradigms.layout import FACETS, PALETTE, draw_layout, draw_palette
from ilora_paradigms.lighting import draw_sun, lambert
from ilora_paradigms.paradigm import Paradigms, draw_paradigms, take_picture


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def drawn() -> Paradigms:
    return draw_paradigms(24, 32, _rng())


def test_shapes_and_ranges(drawn: Paradigms) -> None:
    assert drawn.picture.shape == drawn.albedo.shape == drawn.exact.shape == (24, 3, 32, 32)
    assert drawn.shading.shape == drawn.gloss.shape == (24, 1, 32, 32)
    assert drawn.picture.min() >= 0
    assert drawn.picture.max() <= 1
    assert drawn.albedo.min() > 0.01
    assert drawn.albedo.max() < 1.5  # 0.92 under the reddest or bluest light
    assert drawn.shading.min() > 0
    assert drawn.gloss.min() >= 0
    assert (drawn.gloss.amax((1, 2, 3)) > 0).any(), "no highlight among these: choose another seed"
    white = drawn.shading.flatten(1).quantile(0.99, dim=1)
    torch.testing.assert_close(white, torch.ones(24), rtol=0.02, atol=0)


def test_the_same_seed_gives_the_same_paradigms_and_another_does_not(drawn: Paradigms) -> None:
    again, other = draw_paradigms(24, 32, _rng()), draw_paradigms(24, 32, _rng(1))
    for name in ("picture", "albedo", "shading", "gloss", "exact"):
        assert torch.equal(getattr(drawn, name), getattr(again, name)), name
    assert (drawn.picture - other.picture).abs().mean() > 0.1


def test_light_is_albedo_times_shading_but_for_gloss_and_a_slow_drift(drawn: Paradigms) -> None:
    ratio = (drawn.exact / (drawn.albedo * drawn.shading)).log()
    dull = (drawn.gloss == 0).expand_as(ratio)
    assert ratio[dull].abs().max() < 0.4
    steps = ratio.diff(dim=3).abs()[dull[..., 1:] & dull[..., :-1]]
    assert steps.max() < 0.05, "an edge that neither map has"
    assert (drawn.exact >= drawn.albedo * drawn.shading * 0.65).all()


def test_the_camera_keeps_an_unclipped_picture_up_to_one_exposure() -> None:
    dice = Dice(64, _rng(3))
    flat = torch.full((64, 3, 16, 16), 0.3) * torch.linspace(0.5, 1, 16)
    seen = srgb_to_linear(take_picture(dice, flat)).mean((1, 2))
    exposure = seen / flat.mean((1, 2))
    inner = exposure[:, 2:9]
    spread = inner.amax(1) / inner.amin(1)
    assert spread.max() < 1.06
    brightest = 0.3 * inner.mean(1)
    assert brightest.min() > 0.7
    assert brightest.max() < 1.4


def test_thin_and_tiny_things_leave_no_holes() -> None:
    for seed in range(6):
        tiny = draw_paradigms(16, 16, _rng(seed))
        for name in ("picture", "albedo", "shading", "gloss", "exact"):
            assert torch.isfinite(getattr(tiny, name)).all(), (seed, name)


def test_shading_has_steps_and_albedo_has_few_colours(drawn: Paradigms) -> None:
    """What the network is meant to learn from: sharp edges in both maps, and the same colours again and again."""
    sharp = (drawn.shading.log().diff(dim=3).abs() > 0.2).float().mean((1, 2, 3))
    assert (sharp > 0.005).float().mean() > 0.6
    rounded = (drawn.albedo * 500).round().movedim(1, -1).reshape(24, -1, 3)
    share = [row.unique(dim=0, return_counts=True)[1].topk(PALETTE).values.sum() / len(row) for row in rounded]
    assert torch.stack(share).median() > 0.5


def test_facets_are_cells_between_lines() -> None:
    layout = draw_layout(Dice(8, _rng()), 32)
    assert layout.facet.min() >= 0
    assert layout.facet.max() < FACETS
    cells = [len(row.unique()) for row in layout.facet]
    assert max(cells) > 5
    change = (layout.facet.diff(dim=3) != 0).expand(-1, 5, -1, -1)
    near = layout.distance.amin(1, keepdim=True)[..., :-1]
    assert near[change[:, :1]].max() < 0.2, "a border far from every line"


def test_a_palette_holds_reflectances() -> None:
    colours = draw_palette(Dice(50, _rng())).exp()
    assert colours.shape == (50, PALETTE, 3)
    assert colours.min() >= 0.0199
    assert colours.max() <= 0.9201


def test_a_surface_that_faces_the_light_is_brighter_than_one_that_does_not() -> None:
    sun = draw_sun(Dice(5, _rng()))
    towards = sun.direction[:, :, None, None]
    assert torch.allclose(lambert(towards, sun), torch.zeros(5, 1, 1, 1), atol=1e-5)
    torch.testing.assert_close(lambert(-towards, sun), sun.ambient.log())
    assert (sun.direction[:, 2] < 0).all(), "the light is before the picture"


def test_gather_and_noise() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    index = torch.tensor([[[[2, 0]]], [[[1, 1]]]])
    assert gather(values, index).tolist() == [[[[4, 0]], [[5, 1]]], [[[8, 8]], [[9, 9]]]]
    noise = value_noise(Dice(40, _rng()), 4, 32)
    assert noise.shape == (40, 1, 32, 32)
    assert 0.5 < noise.std() < 1.1
    assert noise.diff(dim=3).abs().mean() < 0.2
