"""peft's other methods: what they compute, and what they refuse before anything is touched."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_core.peft_methods import ia3, loha, lokr, oft
from ilora_core.plugins import load_plugins

X = torch.linspace(-1, 1, 12).view(2, 6)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6)).requires_grad_(False)


def attached(adapter, net):
    adapter.attach(net, ["0"])
    source = torch.Generator().manual_seed(0)
    state = {key: torch.randn(value.shape, generator=source) for key, value in adapter.state_dict().items()}
    adapter.load_state_dict(state)
    return {key.removeprefix("0."): value for key, value in state.items()}


def test_loha_is_a_hadamard_product(net):
    s = attached(loha(rank=2, alpha=1.0), net)
    change = 0.5 * (s["hada_w1_a"] @ s["hada_w1_b"]) * (s["hada_w2_a"] @ s["hada_w2_b"])
    torch.testing.assert_close(net(X), net[0].base_layer(X) + X @ change.T)


def test_lokr_is_a_kronecker_product(net):
    s = attached(lokr(rank=4), net)
    torch.testing.assert_close(net(X), net[0].base_layer(X) + X @ torch.kron(s["lokr_w1"], s["lokr_w2"]).T)


def test_ia3_is_a_factor_per_output(net):
    s = attached(ia3(), net)
    torch.testing.assert_close(net(X), net[0].base_layer(X) * s["ia3_l"][:, 0])


def test_oft_turns_inputs(net):
    adapter = oft(block=3)
    adapter.attach(net, ["0"])
    adapter.load_state_dict({key: torch.full_like(v, 0.05) for key, v in adapter.state_dict().items()})
    base = net[0].base_layer
    turned = (net(X) - base.bias) @ torch.linalg.inv(base.weight).T
    assert not torch.allclose(turned, X)
    torch.testing.assert_close(turned.norm(dim=1), X.norm(dim=1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [loha, lokr, ia3, lambda: oft(block=3)], ids=["loha", "lokr", "ia3", "oft"])
def test_training_mode_draws_no_numbers_and_the_configuration_is_plain(net, make):
    adapter = make()
    adapter.attach(net, ["0"])
    before = torch.get_rng_state()
    net(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert json.loads(json.dumps(adapter.config()))["target_modules"] == ["0"]


def test_refusals(net):
    with pytest.raises(ConfigError, match="0 has 6 inputs, which blocks of 4 do not divide"):
        oft(block=4).attach(net, ["0"])
    with pytest.raises(ConfigError, match="0 is a Conv2d, and OFT fits Linear"):
        oft(block=3).attach(nn.Sequential(nn.Conv2d(3, 3, 1)), ["0"])
    with pytest.raises(ConfigError, match="2 groups, and LoHa is for layers of one group"):
        loha().attach(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), ["0"])
    with pytest.raises(ConfigError, match=r"adapter\.rank"):
        lokr(rank=0)
    with pytest.raises(ConfigError, match=r"adapter\.block"):
        oft(block=1)
    with pytest.raises(ConfigError, match=r"'ia3' .*has no setting 'rank'"):
        load_plugins().make("adapters", "ia3", rank=8)
    assert isinstance(net[0], nn.Linear)
    loha(name="first").attach(net, ["0"])
    with pytest.raises(ConfigError, match="LoRA cannot share a network with LoHa"):
        LoraAdapter(name="second").attach(net, ["0"])
