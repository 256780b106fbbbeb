"""The network against official images and gradients."""

import dataclasses
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ilora_core.errors import ConfigError
from ilora_stylegan import stylegan3
from ilora_stylegan.design import filters_for, stylegan3_config, superres_config
from ilora_stylegan.folding import fold_stylegan3
from ilora_stylegan.stylegan3 import StyleGAN3, initialise

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
SMALL = stylegan3_config(
    resolution=16, channel_base=256, channel_max=12, num_layers=3, kernel=1, radial=True, z_dim=8, w_dim=16
)
SMALL_T = stylegan3_config(resolution=16, channel_base=256, channel_max=12, num_layers=3, z_dim=8, w_dim=16)


def official(case):
    net = StyleGAN3(CONFIGS[case.case])
    net.load_state_dict(fold_stylegan3(case.state))
    return net.eval().requires_grad_(False)


def fresh(config=SMALL, seed=0):
    net = StyleGAN3(config)
    initialise(net, seed)
    return net.eval().requires_grad_(False)


def styles(net, n=2):
    return net.mapping(torch.randn(n, net.z_dim, generator=torch.Generator().manual_seed(1)))


def close(found, expected, tolerance):
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize("case", CONFIGS)
def test_images(oracle, case):
    case = oracle(case)
    net = official(case)
    for name, psi in (("psi1", 1.0), ("psi07", 0.7)):
        ws = net.mapping(case.arrays["z"], case.labels, psi=psi)
        close(ws[:, 0], case.arrays[f"ws_{name}"], 1e-6)
        close(net(ws), case.arrays[f"img_{name}"], 1e-5)
    ws = net.mapping(case.arrays["z"], case.labels)
    close(net.synthesis.input(ws[:, 0]), case.arrays["input_features"], 1e-5)
    net.synthesis.input.transform.copy_(case.arrays["transform"])
    close(net(ws), case.arrays["img_transform"], 1e-5)


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("case", CONFIGS)
def test_gradients(oracle, case, winograd, monkeypatch):
    """A different style in each slot. Few of these layers are wide enough for Winograd's convolution by themselves."""
    used = []

    def pays(x, weight):
        used.append(winograd)
        return winograd

    monkeypatch.setattr(stylegan3, "_winograd_pays", pays)
    case = oracle(case)
    net = official(case)
    ws = case.input("wmix", (2, net.num_ws, net.w_dim)).requires_grad_()
    image = net(ws)
    close(image, case.arrays["img_wmix"], 1e-5)
    (gradient,) = torch.autograd.grad((image * case.input("probe", image.shape)).sum(), ws)
    close(gradient, case.arrays["grad_wmix"], 5e-4)
    assert used


def test_a_sample_does_not_depend_on_its_batch():
    net = fresh(CONFIGS["xl_super"])
    z = torch.randn(3, net.z_dim, generator=torch.Generator().manual_seed(1))
    ws = net.mapping(z, torch.tensor([0, 3, 1]))
    ws = ws * torch.tensor([1.0, 30.0, 0.1])[:, None, None]
    together = net(ws)
    for i in range(3):
        close(net(ws[i : i + 1]), together[i : i + 1], 5e-6)


@pytest.mark.parametrize("config", [CONFIGS["sg3_t"], SMALL], ids=["t", "r"])
def test_fresh_weights(config):
    net, again, other = fresh(config), fresh(config), fresh(config, seed=1)
    state = net.state_dict()
    for key, value in again.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not torch.equal(other.synthesis.input.weight, state["synthesis.input.weight"])
    for key, taps in filters_for(config).items():
        assert torch.equal(state[key], taps)
    first = net.get_submodule(f"synthesis.{config.layers[0].name}").weight
    torch.testing.assert_close(first.square().mean((1, 2, 3)), torch.ones(len(first)))
    image = net(styles(net))
    assert image.dtype == torch.float32
    assert torch.isfinite(image).all()
    assert 0.02 < float(image.std()) < 1  # an untrained network's contrast is about a tenth to a quarter of the range
    assert not torch.equal(image, other(styles(net)))


def test_fresh_frequencies_fill_a_disc():
    config = dataclasses.replace(SMALL, input=dataclasses.replace(SMALL.input, channels=4096))
    config = dataclasses.replace(
        config, layers=(dataclasses.replace(config.layers[0], in_channels=4096), *config.layers[1:])
    )
    buffers = fresh(config).synthesis.input
    r = buffers.freqs.norm(dim=1) / config.input.bandwidth
    assert float(r.max()) <= 1
    assert math.isclose(float(r.square().mean()), 0.5, abs_tol=0.02)  # uniform in area
    assert math.isclose(float(r.pow(4).mean()), 1 / 3, abs_tol=0.02)
    assert float(buffers.freqs.mean(0).abs().max()) < 0.05
    assert float(buffers.phases.abs().max()) <= 0.5


def test_nothing_is_there_before_it_is_filled():
    net = StyleGAN3(SMALL)
    assert all(torch.isnan(value).all() for value in net.state_dict().values())
    bare = dataclasses.replace(SMALL, layers=tuple(dataclasses.replace(layer, bands=()) for layer in SMALL.layers))
    net = StyleGAN3(bare)
    initialise(net, 0)
    missing = {key for key, value in net.state_dict().items() if torch.isnan(value).any()}
    assert missing == filters_for(SMALL).keys()


def test_noise_is_accepted():
    net = fresh()
    ws = styles(net)
    assert torch.equal(net(ws), net(ws, noise="random", noise_seed=[1, 2]))


@pytest.mark.parametrize("config", [SMALL_T, SMALL], ids=["t", "r"])
def test_half_precision(config):
    net = fresh(config)
    ws = styles(net)
    expected = net(ws)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(ws)
    net.to(torch.bfloat16)
    half = net(ws)
    for found in (mixed, half):
        assert found.dtype == torch.float32
        assert 0 < float((found - expected).norm() / expected.norm()) < 0.03
    kept = {key for key, value in net.synthesis.state_dict().items() if value.dtype == torch.float32}
    assert kept == {key for key, _ in net.synthesis.named_buffers()}
    assert net.double().synthesis.input.freqs.dtype == torch.float64


def test_weights_can_be_trained():
    net = fresh(CONFIGS["sg3_t"])
    net.requires_grad_(True)
    loss = net(styles(net)).square().mean()
    names, parameters = zip(*net.synthesis.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


def test_wide_layers_take_winograds_way_unless_they_are_trained(monkeypatch):
    calls = []
    convolve = stylegan3.convolve3x3
    monkeypatch.setattr(stylegan3, "convolve3x3", lambda *a, **k: calls.append(1) or convolve(*a, **k))
    config = stylegan3_config(resolution=16, channel_base=4096, channel_max=64, num_layers=3, z_dim=8, w_dim=16)
    layer = fresh(config).get_submodule(f"synthesis.{config.layers[0].name}")
    generator = torch.Generator().manual_seed(1)
    x, w = torch.randn(2, 64, 36, 36, generator=generator), torch.randn(2, 16, generator=generator)
    quick = layer(x, w)
    assert len(calls) == 1
    layer.weight.requires_grad_(True)
    direct = layer(x, w)
    assert len(calls) == 1
    close(quick, direct, 1e-5)
    (gradient,) = torch.autograd.grad(direct.square().sum(), layer.weight)
    assert gradient.abs().min() > 0


def test_one_graph():
    """No branch on values: the network compiles whole."""
    net = fresh()
    ws = styles(net)
    expected = net(ws)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ws), expected, rtol=1e-4, atol=1e-5)


def test_weightless():
    with torch.device("meta"):
        net = StyleGAN3(SMALL)
        initialise(net, 0)
        assert net(torch.empty(2, net.num_ws, net.w_dim)).shape == (2, 3, 16, 16)
    with FakeTensorMode():
        for module in net.modules():  # as `ilora plan` does it
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(torch.empty(parameter.shape))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape)
        ws = torch.empty(2, net.num_ws, net.w_dim, requires_grad=True)
        (gradient,) = torch.autograd.grad(net(ws).sum(), ws)
        assert gradient.shape == ws.shape


def test_refusals():
    net = fresh()
    with pytest.raises(ConfigError, match="styles"):
        net(torch.zeros(1, 3, 16))
    mapping = dataclasses.replace(SMALL.mapping, num_ws=3)
    with pytest.raises(ConfigError, match="styles"):
        StyleGAN3(dataclasses.replace(SMALL, mapping=mapping))
