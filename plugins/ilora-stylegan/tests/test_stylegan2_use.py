"""How StyleGAN2 is used: noise, stages, classes, precisions, devices without data, adapters, training from nothing."""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_stylegan.configs import MappingConfig
from ilora_stylegan.mapping import Mapping
from ilora_stylegan.resample import fir, upsample2
from ilora_stylegan.schedules2 import stylegan2_config
from ilora_stylegan.stylegan2 import StyleGAN2, initialise, learning_rate_groups


def small(*, resolution=16, **settings):
    """Few channels, random weights, noise that counts."""
    settings = {"channel_base": 96, "channel_max": 12, "mapping_layers": 2, "z_dim": 6, "w_dim": 8, **settings}
    net = StyleGAN2(stylegan2_config(resolution=resolution, **settings))
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if key.endswith("noise_strength"):
                parameter.fill_(0.3)
    return net


def styles(net, n=2):
    return torch.randn(n, net.num_ws, net.w_dim, generator=torch.Generator().manual_seed(0))


def error(found, expected):
    """Root mean square, relative."""
    return float((found - expected).detach().norm() / expected.detach().norm())


def test_a_sample_does_not_depend_on_its_batch():
    net = small()
    ws = styles(net, 3)
    together = net(ws, noise="random", noise_seed=[4, 5, 6])
    for i in range(3):
        torch.testing.assert_close(net(ws[i : i + 1], noise="random", noise_seed=[4 + i]), together[i : i + 1])


def test_random_noise_depends_on_its_seed_alone():
    net, state = small(), torch.get_rng_state()
    ws = styles(net)[:1].expand(2, -1, -1)
    image = net(ws, noise="random", noise_seed=torch.tensor([7, 8]))
    assert error(image[0], image[1]) > 1e-2
    assert torch.equal(image, net(ws, noise="random", noise_seed=[7, 8]))
    assert torch.equal(torch.get_rng_state(), state)
    still, none = net(ws), net(ws, noise="none")
    assert min(error(still, none), error(image, none), error(image, still)) > 1e-2
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if key.endswith("noise_strength"):
                parameter.zero_()
    for settings in ({}, {"noise": "random", "noise_seed": [1, 2]}):
        torch.testing.assert_close(net(ws, **settings), net(ws, noise="none"))


def test_every_layer_has_noise_of_its_own():
    net, seen = small(resolution=64), []
    for name in ("conv0", "conv1"):
        net.get_submodule(f"synthesis.b64.{name}").register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    net(styles(net), noise="random", noise_seed=[1, 2])
    rows = torch.stack(seen).flatten(2).flatten(0, 1)
    assert rows.shape == (4, 64 * 64)
    # Correlations of independent rows: five standard errors.
    torch.testing.assert_close(rows @ rows.T / 64**2, torch.eye(4), rtol=0, atol=5 * 2**0.5 / 64)


def test_stopping_early_is_the_smaller_network():
    net, part = small(), small(resolution=8)
    part.load_state_dict({key: value for key, value in net.state_dict().items() if key in part.state_dict()})
    ws = styles(net)
    early = net(ws, up_to=8)
    assert torch.equal(early, part(ws[:, :4]))
    named = dict(net.named_parameters())
    gradients = torch.autograd.grad(early.sum(), list(named.values()), allow_unused=True)
    touched = {key.split(".")[1] for key, value in zip(named, gradients, strict=True) if value is not None}
    assert touched == {"b4", "b8"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "loud"}, "const, random, none"),
        ({"noise": "random"}, "one integer per sample"),
        ({"noise": "random", "noise_seed": [1]}, "one integer per sample"),
        ({"up_to": 12}, "4, 8, 16"),
        ({"up_to": 32}, "4, 8, 16"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    net = small()
    with pytest.raises(ConfigError, match=message):
        net(styles(net), **settings)


def test_networks_and_styles_that_do_not_fit():
    net = small()
    with pytest.raises(ConfigError, match=r"\(N,6,8\)"):
        net(styles(net)[:, 1:])
    orig = small(architecture="orig")
    assert torch.equal(orig(styles(orig), up_to=16), orig(styles(orig)))
    with pytest.raises(ConfigError, match="has an image at 16"):
        orig(styles(orig), up_to=8)
    with pytest.raises(ConfigError, match="skip, orig, resnet"):
        small(architecture="tree")
    for wrong in ({"resolution": 12}, {"resolution": 4}, {"mapping_layers": 0}):
        with pytest.raises(ConfigError):
            stylegan2_config(**wrong)


def test_classes_of_a_conditional_network():
    net = small(c_dim=3)
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    first, second = net.mapping(z, torch.tensor([0, 1])), net.mapping(z, torch.tensor([0, 2]))
    assert torch.equal(first[0], second[0])
    assert error(first[1], second[1]) > 1e-2
    assert net(first).shape == (2, 3, 16, 16)
    for labels in (None, torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ConfigError, match="label"):
            net.mapping(z, labels)
    with pytest.raises(ConfigError, match=r"\(N,6\)"):
        net.mapping(z[:, :5], torch.tensor([0, 1]))


def test_a_table_of_classes_has_a_mean_for_each():
    mapping = Mapping(MappingConfig(4, 3, 8, 6, (8, 8), "table", 4, (10, 5)))
    for parameter in mapping.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    mapping.w_avg.copy_(torch.arange(24.0).view(3, 8))
    z, labels = torch.ones(2, 4), torch.tensor([2, 0])
    torch.testing.assert_close(mapping(z, labels, psi=0.0), mapping.w_avg[labels][:, None].expand(-1, 6, -1))
    unused = Mapping(MappingConfig(4, 0, 8, 6, (8, 8), "table", 0, (10, 5)))
    assert sum(p.numel() for p in unused.parameters()) == 10 * 5 + (4 * 8 + 8) + (8 * 8 + 8)
    assert unused.w_avg.shape == (8,)
    with pytest.raises(ConfigError, match="table"):
        Mapping(MappingConfig(4, 3, 8, 6, (8,), "hash", 4))


@pytest.mark.parametrize("how", ["autocast", "converted"])
def test_bfloat16_is_close(how):
    net = small()
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = net(net.mapping(z))
    if how == "converted":
        net.to(torch.bfloat16)
        found = net(net.mapping(z))
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = net(net.mapping(z))
    assert found.dtype == torch.float32
    assert 1e-4 < error(found, expected) < 3e-2


def test_autocast_leaves_modulation_alone():
    """Styles and the image stay in float32; features between the layers do not."""
    net, seen = small(), {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _, __, out, key=name.split(".")[-1]: seen.update({key: out.dtype}))
    layer, factors = net.get_submodule("synthesis.b8.conv1"), torch.rand(2, 12)
    demodulation = layer._demodulation(factors)
    with torch.autocast("cpu", torch.bfloat16):
        net(net.mapping(torch.ones(2, 6)))
        assert torch.equal(layer._demodulation(factors), demodulation)
    kept = {name for name, dtype in seen.items() if dtype == torch.float32}
    assert kept == {"", "synthesis", "mapping", "fc0", "fc1", "affine", "torgb"}
    assert {seen[name] for name in ("conv0", "conv1", "b8")} == {torch.bfloat16}


def test_autocast_does_not_round_the_image():
    net, first = small(), []
    with torch.no_grad():
        for name in ("b8", "b16"):
            net.get_submodule(f"synthesis.{name}.torgb").weight.zero_()
    net.get_submodule("synthesis.b4.torgb").register_forward_hook(lambda _, __, out: first.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        image = net(styles(net))
    taps = fir((1, 3, 3, 1))
    assert torch.equal(image, upsample2(upsample2(first[0], taps), taps))


def test_without_data():
    with torch.device("meta"):
        net = small(c_dim=3)
    ws = net.mapping(torch.empty(2, 6, device="meta"), torch.empty(2, dtype=torch.long, device="meta"), psi=0.5)
    assert net(ws, noise="random", noise_seed=[1, 2]).shape == (2, 3, 16, 16)
    net = small().requires_grad_(False)
    LoraAdapter(rank=2).attach(net, ("affine",))
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = net(net.mapping(torch.empty(2, 6)))
        trained = [p for p in net.parameters() if p.requires_grad]
        assert len(torch.autograd.grad(image.sum(), trained)) == 2 * 8
    assert image.shape == (2, 3, 16, 16)


def test_one_graph_for_a_compiler():
    net = small()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for settings in ({}, {"noise": "none", "up_to": 8}):
        torch.testing.assert_close(compiled(styles(net), **settings), net(styles(net), **settings))


def test_an_adapter_on_the_affines_learns():
    net = small().requires_grad_(False)
    before = net(styles(net))
    adapter = LoraAdapter(rank=2)
    adapter.attach(net, ("affine",))
    assert torch.equal(net(styles(net)), before)
    trained = list(adapter.parameters())
    gradients = torch.autograd.grad(net(styles(net)).square().sum(), trained)
    # B is zero at the start, so that only its gradient can be anything else.
    moved = [gradient for gradient, parameter in zip(gradients, trained, strict=True) if not parameter.any()]
    assert len(moved) == 8
    assert all(gradient.abs().max() > 0 for gradient in moved)


def test_initial_weights():
    config = stylegan2_config(
        resolution=16, channel_base=512, channel_max=64, z_dim=64, w_dim=96, architecture="resnet"
    )
    state = torch.get_rng_state()
    net, other = StyleGAN2(config), StyleGAN2(config)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in net.named_parameters():
        assert torch.equal(value, other.state_dict()[key])
        if value.ndim < 2:
            assert torch.equal(value, torch.full_like(value, float(key.endswith("affine.bias"))))
        else:
            std = 1.0 if re.search(r"const$|conv\d\.weight$", key) else value[0].numel() ** -0.5
            # Four standard errors of a standard deviation.
            assert abs(float(value.detach().std()) / std - 1) < 4 / (2 * value.numel()) ** 0.5, key
    initialise(other, 1)
    assert not any(torch.equal(v, other.state_dict()[k]) for k, v in net.named_parameters() if v.ndim > 1)


def test_groups_step_as_adam_does_on_official_weights():
    """W = g V: three steps on V, with the learning rate, and three on W, with its groups."""
    net = small(c_dim=3, architecture="resnet")
    gains = {}
    for key, value in net.named_parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 1
        gain = fan_in**-0.5 if re.search(r"(affine|torgb|skip|embed)\.weight$", key) else 1.0
        if key.startswith("mapping.fc"):
            gain = 0.01 * fan_in**-0.5
        gains[key] = gain
    stored = {key: (value.detach() / gains[key]).requires_grad_() for key, value in net.named_parameters()}
    z, labels = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    ours = torch.optim.Adam(learning_rate_groups(net, 2e-3, eps=1e-3), betas=(0.0, 0.99))
    theirs = torch.optim.Adam(stored.values(), lr=2e-3, betas=(0.0, 0.99), eps=1e-3)

    def loss(module):
        return (module(module.mapping(z, labels)) - 1).square().mean()

    for _ in range(3):
        named = dict(net.named_parameters())
        for parameter, gradient in zip(named.values(), torch.autograd.grad(loss(net), named.values()), strict=True):
            parameter.grad = gradient
        ours.step()
        folded = {key: value * gains[key] for key, value in stored.items()}
        value = loss(Called(net, folded))
        for parameter, gradient in zip(stored.values(), torch.autograd.grad(value, stored.values()), strict=True):
            parameter.grad = gradient
        theirs.step()
    for key, value in net.named_parameters():
        torch.testing.assert_close(value, stored[key] * gains[key], rtol=1e-4, atol=1e-5, msg=key)


class Called:
    """A network with other weights."""

    def __init__(self, net, weights):
        self.net, self.weights = net, weights

    def mapping(self, z, labels):
        own = {key.removeprefix("mapping."): v for key, v in self.weights.items() if key.startswith("mapping.")}
        return torch.func.functional_call(self.net.mapping, own, (z, labels))

    def __call__(self, ws):
        return torch.func.functional_call(self.net, self.weights, (ws,))


def test_frozen_weights_are_in_no_group():
    net = small()
    net.mapping.requires_grad_(False)
    grouped = [id(p) for group in learning_rate_groups(net, 1e-3) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.synthesis.parameters())
