"""LoRA and full fine-tuning on a small network: identity, switching, exact restore, seeds, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ilora_core.adapters import LoraAdapter, bare
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.full import FullAdapter
from ilora_core.testing import parametrize_with_checks


@parametrize_with_checks("ilora")
def test_conforms(case):
    case.run()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)).requires_grad_(False)


X = torch.linspace(-1, 1, 12).view(3, 4)
ALL = ["0", "2"]


def perturb(adapter):
    state = {key: torch.full_like(value, 0.1) for key, value in adapter.state_dict().items()}
    adapter.load_state_dict(state)
    return state


def test_gaussian_init_is_the_references():
    net = nn.Sequential(nn.Linear(400, 400)).requires_grad_(False)
    adapter = LoraAdapter(rank=8)
    adapter.attach(net, ["0"])
    state = adapter.state_dict()
    assert state["0.lora_A.weight"].std() == pytest.approx(1 / 8, rel=0.05)
    assert not state["0.lora_B.weight"].any()


@pytest.mark.parametrize("rank", [2, 8])
def test_the_scale_is_one_whatever_the_rank(net, rank):
    adapter = LoraAdapter(rank=rank)
    adapter.attach(net, ["0"])
    state = perturb(adapter)
    expected = net[0].base_layer(X) + X @ (state["0.lora_B.weight"] @ state["0.lora_A.weight"]).T
    torch.testing.assert_close(net[0](X), expected)


def test_alpha_scales(net):
    adapter = LoraAdapter(rank=2, alpha=1.0)
    adapter.attach(net, ["0"])
    state = perturb(adapter)
    expected = net[0].base_layer(X) + 0.5 * X @ (state["0.lora_B.weight"] @ state["0.lora_A.weight"]).T
    torch.testing.assert_close(net[0](X), expected)


@pytest.mark.parametrize("kind", [LoraAdapter, FullAdapter])
def test_two_adapters_are_switched_without_mixing(net, kind):
    before = net(X)
    one, two = kind(name="one"), kind(name="two")
    one.attach(net, ALL)
    perturb(one)
    drawn = net(X)
    two.attach(net, ALL)
    torch.testing.assert_close(net(X), before)
    assert {id(p) for p in two.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}
    one.activate(trainable=False)
    assert torch.equal(net(X), drawn)
    assert not [p for p in net.parameters() if p.requires_grad]
    with one.disabled():
        assert torch.equal(net(X), before)
    assert torch.equal(net(X), drawn)


def test_switching_walks_over_no_network(net, monkeypatch):
    """Which layers and parameters there are is looked up once per set of adapters, not at every switch."""
    adapters = [LoraAdapter(name=name) for name in ("one", "two")]
    for adapter in adapters:
        adapter.attach(net, ALL)
        perturb(adapter)
    adapters[0].activate(trainable=False)
    walks, touched = [], []
    for name in ("named_modules", "named_parameters", "parameters", "children", "requires_grad_"):
        walk = getattr(nn.Module, name)
        monkeypatch.setattr(
            nn.Module, name, lambda self, *given, walk=walk, **more: walks.append(self) or walk(self, *given, **more)
        )
    set_ = nn.Module.__setattr__
    monkeypatch.setattr(
        nn.Module, "__setattr__", lambda self, key, value: touched.append(key) or set_(self, key, value)
    )
    for adapter in (*adapters, *adapters):
        adapter.activate(trainable=False)
    assert touched == ["_active_adapter"] * 2 * 3, "one word per layer, and none where the adapter is active already"
    with bare(net):
        adapters[1].activate(trainable=False)
    assert touched[6:] == ["_disable_adapters"] * 4
    assert not walks


def test_an_adapter_that_comes_later_is_switched_too(net):
    first = LoraAdapter(name="first")
    first.attach(net, ["0"])
    state = perturb(first)
    first.activate(trainable=False)
    drawn = net(X)
    second = LoraAdapter(name="second")
    second.attach(net, ["2"])  # another layer, whose adapter `first` has never seen
    perturb(second)
    assert {id(p) for p in second.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}
    first.activate(trainable=False)
    assert torch.equal(net(X), drawn)
    assert not [p for p in net.parameters() if p.requires_grad]
    first.activate()
    assert {id(p) for p in first.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}
    net.peft_config.pop("second")  # taken off and put on again under the same name, by peft's own means
    for layer in net:
        if hasattr(layer, "delete_adapter"):
            layer.delete_adapter("second")
    again = LoraAdapter(name="second", seed=1)
    again.attach(net, ALL)
    assert len(list(again.parameters())) == 4
    assert {id(p) for p in again.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}
    first.load_state_dict(state)
    first.activate(trainable=False)
    assert torch.equal(net(X), drawn)


def test_what_others_switched_is_seen(net):
    """What is active is read off the layers: peft's own switches do not fool it."""
    one, two = LoraAdapter(name="one"), LoraAdapter(name="two")
    for adapter in (one, two):
        adapter.attach(net, ALL)
    one.activate(trainable=False)
    for layer in (net[0], net[2]):
        layer.set_adapter("two")  # switches, and sets its parameters free
    one.activate(trainable=False)
    assert {tuple(layer.active_adapters) for layer in (net[0], net[2])} == {("one",)}
    assert not [p for p in net.parameters() if p.requires_grad]


def test_a_name_that_is_also_a_modules_is_told_apart(net):
    one, two = LoraAdapter(name="0"), LoraAdapter(name="2")
    for adapter in (one, two):
        adapter.attach(net, ALL)
    assert len(list(one.parameters())) == len(list(two.parameters())) == 4
    assert not {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}


def test_bare_keeps_what_is_trained(net):
    before = net(X)
    adapter = LoraAdapter()
    adapter.attach(net, ALL)
    perturb(adapter)
    with bare(net):
        assert torch.equal(net(X), before)
    assert all(p.requires_grad for p in adapter.parameters())


def test_seeds(net):
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(states))  # the global state must not matter, and must not be moved
        before = torch.get_rng_state()
        adapter = LoraAdapter(name=name, seed=seed)
        adapter.attach(net, ALL)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(adapter.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("padding", [2, "same"])
def test_dilated_convolutions(padding):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding, dilation=2)).requires_grad_(False)
    base, x = net[0], torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8)
    adapter = LoraAdapter(rank=2)
    adapter.attach(net, ["0"])
    state = perturb(adapter)
    change = torch.einsum("rihw,or->oihw", state["0.lora_A.weight"], state["0.lora_B.weight"][:, :, 0, 0])
    expected = torch.nn.functional.conv2d(x, base.weight + change, base.bias, padding=2, dilation=2)
    torch.testing.assert_close(net(x), expected)


def test_a_layer_that_no_lora_fits_is_named_and_nothing_is_touched(net):
    net.append(nn.Sequential(nn.LayerNorm(4)))
    names = [name for name, _ in net.named_modules()]
    with pytest.raises(ConfigError, match=r"3\.0 is a LayerNorm, and LoRA fits Linear, .*ConvTranspose2d"):
        LoraAdapter().attach(net, ["0", "2"])
    with pytest.raises(ConfigError, match="3 is a Sequential"):
        LoraAdapter().attach(net, r"[023]")
    assert [name for name, _ in net.named_modules()] == names
    LoraAdapter().attach(net, r"[02]")
    with pytest.raises(ConfigError, match=r"3\.0 is a LayerNorm"):
        LoraAdapter(name="second").attach(net, ["0", "2"])
    LoraAdapter(name="second").attach(net, r"[02]")


def test_refusals(net):
    with pytest.raises(ConfigError, match="cannot attach"):
        LoraAdapter().attach(net, ["nowhere"])
    with pytest.raises(ConfigError, match=r"adapter\.rank"):
        LoraAdapter(rank=0)
    with pytest.raises(ConfigError, match="gaussian, kaiming"):
        LoraAdapter(init="pissa")
    with pytest.raises(ConfigError, match="not attached"):
        next(LoraAdapter().parameters())
    adapter = LoraAdapter()
    adapter.attach(net, ALL)
    with pytest.raises(ConfigError, match="already"):
        LoraAdapter().attach(net, ALL)
    state = adapter.state_dict()
    with pytest.raises(ArtefactError, match="4 of 4 tensors are missing and 1 are unknown"):
        adapter.load_state_dict({"other": torch.zeros(1)})
    with pytest.raises(ArtefactError, match=r"is \(3, 3\), but the network needs"):
        adapter.load_state_dict({**state, "0.lora_A.weight": torch.zeros(3, 3)})
    with pytest.raises(ConfigError, match="float32"):
        FullAdapter().attach(nn.Linear(2, 2).bfloat16(), [])
