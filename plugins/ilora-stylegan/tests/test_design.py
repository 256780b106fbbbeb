"""The schedules and filters against what the official constructors recorded."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_stylegan.configs import from_json, to_json
from ilora_stylegan.design import filters_for, stylegan3_config, superres_config, xl_ffhq, xl_imagenet
from ilora_stylegan.fir import lowpass
from ilora_stylegan.stylegan3 import StyleGAN3

STEM = stylegan3_config(
    resolution=16,
    channel_base=512,
    channel_max=40,
    num_layers=7,
    z_dim=16,
    w_dim=64,
    c_dim=4,
    embed="table",
    table=(4, 24),
)
CONFIGS = {
    "sg3_t": stylegan3_config(resolution=64, channel_base=1024, channel_max=40, num_layers=8, z_dim=64, w_dim=64),
    "xl_stem": STEM,
    "xl_super": superres_config(STEM, resolution=32, head_layers=5, channel_base=512, channel_max=40),
}
FULL_SIZE = {
    "xl_ffhq": (xl_ffhq, 67_928_945, 194_744, 18),
    "xl_imagenet": (xl_imagenet, 166_267_046, 342_528, 32),
    "t_1024": (lambda: stylegan3_config(resolution=1024), 22_313_167, 105_136, 16),
    "r_1024": (
        lambda: stylegan3_config(resolution=1024, channel_base=65536, channel_max=1024, kernel=1, radial=True),
        15_093_151,
        144_688,
        16,
    ),
}
FFHQ = (
    "L0_36_1024 L1_36_1024 L2_36_1024 L3_36_1024 L4_52_1024 L5_52_1024 L6_52_1024 L7_52_1024 L9_52_1024 L10_84_1024 "
    "L11_84_1024 L12_148_919 L13_148_919 L14_276_485 L15_276_256 L16_256_256 L17_256_3"
)
IMAGENET = (
    "L0_36_1024 L1_36_1024 L2_36_1024 L3_36_1024 L4_36_1024 L5_36_1024 L6_36_1024 L7_36_1024 L9_36_1024 L10_52_1024 "
    "L11_52_1024 L12_52_1024 L13_52_1024 L14_52_1024 L15_84_1024 L16_84_1024 L17_84_1024 L18_84_1024 L19_84_1024 "
    "L20_148_1024 L21_148_861 L22_148_724 L23_148_609 L24_148_609 L25_276_512 L26_276_431 L27_276_362 L28_276_304 "
    "L29_276_256 L30_256_256 L31_256_3"
)


def recorded(attributes):
    """A layer's attributes in our words."""
    a = attributes
    return {
        "in_channels": a["in_channels"],
        "out_channels": a["out_channels"],
        "in_size": a["in_size"][0],
        "out_size": a["out_size"][0],
        "kernel": a["conv_kernel"],
        "up": a["up_factor"],
        "down": a["down_factor"],
        "padding": tuple(a["padding"]),
        "up_taps": a["up_taps"] if a["up_taps"] > 1 else 0,
        "down_taps": a["down_taps"] if a["down_taps"] > 1 else 0,
        "up_radial": False,
        "down_radial": a["down_radial"],
        "is_torgb": a["is_torgb"],
        "clamp": a["conv_clamp"],
        "bands": (
            a["in_cutoff"],
            a["in_half_width"],
            a["out_cutoff"],
            a["out_half_width"],
            a["tmp_sampling_rate"],
        ),
    }


@pytest.mark.parametrize("case", CONFIGS)
def test_schedule(oracle, case):
    facts, config = oracle(case).facts, CONFIGS[case]
    attributes = dict(facts["layer_attrs"])
    first = attributes.pop("synthesis.input")
    assert dataclasses.asdict(config.input) == {**first, "size": first["size"][0]}
    layers = {f"synthesis.{layer.name}": dataclasses.asdict(layer) for layer in config.layers}
    assert list(layers) == list(attributes)
    for name, layer in layers.items():
        layer.pop("name")
        assert layer == recorded(attributes[name]), name
    assert (config.resolution, config.mapping.num_ws) == (facts["img_resolution"], facts["num_ws"])


@pytest.mark.parametrize("case", CONFIGS)
def test_filters(oracle, case):
    arrays = oracle(case).arrays
    stored = {name.removeprefix("filter:"): value for name, value in arrays.items() if name.startswith("filter:")}
    designed = filters_for(CONFIGS[case])
    assert designed.keys() == stored.keys()
    for key, taps in designed.items():
        torch.testing.assert_close(taps, stored[key], rtol=0, atol=1e-7)


@pytest.mark.parametrize(("half_width", "attenuation"), [(0.2, "low"), (1.5, "middle"), (6.0, "high")])
def test_kaiser(half_width, attenuation):
    taps, rate, cutoff = 13, 32.0, 3.0
    a = 2.285 * (taps - 1) * math.pi * 2 * half_width / (rate / 2) + 7.95
    beta = {"low": 0.0, "middle": 0.5842 * abs(a - 21) ** 0.4 + 0.07886 * (a - 21), "high": 0.1102 * (a - 8.7)}
    assert attenuation == ("low" if a < 21 else "middle" if a <= 50 else "high")
    h = np.sinc(2 * cutoff / rate * (np.arange(taps) - 6)) * np.kaiser(taps, beta[attenuation])
    found = lowpass(taps, cutoff=cutoff, half_width=half_width, rate=rate)
    np.testing.assert_allclose(found.numpy(), h / h.sum(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("taps", [12, 11])
def test_radial(taps):
    cutoff, rate = 3.0, 32.0
    m = (np.arange(taps) - (taps - 1) / 2) / rate
    angles = (np.arange(2000) + 0.5) * np.pi / 2000
    r = np.hypot(m[:, None], m[None, :])
    bessel = np.cos(angles - 2 * np.pi * cutoff * r[..., None] * np.sin(angles)).mean(-1)  # Bessel's integral for J1
    ideal = np.where(r > 0, bessel / (np.pi * np.maximum(r, 1e-9)), cutoff)
    a = 2.285 * (taps - 1) * math.pi * 12.0 / (rate / 2) + 7.95
    window = np.kaiser(taps, 0.1102 * (a - 8.7))
    expected = ideal * np.outer(window, window)
    found = lowpass(taps, cutoff=cutoff, half_width=6.0, rate=rate, radial=True)
    np.testing.assert_allclose(found.numpy(), expected / expected.sum(), rtol=0, atol=1e-7)


def test_names_of_the_released_networks():
    assert " ".join(layer.name for layer in xl_ffhq().layers) == FFHQ
    assert " ".join(layer.name for layer in xl_imagenet().layers) == IMAGENET
    kernels = {layer.name: (layer.kernel, layer.down_radial) for layer in xl_ffhq().layers}
    assert kernels["L7_52_1024"] == (1, True)
    assert kernels["L9_52_1024"] == (3, False)
    assert kernels["L17_256_3"] == (1, False)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_counts(name):
    make, parameters, trained, num_ws = FULL_SIZE[name]
    with torch.device("meta"):
        net = StyleGAN3(make())
        assert sum(p.numel() for p in net.parameters()) == parameters
        adapter = LoraAdapter(rank=8)
        adapter.attach(net, ("affine",))
    assert sum(p.numel() for p in adapter.parameters()) == trained
    assert net.num_ws == num_ws


def test_resolutions():
    assert [xl_ffhq(r).mapping.num_ws for r in (32, 64, 512)] == [12, 14, 20]
    assert [layer.out_size for layer in xl_imagenet(512).layers[-3:]] == [532, 512, 512]


def test_a_head_without_widths_is_as_wide_as_the_stem():
    head = superres_config(STEM, resolution=32, head_layers=4)
    assert {layer.out_channels for layer in head.layers[:-1]} == {40}


def test_classes():
    linear = stylegan3_config(resolution=16, c_dim=5, num_layers=4).mapping
    assert (linear.embed, linear.embed_dim, linear.table) == ("linear", 512, (0, 0))
    unused = xl_ffhq().mapping
    assert (unused.embed, unused.embed_dim, unused.table) == ("table", 0, (1000, 320))
    assert stylegan3_config(resolution=16, num_layers=4).mapping.embed == "none"


def test_plain_data():
    assert from_json(to_json(CONFIGS["xl_super"])) == CONFIGS["xl_super"]


def test_refusals():
    for resolution in (8, 48):
        with pytest.raises(ConfigError, match="power of two"):
            stylegan3_config(resolution=resolution)
        with pytest.raises(ConfigError, match="power of two"):
            xl_ffhq(resolution)
    with pytest.raises(ConfigError, match="layers"):
        stylegan3_config(resolution=16, num_layers=2)
    bare = dataclasses.replace(STEM, layers=tuple(dataclasses.replace(layer, bands=()) for layer in STEM.layers))
    with pytest.raises(ConfigError, match="checkpoint"):
        filters_for(bare)
    with pytest.raises(ConfigError, match="stem"):
        superres_config(bare, resolution=32, head_layers=4)
    with pytest.raises(ConfigError, match="two layers"):
        superres_config(STEM, resolution=32, head_layers=2)
