"""Several adapters in one pass: what one after the other gives, up to rounding; and what cannot be mixed is told up front."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from ilora_core.adapters import LoraAdapter, bare
from ilora_core.errors import PluginError
from ilora_core.full import FullAdapter
from ilora_core.mixture import mix
from ilora_core.testing.exercise import disturb, small_net

TARGETS = ["conv", "up", "linear"]  # a convolution, a transposed one, a linear layer
NAMES = ("normals", "depth", "albedo")


def attached(net, *, targets=TARGETS, names=NAMES, **settings):
    adapters = [LoraAdapter(name=name, **{"rank": 2, **settings}) for name in names]
    for seed, adapter in enumerate(adapters):
        adapter.attach(net, targets)
        disturb(adapter, seed)
    return adapters


def pictures(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def one_by_one(net, adapters, x):
    drawn = []
    for adapter in adapters:
        adapter.activate(trainable=False)
        drawn.append(net(x))
    return drawn


def together(net, adapters, x):
    mixture = mix(adapters)
    assert mixture is not None
    mixture.activate()
    return net(x.repeat(len(adapters), *[1] * (x.ndim - 1))).chunk(len(adapters))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 2, 4)])
def test_one_pass_gives_what_three_passes_give(rows, ranks):
    net, x = small_net(), pictures(rows)
    adapters = [a for name, rank in zip(NAMES, ranks, strict=True) for a in attached(net, names=[name], rank=rank)]
    for seed, adapter in enumerate(adapters):
        disturb(adapter, 10 + seed)
    apart = one_by_one(net, adapters, x)
    assert min((a - b).abs().max() for a, b in pairwise(apart)) > 1e-2
    torch.testing.assert_close(together(net, adapters, x), tuple(apart), atol=1e-6, rtol=1e-5)


def test_tokens_and_positions():
    """(B,T,C) as attention has it, (B·T,C) as some layers fold it, and one scale that is not 1."""
    net = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)).eval().requires_grad_(False)
    adapters = attached(net, targets=["0", "2"], alpha=1.0)
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2))
    apart = one_by_one(net, adapters, x)
    torch.testing.assert_close(together(net, adapters, x), tuple(apart), atol=1e-6, rtol=1e-5)
    folded = net(x.repeat(3, 1, 1).flatten(0, 1)).view(3, 2, 5, 4)
    torch.testing.assert_close(tuple(folded), tuple(apart), atol=1e-6, rtol=1e-5)


def test_convolutions_of_every_kind():
    for layer, shape in (
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 8)),
        (nn.Conv2d(3, 4, 3, padding=2, dilation=2, stride=2), (2, 3, 8, 8)),
        (nn.Conv3d(3, 4, 3), (2, 3, 4, 4, 4)),
        (nn.ConvTranspose2d(3, 4, 4, 2, 1, output_padding=1), (2, 3, 4, 4)),
    ):
        net = nn.Sequential(layer).eval().requires_grad_(False)
        adapters, x = attached(net, targets=["0"]), torch.randn(shape)
        apart = one_by_one(net, adapters, x)
        torch.testing.assert_close(together(net, adapters, x), tuple(apart), atol=1e-6, rtol=1e-5)


def test_a_mixture_owns_nothing_and_follows_its_adapters():
    net, x = small_net(), pictures(2)
    adapters = attached(net)
    states = [adapter.state_dict() for adapter in adapters]
    parameters, everything = [name for name, _ in net.named_parameters()], list(net.state_dict())
    together(net, adapters, x)
    assert [name for name, _ in net.named_parameters()] == parameters
    assert list(net.state_dict()) == everything
    assert not [p for p in net.parameters() if p.requires_grad]
    assert all(a.keys() == b.state_dict().keys() for a, b in zip(states, adapters, strict=True))
    adapters[1].load_state_dict({key: 2 * value for key, value in states[1].items()})  # after it was mixed
    torch.testing.assert_close(together(net, adapters, x), tuple(one_by_one(net, adapters, x)), atol=1e-6, rtol=1e-5)


def test_the_network_without_adapters_is_as_it_was():
    net, x = small_net(), pictures(3)
    before = net(x)
    adapters = attached(net)
    mixture = mix(adapters)
    assert mixture is not None
    mixture.activate()
    with bare(net):
        assert torch.equal(net(x), before)
    later = LoraAdapter(name="later", rank=1)
    later.attach(net, TARGETS)
    assert torch.equal(net(x), before), "a fresh adapter is the identity, also after a mixture was active"
    assert {id(p) for p in later.parameters()} == {id(p) for p in net.parameters() if p.requires_grad}


def test_some_of_the_adapters():
    net, x = small_net(), pictures(2)
    adapters = attached(net)
    chosen = [adapters[2], adapters[0]]
    torch.testing.assert_close(together(net, chosen, x), tuple(one_by_one(net, chosen, x)), atol=1e-6, rtol=1e-5)


class Words(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("settings", "layer", "targets"),
    [
        ({"dora": True}, nn.Linear(4, 4), ["layer"]),
        ({}, nn.MultiheadAttention(4, 2), ["layer"]),
        ({}, nn.Embedding(5, 4), ["layer", "head"]),
    ],
)
def test_what_cannot_be_mixed(settings, layer, targets):
    net = Words(layer).eval().requires_grad_(False)
    assert mix(attached(net, targets=targets, names=("a", "b"), **settings)) is None


def test_adapters_that_do_not_go_together():
    net = small_net()
    one = attached(net, names=["one"])
    assert mix([*one, *attached(net, names=["elsewhere"], targets=["linear"])]) is None
    assert mix([*one, *attached(net, names=["louder"], alpha=4.0)]) is None
    assert mix([*one, *attached(small_net(), names=["other"])]) is None
    full = FullAdapter(name="full")
    full.attach(small_net(), [])
    assert mix([*one, full]) is None
    assert mix([*one, *attached(net, names=["two"])]) is not None
    assert mix([*attached(net, names=["one+two"]), *attached(net, names=["three"])]) is not None


def test_a_mixture_takes_no_adapters_name():
    net = small_net()
    adapters = attached(net, names=["one", "two", "one+two"])
    assert mix(adapters[:2]) is None


def test_rows_that_are_no_equal_parts_are_refused():
    net = small_net()
    mixture = mix(attached(net))
    assert mixture is not None
    mixture.activate()
    with pytest.raises(PluginError, match=r"4 rows for 3 maps.*--one-by-one"):
        net(pictures(4))
