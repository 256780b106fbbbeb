"""The labelers without trained weights: sizes, settings, views, the blend, and what missing weights say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.intrinsics import srgb_to_linear
from ilora_core.testing.scenes import make_scenes
from ilora_paradigms.labeller import (
    NetShading,
    SplitLabeler,
    blend_labeler,
    paradigms_labeler,
    retinex_labeler,
    sqrt_labeler,
    tiny,
)
from ilora_paradigms.net import ParadigmNet

ALL = (tiny, sqrt_labeler, retinex_labeler, blend_labeler)


def _net(seed: int = 0) -> ParadigmNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ParadigmNet((8, 8, 16))
        torch.nn.init.normal_(net.head.weight, std=0.1)
    return net


def _noise(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.9


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("size", [(32, 32), (19, 45), (3, 70)])
def test_every_size_gets_maps_that_multiply_to_the_picture(make, size: tuple[int, int]) -> None:
    pictures = 0.4 + 0.15 * _noise(*size, count=2)
    found = make().label(pictures)
    albedo, shading = found["albedo"][0], found["shading"][0]
    assert albedo.shape == shading.shape == pictures.shape
    assert albedo.min() >= 0
    assert albedo.max() <= 1
    assert shading.max() <= 1
    whole = (albedo < 1) & (shading < 1) & (albedo > 1e-3)
    ratio = (srgb_to_linear(pictures) / (albedo * shading).clamp(min=1e-9)).log()
    for row, mask in zip(ratio, whole, strict=True):
        assert mask.float().mean() > 0.5
        assert row[mask].std() < 1e-3, "picture and product differ by more than one scale"


def test_a_larger_picture_is_worked_on_smaller_and_keeps_its_detail_in_the_albedo() -> None:
    seen: list[torch.Size] = []
    labeler = SplitLabeler(lambda linear: seen.append(linear.shape) or linear.mean(1, keepdim=True).log(), work_size=16)
    stripes = 0.3 + 0.4 * (torch.arange(96) % 2).float().expand(1, 3, 48, 96)
    found = labeler.label(stripes)
    assert seen == [torch.Size((1, 3, 16, 32))]
    shading, albedo = found["shading"][0], found["albedo"][0]
    assert shading.std() / shading.mean() < 0.1
    assert albedo.std() / albedo.mean() > 0.5


def test_only_pure_white_is_not_valid() -> None:
    pictures = _noise(16, 16)
    pictures[:, :, :2] = 1.0
    pictures[:, 0, 4] = 1.0
    for make in ALL:
        for _, valid in make().label(pictures).values():
            assert not valid[:, :, :2].any()
            assert valid[:, :, 2:].all()


def test_black_pictures_have_finite_maps() -> None:
    for make in ALL:
        for value, _ in make().label(torch.zeros(1, 3, 20, 20)).values():
            assert torch.isfinite(value).all()


def test_blend_draws_the_network_to_the_untrained_answer() -> None:
    linear = srgb_to_linear(_noise(32, 32))
    pictures = _noise(32, 32)
    classic = blend_labeler().label(pictures)["albedo"][0]
    off = [
        float((SplitLabeler(NetShading(_net(), blend=share)).label(pictures)["albedo"][0] - classic).abs().mean())
        for share in (0.0, 0.5, 1.0)
    ]
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-5
    assert NetShading(_net(), blend=0.5)(linear).shape == (1, 1, 32, 32)


def test_eight_views_make_the_answer_turn_with_the_picture() -> None:
    linear = srgb_to_linear(_noise(32, 32))
    one, eight = NetShading(_net()), NetShading(_net(), views=8)
    for move in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        torch.testing.assert_close(eight(move(linear)), move(eight(linear)), atol=1e-4, rtol=0)
    assert (one(linear.flip(-1)) - one(linear).flip(-1)).abs().max() > 1e-3, "this network is symmetric by itself"
    two = NetShading(_net(), views=2)
    torch.testing.assert_close(two(linear.flip(-1)), two(linear).flip(-1), atol=1e-4, rtol=0)


def test_maps_that_are_told_come_back() -> None:
    scenes = make_scenes(40, 56)
    for make in ALL:
        labeler = make()
        labeler.imitate(scenes.maps)
        shading = labeler.label(scenes.pictures)["shading"][0]
        ratio = (shading / scenes.maps["shading"]).flatten(1)
        cut = shading.flatten(1) >= 1
        assert (ratio.masked_fill(cut, 0).amax(1) / ratio.masked_fill(cut, 9).amin(1)).max() < 1.001


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="work_size"):
        sqrt_labeler(work_size=4)
    with pytest.raises(ConfigError, match="blend"):
        NetShading(_net(), blend=1.5)
    with pytest.raises(ConfigError, match="views"):
        NetShading(_net(), views=3)


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pretrain"):
        paradigms_labeler(weights=str(tmp_path))
