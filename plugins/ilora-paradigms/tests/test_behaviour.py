"""The shipped weights: what they are, and what they do with pictures whose paint and light are known."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from ilora_core.intrinsics import linear_to_srgb, srgb_to_linear
from ilora_paradigms.export import LIMIT_BYTES, SETTINGS, SHIPPED
from ilora_paradigms.fields import Dice, value_noise
from ilora_paradigms.labeller import WEIGHTS_FILE, SplitLabeler, paradigms_labeler, sqrt_labeler

SIZE, COUNT = 64, 8


@pytest.fixture(scope="module")
def labeler() -> SplitLabeler:
    return paradigms_labeler()


def _dice(seed: int) -> Dice:
    return Dice(COUNT, torch.Generator().manual_seed(seed))


def _smooth_light() -> torch.Tensor:
    """Slow light, (COUNT,1,64,64), between 0.2 and 1."""
    noise = value_noise(_dice(1), 2, SIZE)
    low, high = noise.amin((2, 3), keepdim=True), noise.amax((2, 3), keepdim=True)
    return 0.2 + 0.8 * (noise - low) / (high - low)


def _mondrian() -> torch.Tensor:
    """Random colours in 8 by 8 fields, (COUNT,3,64,64)."""
    colours = 0.1 + 0.7 * torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return colours.repeat_interleave(8, 2).repeat_interleave(8, 3)


def _contrast(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation over mean of each picture's grey value."""
    grey = x.mean(1).flatten(1)
    return grey.std(1) / grey.mean(1)


def _maps(labeler: SplitLabeler, linear: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = labeler.label(linear_to_srgb(linear))
    return found["albedo"][0], found["shading"][0]


def test_the_shipped_file_is_the_recorded_one() -> None:
    card = json.loads((SHIPPED / "weights.json").read_text())
    path = SHIPPED / WEIGHTS_FILE
    assert {p.name for p in SHIPPED.iterdir()} == {"weights.json", WEIGHTS_FILE}
    assert card["sha256"] == {WEIGHTS_FILE: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card["bytes"] == path.stat().st_size <= LIMIT_BYTES
    assert card["licence"] == "Apache-2.0"
    assert card["settings"] == SETTINGS
    assert "rooms of the split 'labeller'" in card["chosen_on"]


def test_a_grey_card_under_smooth_light_is_mostly_light(labeler: SplitLabeler) -> None:
    linear = 0.6 * _smooth_light().expand(-1, 3, -1, -1)
    albedo, _ = _maps(labeler, linear)
    assert (_contrast(albedo) < 0.5 * _contrast(linear)).all()


def test_a_mondrian_under_flat_light_is_mostly_paint(labeler: SplitLabeler) -> None:
    linear = _mondrian()
    _, shading = _maps(labeler, linear)
    assert (_contrast(shading) < 0.5 * _contrast(linear)).all()


def test_a_shadow_on_one_plane_leaves_less_than_half_of_its_step_in_the_albedo(labeler: SplitLabeler) -> None:
    across = torch.linspace(-1, 1, SIZE).view(1, 1, 1, SIZE)
    shadow = 1 - 0.6 * (across * 12).sigmoid()
    colours = torch.rand(COUNT, 3, 1, 1, generator=torch.Generator().manual_seed(4)) * 0.5 + 0.3
    albedo, _ = _maps(labeler, (colours * shadow).expand(-1, -1, SIZE, -1))
    lit, dark = albedo[..., 8:20].mean((1, 2, 3)), albedo[..., 44:56].mean((1, 2, 3))
    before = float((shadow[..., 8:20].mean() / shadow[..., 44:56].mean()).log())
    assert ((lit / dark).log().abs() < 0.5 * before).all()


def test_mirrored_and_shifted_pictures_get_mirrored_and_shifted_maps(labeler: SplitLabeler) -> None:
    wide = _mondrian().repeat(1, 1, 1, 2)[..., : SIZE + 8]
    light = torch.nn.functional.interpolate(_smooth_light(), (SIZE, SIZE + 8), mode="bilinear")
    wide = wide * light
    here, there = wide[..., :SIZE], wide[..., 8:]
    plain, _ = _maps(labeler, here)
    mirrored = _maps(labeler, here.flip(-1))[0].flip(-1)
    shifted, _ = _maps(labeler, there)
    for other, a in ((mirrored, plain), (shifted[..., :-8], plain[..., 8:])):
        scale = (a * other).sum((1, 2, 3), keepdim=True) / (other**2).sum((1, 2, 3), keepdim=True)
        assert (a - scale * other).square().mean().sqrt() < 0.03


def test_two_lights_on_one_scene_agree_better_than_by_the_square_root(labeler: SplitLabeler) -> None:
    paint, light = _mondrian(), _smooth_light()
    apart = []
    for method in (labeler, sqrt_labeler()):
        first, _ = _maps(method, paint * light)
        second, _ = _maps(method, paint * light.flip(-1))
        scale = (first * second).sum((1, 2, 3), keepdim=True) / (second**2).sum((1, 2, 3), keepdim=True)
        apart.append((first - scale * second).square().mean((1, 2, 3)).sqrt())
    assert (apart[0] < apart[1]).all()


def test_eight_bit_pictures_are_enough(labeler: SplitLabeler) -> None:
    linear = _mondrian() * _smooth_light()
    exact, _ = _maps(labeler, linear)
    rounded, _ = _maps(labeler, srgb_to_linear((linear_to_srgb(linear) * 255).round() / 255))
    assert (exact - rounded).abs().mean() < 0.01
