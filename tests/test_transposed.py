"""LoRA on transposed convolutions: the formula, merging, initial values, mixtures of layers, files, refusals."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from torch import nn

from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import load_artefact, save_artefact
from ilora_core.errors import ConfigError
from ilora_core.full import FullAdapter
from ilora_core.testing import Skipped, Subject, adapter_checks, places
from ilora_core.transposed import LAYERS, LoraConvTranspose2d

GEOMETRIES = {
    "from a point": {"kernel_size": 4},
    "doubling": {"kernel_size": 4, "stride": 2, "padding": 1},
    "output padding": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "oblong, no bias": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1), "bias": False},
    "point by point": {"kernel_size": 1},
}
LAYOUTS = pytest.mark.parametrize("layout", GEOMETRIES.values(), ids=GEOMETRIES)


def picture(channels: int = 5, side: int = 6) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(3))


def single(**layout) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.ConvTranspose2d(5, 7, **layout)).eval().requires_grad_(False)


def mixture() -> nn.Module:
    """A little GAN's generator: linear, transposed convolution, convolution."""
    torch.manual_seed(1)
    layers = {
        "linear": nn.Linear(4, 5 * 9),
        "shape": nn.Unflatten(1, (5, 3, 3)),
        "up": nn.ConvTranspose2d(5, 6, 4, 2, 1),
        "act": nn.SiLU(),
        "conv": nn.Conv2d(6, 3, 3, padding=1),
    }
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net.eval().requires_grad_(False)


ALL = ["linear", "up", "conv"]
Z = torch.linspace(-1, 1, 12).view(3, 4)


def train(adapter, seed: int = 0) -> None:
    """Weights as if trained."""
    source = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(v.shape, generator=source) * 0.3 for name, v in adapter.state_dict().items()}
    adapter.load_state_dict(state)


def attached(net: nn.Module, targets=("0",), **settings) -> LoraAdapter:
    adapter = LoraAdapter(**{"rank": 3, **settings})
    adapter.attach(net, targets)
    return adapter


def delta(state, prefix: str, scale: float) -> torch.Tensor:
    """ΔW written out, one rank at a time."""
    a, b = state[f"{prefix}.lora_A.weight"], state[f"{prefix}.lora_B.weight"]
    parts = [a[:, k, None] * b[None, :, k] for k in range(a.shape[1])]
    return scale * torch.stack(parts).sum(0)


# --- the layer ------------------------------------------------------------------------------------------------------


@LAYOUTS
def test_attaching_changes_nothing(layout):
    net, x = single(**layout), picture()
    before = net(x)
    attached(net)
    assert isinstance(net[0], LoraConvTranspose2d)
    assert torch.equal(net(x), before)


@LAYOUTS
@pytest.mark.parametrize("alpha", [3.0, 1.0])
def test_output_is_that_of_the_changed_weight(layout, alpha):
    net, x = single(**layout), picture()
    base = net[0]
    adapter = attached(net, alpha=alpha)
    train(adapter)
    given = {name: value for name, value in layout.items() if name not in ("kernel_size", "bias")}
    changed = base.weight + delta(adapter.state_dict(), "0", alpha / 3)
    torch.testing.assert_close(net(x), F.conv_transpose2d(x, changed, base.bias, **given), rtol=1e-5, atol=1e-5)


@LAYOUTS
def test_merged_and_unmerged_agree(layout):
    net, x = single(**layout), picture().double()
    adapter = attached(net, alpha=2.0)
    train(adapter)
    net.double()
    layer, weight = net[0], net[0].base_layer.weight.clone()
    apart = net(x)
    expected = delta({k: v.double() for k, v in adapter.state_dict().items()}, "0", 2 / 3)
    torch.testing.assert_close(layer.get_delta_weight("default"), expected, rtol=0, atol=1e-12)
    for safe in (False, True):
        layer.merge(safe_merge=safe)
        torch.testing.assert_close(layer.base_layer.weight, weight + expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(net(x), apart, rtol=0, atol=1e-6)
        layer.unmerge()
        torch.testing.assert_close(layer.base_layer.weight, weight, rtol=0, atol=1e-12)
        torch.testing.assert_close(net(x), apart, rtol=0, atol=1e-6)


def test_a_merged_layer_is_unmerged_where_adapters_are_off():
    net, x = single(kernel_size=4), picture()
    before = net(x)
    adapter = attached(net)
    train(adapter)
    net[0].merge()
    assert not torch.allclose(net(x), before, atol=1e-3)
    with adapter.disabled():
        torch.testing.assert_close(net(x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [11, 12])
def test_output_size_reaches_the_adapter(size):
    net, x = single(kernel_size=3, stride=2, padding=1), picture()
    base = net[0]
    adapter = attached(net)
    train(adapter)
    changed = base.weight + delta(adapter.state_dict(), "0", 1.0)
    expected = F.conv_transpose2d(x, changed, base.bias, 2, 1, size - 11)
    torch.testing.assert_close(net[0](x, output_size=[size, size]), expected, rtol=1e-5, atol=1e-5)


def test_gaussian_init_is_the_references():
    net = nn.Sequential(nn.ConvTranspose2d(64, 64, 4)).requires_grad_(False)
    state = attached(net, rank=8).state_dict()
    assert state["0.lora_A.weight"].shape == (64, 8, 4, 4)
    assert state["0.lora_A.weight"].std() == pytest.approx(1 / 8, rel=0.05)
    assert state["0.lora_B.weight"].shape == (64, 8, 1, 1)
    assert not state["0.lora_B.weight"].any()


def test_kaiming_init_is_as_wide_as_on_a_convolution():
    """Uniform within 1/√(in·k·k)."""
    net = nn.Sequential(nn.ConvTranspose2d(64, 16, 4), nn.Conv2d(64, 16, 4)).requires_grad_(False)
    state = attached(net, ["0", "1"], rank=8, init="kaiming").state_dict()
    bound = (64 * 4 * 4) ** -0.5
    for layer in ("0", "1"):
        assert bound * 0.99 < state[f"{layer}.lora_A.weight"].abs().max() <= bound
        assert not state[f"{layer}.lora_B.weight"].any()


def test_dropout_is_on_the_adapters_input_in_training_only():
    net, x = single(kernel_size=4, stride=2, padding=1), picture()
    base = net[0]
    adapter = attached(net, dropout=0.5)
    train(adapter)
    plain = base(x)
    change = net(x) - plain
    torch.manual_seed(0)
    kept = F.dropout(torch.ones_like(x), 0.5)
    net.train()
    torch.manual_seed(0)
    dropped = net(x) - plain
    expected = F.conv_transpose2d(x * kept, delta(adapter.state_dict(), "0", 1.0), stride=2, padding=1)
    torch.testing.assert_close(dropped, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(dropped, change, atol=1e-2)


def test_half_precision_stays():
    net, x = single(kernel_size=4).bfloat16(), picture().bfloat16()
    before = net(x)
    adapter = attached(net)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    assert net(x).dtype == torch.bfloat16
    assert torch.equal(net(x), before)


def test_parameters_are_counted_without_weights():
    net = single(kernel_size=4).to("meta")
    adapter = attached(net)
    assert sum(p.numel() for p in adapter.parameters()) == 5 * 3 * 16 + 3 * 7
    assert all(p.is_meta for p in adapter.parameters())


# --- networks of several kinds of layers ----------------------------------------------------------------------------


def test_gradients_reach_the_adapter_alone():
    net = mixture()
    adapter = attached(net, ALL)
    train(adapter)
    net(Z).square().mean().backward()
    own = {id(p) for p in adapter.parameters()}
    assert len(own) == 6
    for name, p in net.named_parameters():
        assert (p.grad is not None and p.grad.abs().max() > 0) == (id(p) in own), name


def test_named_adapters_on_one_network():
    net = mixture()
    before = net(Z)
    drawn, adapters = {}, {}
    for seed, (name, targets) in enumerate({"one": ALL, "two": ["up"], "three": r"(up|conv)"}.items()):
        adapters[name] = attached(net, targets, name=name, rank=seed + 1)
        assert torch.equal(net(Z), before), name
        train(adapters[name], seed)
        drawn[name] = net(Z)
    assert sorted(adapters["three"].state_dict()) == [
        f"{layer}.lora_{half}.weight" for layer in ("conv", "up") for half in "AB"
    ]
    for name, adapter in adapters.items():
        adapter.activate()
        assert torch.equal(net(Z), drawn[name]), name
        assert {id(p) for p in adapter.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}
        with adapter.disabled():
            assert torch.equal(net(Z), before)
        assert torch.equal(net(Z), drawn[name])
    assert not torch.allclose(drawn["one"], drawn["two"])


def test_files(tmp_path):
    """Through the artefact into a second adapter of ours, and into peft itself."""
    net, ours, theirs = mixture(), mixture(), mixture()
    adapter = attached(net, ALL)
    train(adapter)
    record = {"intrinsic": {"name": "depth"}, "generator": {"name": "toy", "settings": {}}}
    generator = SimpleNamespace(layouts=lambda state, config: {})
    save_artefact(tmp_path, adapter.state_dict(), adapter.config(), record, generator)
    read = load_artefact(tmp_path)
    assert sorted(read.tensors()) == [f"{layer}.lora_{half}.weight" for layer in sorted(ALL) for half in "AB"]
    assert read.config["target_modules"] == sorted(ALL)

    attached(ours, ALL, seed=1).load_state_dict(read.tensors())
    assert torch.equal(ours(Z), net(Z))

    config = LoraConfig.from_pretrained(str(tmp_path))
    config._register_custom_module(LAYERS)
    inject_adapter_in_model(config, theirs)
    result = set_peft_model_state_dict(theirs, read.tensors())
    assert not result.unexpected_keys
    assert torch.equal(theirs(Z), net(Z))
    assert {k: v.tolist() for k, v in get_peft_model_state_dict(theirs).items()} == {
        k: v.tolist() for k, v in read.tensors().items()
    }


@pytest.mark.parametrize("adapter", [partial(LoraAdapter, rank=2), FullAdapter], ids=["lora", "full"])
@pytest.mark.parametrize("check", adapter_checks.__all__)
def test_conforms_on_a_transposed_convolution(monkeypatch, adapter, check):
    monkeypatch.setattr(places, "TARGETS", (["up"],))
    try:
        getattr(adapter_checks, check)(Subject("adapter", "test", __name__, build=adapter))
    except Skipped as reason:
        pytest.skip(str(reason))


# --- refusals -------------------------------------------------------------------------------------------------------


def test_groups_and_dora_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"up is a ConvTranspose2d.*not for transposed convolutions"):
        attached(mixture(), ALL, dora=True)
    net = nn.ModuleDict({"up": nn.ConvTranspose2d(4, 4, 4, groups=2)})
    with pytest.raises(ConfigError, match="up is a ConvTranspose2d with 2 groups"):
        attached(net, ["up"])
    attached(mixture(), ["linear", "conv"], dora=True)


def test_peft_itself_is_as_it_was():
    attached(mixture(), ALL)
    with pytest.raises(ValueError, match="ConvTranspose2d"):
        inject_adapter_in_model(LoraConfig(target_modules=["up"]), mixture())


@pytest.mark.parametrize("field", ["lora_bias", "use_rslora", "use_dora"])
def test_what_does_not_fit_is_refused_with_peft_alone_too(field):
    config = LoraConfig(target_modules=["up"], **{field: True})
    config._register_custom_module(LAYERS)
    with pytest.raises(ConfigError, match=rf"no {field}|ConvTranspose2d: adapter.{field[4:]}"):
        inject_adapter_in_model(config, mixture())
