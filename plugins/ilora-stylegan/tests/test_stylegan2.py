"""StyleGAN2 against official numbers, and against a slow formulation of the same equations written here."""

import math

import pytest
import torch
import torch.nn.functional as F

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_stylegan.configs import MappingConfig
from ilora_stylegan.folding import fold_stylegan2, fold_stylegan3
from ilora_stylegan.mapping import Mapping
from ilora_stylegan.resample import blur_after_transposed_conv, fir, upsample2
from ilora_stylegan.schedules2 import stylegan2_config
from ilora_stylegan.stylegan2 import StyleGAN2

OFFICIAL = {
    "sg2_a": {"resolution": 32, "channel_base": 1024, "channel_max": 64},
    "sg2_b": {
        "resolution": 64,
        "channel_base": 1024,
        "channel_max": 48,
        "mapping_layers": 2,
        "c_dim": 10,
        "clamp": 256.0,
    },
}
MAPPINGS = {
    "sg2_a": MappingConfig(64, 0, 64, 8, (64,) * 8),
    "sg2_b": MappingConfig(64, 10, 64, 10, (64,) * 2, "linear", 64),
    "sg3_t": MappingConfig(64, 0, 64, 8, (64,) * 2),
    "xl_stem": MappingConfig(16, 4, 64, 8, (64,) * 2, "table", 16, (4, 24)),
}


def small(**settings):
    """A network of 16² whose every weight is random, noise strengths and biases too."""
    config = stylegan2_config(
        resolution=16, channel_base=96, channel_max=12, mapping_layers=2, z_dim=6, w_dim=8, **settings
    )
    net, generator = StyleGAN2(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith(("bias", "noise_strength")):
                value += 0.3 * torch.randn(value.shape, generator=generator)
    return net


def relative(found, expected):
    """Largest error in units of the largest value."""
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def official(oracle, case):
    """(the oracle, our network with its weights)."""
    known = oracle(case)
    net = StyleGAN2(stylegan2_config(z_dim=64, w_dim=64, **OFFICIAL[case])).requires_grad_(False)
    net.load_state_dict(fold_stylegan2(known.state))
    return known, net


# --- the same equations, slowly ------------------------------------------------------------------------------------


def stuffed(x):
    """Zeros after every sample."""
    made = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    made[:, :, ::2, ::2] = x
    return made


def filtered(x, kernel):
    """True convolution of padded maps with the outer product, DC 1, gain 4."""
    row = torch.tensor(kernel, dtype=x.dtype) / sum(kernel)
    weight = 4 * torch.outer(row, row).flip(0, 1).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, weight, groups=x.shape[1])


def slow_up(image, kernel):
    return filtered(F.pad(stuffed(image), (2, 1, 2, 1)), kernel)


def slow_layer(state, name, x, w, config, *, up, noise, gain=1.0):
    """Sample by sample, each with its own modulated and demodulated kernel."""
    made = []
    for sample, style in zip(x, w @ state[f"{name}.affine.weight"].T + state[f"{name}.affine.bias"], strict=True):
        kernel = state[f"{name}.weight"] * style[None, :, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            wide = F.pad(stuffed(sample[None]), (2, 1, 2, 1))
            wide = F.conv2d(wide, kernel.flip(2, 3))
            made.append(filtered(F.pad(wide, (1, 1, 1, 1)), config.resample_kernel))
        else:
            made.append(F.conv2d(sample[None], kernel, padding=1))
    y = torch.cat(made)
    if noise:
        y = y + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
    y = y + state[f"{name}.bias"].view(1, -1, 1, 1)
    y = torch.where(y > 0, y, 0.2 * y) * (math.sqrt(2) * gain)
    return y if config.clamp is None else y.clamp(-config.clamp * gain, config.clamp * gain)


def slow_rgb(state, name, x, w, config):
    style = w @ state[f"{name}.affine.weight"].T + state[f"{name}.affine.bias"]
    y = torch.einsum("oi,ni,nihw->nohw", state[f"{name}.weight"][:, :, 0, 0], style, x)
    y = y + state[f"{name}.bias"].view(1, -1, 1, 1)
    return y if config.clamp is None else y.clamp(-config.clamp, config.clamp)


def slow(config, state, ws, *, noise=True):
    """A whole synthesis from a state dictionary."""
    x = state["synthesis.b4.const"].expand(len(ws), -1, -1, -1)
    x = slow_layer(state, "synthesis.b4.conv1", x, ws[:, 0], config, up=False, noise=noise)
    slot, image, resolution = 1, None, 4
    while True:
        if f"synthesis.b{resolution}.torgb.weight" in state:
            fresh = slow_rgb(state, f"synthesis.b{resolution}.torgb", x, ws[:, slot], config)
            image = fresh if image is None else slow_up(image, config.resample_kernel) + fresh
        if resolution == config.resolution:
            return image
        resolution *= 2
        block, before = f"synthesis.b{resolution}", x
        gain = math.sqrt(0.5) if config.architecture == "resnet" else 1.0
        x = slow_layer(state, f"{block}.conv0", x, ws[:, slot], config, up=True, noise=noise)
        x = slow_layer(state, f"{block}.conv1", x, ws[:, slot + 1], config, up=False, noise=noise, gain=gain)
        if config.architecture == "resnet":
            shortcut = torch.einsum("oi,nihw->nohw", state[f"{block}.skip.weight"][:, :, 0, 0], before)
            x = x + slow_up(shortcut, config.resample_kernel) * gain
        slot += 2


# --- official numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MAPPINGS)
def test_mapping_and_truncation_as_official(oracle, case):
    known = oracle(case)
    fold = fold_stylegan2 if case.startswith("sg2") else fold_stylegan3
    mapping = Mapping(MAPPINGS[case])
    state = {key.removeprefix("mapping."): v for key, v in fold(known.state).items() if key.startswith("mapping.")}
    mapping.load_state_dict(state)
    z, arrays = known.arrays["z"], known.arrays
    assert relative(mapping(z, known.labels)[:, 0], arrays["ws_psi1"]) < 1e-6
    assert relative(mapping(z, known.labels, psi=0.7)[:, 0], arrays["ws_psi07"]) < 1e-6
    cut = mapping(z, known.labels, psi=0.5, cutoff=3)
    assert relative(cut[:, [0, 2, 3, -1]], arrays["ws_psi05_cut3"]) < 1e-6


@pytest.mark.parametrize("case", OFFICIAL)
def test_images_as_official(oracle, case):
    known, net = official(oracle, case)
    assert sum(p.numel() for p in net.parameters()) == known.facts["params"]
    ws = net.mapping(known.arrays["z"], known.labels)
    truncated = net.mapping(known.arrays["z"], known.labels, psi=0.7)
    assert relative(net(ws), known.arrays["img_psi1"]) < 1e-5
    assert relative(net(truncated), known.arrays["img_psi07"]) < 1e-5
    assert relative(net(ws, noise="none"), known.arrays["img_none"]) < 1e-5


@pytest.mark.parametrize("case", OFFICIAL)
def test_every_slot_and_its_gradient_as_official(oracle, case):
    """A style per slot: with one style for all, an error by one slot would not show."""
    known, net = official(oracle, case)
    ws = known.input("wmix", (2, net.num_ws, 64)).requires_grad_()
    image = net(ws)
    assert relative(image, known.arrays["img_wmix"]) < 1e-5
    (gradient,) = torch.autograd.grad((image * known.input("probe", image.shape)).sum(), ws)
    assert relative(gradient, known.arrays["grad_wmix"]) < 5e-4


@pytest.mark.parametrize(
    ("settings", "parameters", "sites", "trained"),
    [
        ({"channel_base": 16384}, 24_767_458, 20, 141_312),
        ({"channel_base": 32768}, 30_034_338, 20, 151_552),
        ({"channel_base": 16384, "mapping_layers": 2}, 23_191_522, 20, 141_312),
        ({"resolution": 1024}, 30_370_060, 26, 179_200),
    ],
)
def test_parameters_of_the_networks_of_the_literature(settings, parameters, sites, trained):
    with torch.device("meta"):
        net = StyleGAN2(stylegan2_config(**settings))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net(torch.empty(2, net.num_ws, 512, device="meta")).shape == (2, 3, net.resolution, net.resolution)
    adapter = LoraAdapter(rank=8)
    adapter.attach(net, ("affine",))
    assert sum(hasattr(module, "lora_A") for module in net.modules()) == sites
    assert sum(p.numel() for p in adapter.parameters()) == trained


# --- against the slow formulation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clamp": 0.5},
        {"architecture": "orig"},
        {"architecture": "resnet"},
        {"architecture": "resnet", "clamp": 0.5},
    ],
    ids=str,
)
def test_images_and_all_gradients_as_the_slow_formulation(settings):
    net = small(**settings)
    state = {key: value.detach().double().requires_grad_() for key, value in net.state_dict().items()}
    ws = torch.randn(2, net.num_ws, net.w_dim, generator=torch.Generator().manual_seed(0), requires_grad=True)
    far = ws.detach().double().requires_grad_()
    image, expected = net(ws), slow(net.config, state, far)
    assert image.shape == (2, 3, 16, 16)
    assert relative(image, expected) < 1e-5
    probe = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    named = {key: value for key, value in net.named_parameters() if key.startswith("synthesis")}
    found = torch.autograd.grad((image * probe).sum(), [ws, *named.values()])
    wanted = torch.autograd.grad((expected * probe).sum(), [far, *(state[key] for key in named)])
    for key, one, other in zip(["ws", *named], found, wanted, strict=True):
        assert relative(one, other) < 5e-4, key


def test_tiny_weights_meet_the_same_epsilon():
    net = small()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if ".conv" in key and value.ndim == 4:
                value.mul_(1e-5)
    ws = torch.randn(2, net.num_ws, net.w_dim, generator=torch.Generator().manual_seed(0))
    assert relative(net(ws), slow(net.config, net.state_dict(), ws)) < 1e-5


@pytest.mark.parametrize("kernel", [(1, 3, 3, 1), (1, 2, 4, 3)])
def test_resampling_is_zero_stuffing_and_filtering(kernel):
    x = torch.randn(2, 3, 5, 7, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    taps = fir(kernel)
    torch.testing.assert_close(upsample2(x, taps), slow_up(x, kernel))
    expected = filtered(F.pad(x, (1, 1, 1, 1)), kernel)
    torch.testing.assert_close(blur_after_transposed_conv(x, taps), expected)


@pytest.mark.parametrize("kernel", [(1, 2, 1), (1, -1, 1, -1)])
def test_a_kernel_that_is_none(kernel):
    with pytest.raises(ConfigError, match="four taps"):
        fir(kernel)
