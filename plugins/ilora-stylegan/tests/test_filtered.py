"""The filtered activation against zero-stuffing, padding, filtering at the full rate and throwing samples away."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from ilora_core.errors import ConfigError
from ilora_stylegan import filtered
from ilora_stylegan.configs import LayerConfig
from ilora_stylegan.filtered import Resampling, filtered_lrelu

# up, down, taps of the filters, padding, radial
CASES = {
    "as trained": (2, 2, 12, 12, (9, 8), False),
    "up four, cropped": (4, 2, 24, 12, (-6, -9), False),
    "critical, cropped": (2, 2, 12, 12, (-5, -6), False),
    "radial": (2, 2, 12, 12, (10, 9), True),
    "radial, rest": (2, 3, 8, 7, (3, 5), True),
    "odd": (3, 3, 7, 5, (4, 1), False),
    "odd, one-sided": (3, 2, 5, 9, (-2, 7), False),
    "no upsampling": (1, 2, 0, 6, (3, 3), False),
    "no downsampling": (2, 1, 6, 0, (1, 2), False),
    "far outside": (2, 2, 4, 4, (90, 3), False),
}
SIZE, KERNEL = 18, 3


def layer(up, down, up_taps, down_taps, padding, radial, *, clamp=0.7):
    wide = (SIZE + KERNEL - 1) * up + sum(padding) - max(up_taps, 1) + 1
    return LayerConfig(
        name="L0",
        in_channels=2,
        out_channels=5,
        in_size=SIZE,
        out_size=(wide - max(down_taps, 1)) // down + 1,
        kernel=KERNEL,
        up=up,
        down=down,
        padding=(*padding, *padding),
        up_taps=up_taps,
        down_taps=down_taps,
        down_radial=radial,
        clamp=clamp,
    )


def convolved(x, taps):
    """Convolution along both axes, valid part; taps may be two-dimensional and need not be symmetric."""
    kernel = (torch.outer(taps, taps) if taps.ndim == 1 else taps).flip(0, 1)
    return F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None])[:, 0].unflatten(0, x.shape[:2])


def naive(x, scale, bias, up_filter, down_filter, config):
    x = x * scale[:, :, None, None] + bias[:, None, None]
    stuffed = x.new_zeros(*x.shape[:2], x.shape[2] * config.up, x.shape[3] * config.up)
    stuffed[:, :, :: config.up, :: config.up] = x
    wide = F.pad(stuffed, config.padding)
    if up_filter is not None:
        wide = convolved(wide, up_filter)
    wide = F.leaky_relu(wide * config.up**2, 0.2) * math.sqrt(2)
    if config.clamp is not None:
        wide = wide.clamp(-config.clamp, config.clamp)
    if down_filter is not None:
        wide = convolved(wide, down_filter)
    return wide[:, :, :: config.down, :: config.down]


def arguments(config, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    side = config.in_size + config.kernel - 1
    x, scale, bias = draw(2, 5, side, side), draw(2, 5), draw(5)
    up = draw(config.up_taps) / 4 if config.up_taps else None
    down = draw(*[config.down_taps] * (2 if config.down_radial else 1)) / 4 if config.down_taps else None
    return x.requires_grad_(), scale.requires_grad_(), bias.requires_grad_(), up, down


@pytest.mark.parametrize("way", ["blocks", "blocks, a plane at a time", "dense"])
@pytest.mark.parametrize("case", CASES)
def test_against_zero_stuffing(case, way, monkeypatch):
    config = layer(*CASES[case])
    if way == "dense":
        monkeypatch.setattr(filtered, "plainly", lambda _: False)
    if way == "blocks, a plane at a time":
        monkeypatch.setattr(filtered, "_CACHED", 1)
    *inputs, up, down = arguments(config)
    found = filtered_lrelu(*inputs, up, down, Resampling.of(config))
    expected = naive(*inputs, up, down, config)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4), dtype=expected.dtype)
    gradients = torch.autograd.grad((found * probe).sum(), inputs)
    for ours, theirs in zip(gradients, torch.autograd.grad((expected * probe).sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    unclamped = naive(*inputs, up, down, layer(*CASES[case], clamp=None))
    assert not torch.allclose(unclamped, expected)


def test_without_a_clamp():
    config = layer(*CASES["as trained"], clamp=None)
    *inputs, up, down = arguments(config)
    found = filtered_lrelu(*inputs, up, down, Resampling.of(config))
    expected = naive(*inputs, up, down, config)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_sliced_and_half_precision_inputs():
    config = layer(*CASES["as trained"])
    x, scale, bias, up, down = arguments(config, torch.float32)
    sliced = F.pad(x.detach(), (0, 3, 0, 2))[:, :, : x.shape[2], : x.shape[3]]
    with torch.no_grad():
        whole = filtered_lrelu(x, scale, bias, up, down, Resampling.of(config))
        torch.testing.assert_close(filtered_lrelu(sliced, scale, bias, up, down, Resampling.of(config)), whole)
        half = filtered_lrelu(x.bfloat16(), scale, bias, up, down, Resampling.of(config))
    assert half.dtype == torch.bfloat16
    assert float((half.float() - whole).norm() / whole.norm()) < 0.02


def test_refusals():
    good = layer(*CASES["odd"])
    for changes in ({"padding": (4, 1, 1, 4)}, {"up_radial": True}):
        with pytest.raises(ConfigError, match="unevenly"):
            Resampling.of(dataclasses.replace(good, **changes))
    with pytest.raises(ConfigError, match="samples per side"):
        Resampling.of(dataclasses.replace(good, out_size=3))
