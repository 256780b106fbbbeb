"""What every adapter holds to: on a small network of a convolution, a transposed one and two linear layers, of which it may
refuse all but the linear ones; or on the miniature of a generator that it adopts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ilora_core.testing.cases import Subject, require, skip
from ilora_core.testing.places import place_for

__all__ = [
    "check_adapter_attach_is_identity",
    "check_adapter_disabled_restores",
    "check_adapter_parameters_are_the_trained_ones",
    "check_adapter_refuses_other_generators",
    "check_adapter_save_and_load_is_exact",
    "check_adapter_steps_lower_a_loss",
    "check_adapters_are_switched",
    "check_follows_adapter_protocol",
]


def check_follows_adapter_protocol(subject: Subject) -> None:
    """attach, activate, parameters, disabled, state_dict, load_state_dict, config."""
    adapter = subject.make()
    names = ("attach", "activate", "parameters", "disabled", "state_dict", "load_state_dict", "config")
    missing = [name for name in names if not callable(getattr(adapter, name, None))]
    require(not missing, f"an adapter also needs: {', '.join(missing)} (ilora_core.protocols.Adapter).")


def check_adapter_attach_is_identity(subject: Subject) -> None:
    """The output stays the same, bit for bit; both lists of suffixes and regular expressions are targets."""
    for pattern in (False, True):
        place = place_for(subject)
        targets = f"({'|'.join(place.targets)})" if pattern else place.targets
        before = place.output()
        place.attach(targets)
        require(torch.equal(place.output(), before), f"the output changes when it attaches to {targets!r}.")
        require(list(place.adapter.parameters()), f"it has no parameters on {targets!r}.")


def check_adapter_refuses_other_generators(subject: Subject) -> None:
    """An adapter that adopts a generator raises ConfigError for one without what it needs, and when none was given."""
    from ilora_core.errors import ConfigError
    from ilora_core.intrinsics import NORMALS
    from ilora_core.testing.exercise import small_net

    if not hasattr(subject.make(), "adopt"):
        skip("it needs nothing but a network")
    for what, use in (
        ("adopts a bare object", lambda adapter: adapter.adopt(object(), NORMALS)),
        ("attaches before it has adopted a generator", lambda adapter: adapter.attach(small_net(), ["linear"])),
    ):
        try:
            use(subject.make())
        except ConfigError:
            continue
        require(False, f"it {what}; raise ConfigError that says what it needs.")


def check_adapter_parameters_are_the_trained_ones(subject: Subject) -> None:
    """`parameters` gives exactly those with requires_grad; the base network's stay frozen."""
    place = place_for(subject).attached()
    own = {id(p): p for p in place.adapter.parameters()}
    trained = {id(p) for p in (*own.values(), *(p for _, p in place.parameters())) if p.requires_grad}
    require(set(own) == trained, f"parameters() gives {len(own)}, but {len(trained)} ask for gradients.")


def check_adapter_disabled_restores(subject: Subject) -> None:
    """Trained, it changes the output; inside `disabled()` the output is the bare network's, bit for bit."""
    place = place_for(subject)
    before = place.output()
    adapter = place.attached().adapter
    _disturb(adapter)
    after = place.output()
    require(not torch.equal(after, before), "weights in the adapter do not change the output.")
    with adapter.disabled():
        require(torch.equal(place.output(), before), "the bare network's output is not restored inside disabled().")
    require(torch.equal(place.output(), after), "the adapter does not come back after disabled().")


def check_adapter_save_and_load_is_exact(subject: Subject) -> None:
    """state_dict, loaded into a second one, gives the same output to the bit; it holds plain tensors."""
    place, other = place_for(subject).attached(), place_for(subject).attached()
    _disturb(place.adapter)
    state = place.adapter.state_dict()
    require(all(isinstance(v, Tensor) and not v.requires_grad for v in state.values()), "the state is plain tensors.")
    other.adapter.load_state_dict({name: value.clone() for name, value in state.items()})
    require(torch.equal(place.output(), other.output()), "a saved and loaded adapter gives another output.")


def check_adapters_are_switched(subject: Subject) -> None:
    """Of two on one network the active one alone counts and is trained; asleep, it keeps its weights."""
    place = place_for(subject).attached()
    first, before = place.adapter, place.output()
    if not hasattr(first, "name"):
        skip("it has no name, so that two of them cannot be told apart")
    _disturb(first)
    drawn = place.output()
    second = subject.make()
    second.name = "second"
    place.beside(second)
    require(torch.equal(place.output(), before), "a second, fresh adapter on the network is not the only active one.")
    require(not any(p.requires_grad for p in first.parameters() if _foreign(p, second)), "the sleeping one is trained.")
    first.activate(trainable=False)
    require(torch.equal(place.output(), drawn), "the first adapter does not come back with activate().")
    require(not any(p.requires_grad for p in first.parameters()), "activate(trainable=False) leaves it trainable.")


def check_adapter_steps_lower_a_loss(subject: Subject) -> None:
    """Forty Adam steps towards a fixed output lower the error; the base weights do not move."""
    place = place_for(subject).attached()
    own = {id(p) for p in place.adapter.parameters()}
    base = {name: p.detach().clone() for name, p in place.parameters() if id(p) not in own}
    optimiser = torch.optim.Adam(place.adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = place.loss()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    require(losses[-1] < losses[0], f"forty steps move the loss from {losses[0]:.4g} to {losses[-1]:.4g}.")
    moved = [name for name, p in place.parameters() if name in base and not torch.equal(p, base[name])]
    require(not moved, f"base weights move with training: {', '.join(moved[:3])}.")


def _foreign(parameter: Any, adapter: Any) -> bool:
    """Not one of that adapter's: full fine-tuning's are the network's, which all share."""
    return id(parameter) not in {id(p) for p in adapter.parameters()}


def _disturb(adapter: Any) -> None:
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source) * 0.2)
