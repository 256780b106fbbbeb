"""What every adapter holds to, on a small network of a convolution, a transposed one and two linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.testing.cases import Subject, require
from ilora_core.testing.exercise import small_net

__all__ = [
    "check_adapter_attach_is_identity",
    "check_adapter_disabled_restores",
    "check_adapter_parameters_are_the_trained_ones",
    "check_adapter_save_and_load_is_exact",
    "check_adapter_steps_lower_a_loss",
    "check_follows_adapter_protocol",
]

TARGETS = ["conv", "up", "linear"]


def check_follows_adapter_protocol(subject: Subject) -> None:
    """attach, activate, parameters, disabled, state_dict, load_state_dict, config."""
    adapter = subject.make()
    names = ("attach", "activate", "parameters", "disabled", "state_dict", "load_state_dict", "config")
    missing = [name for name in names if not callable(getattr(adapter, name, None))]
    require(not missing, f"an adapter also needs: {', '.join(missing)} (ilora_core.protocols.Adapter).")


def check_adapter_attach_is_identity(subject: Subject) -> None:
    """The network's output stays the same, bit for bit; both lists of suffixes and regular expressions are targets."""
    for targets in (TARGETS, f"({'|'.join(TARGETS)})"):
        net, inputs = small_net(), _inputs()
        before = net(inputs)
        adapter = subject.make()
        adapter.attach(net, targets)
        require(torch.equal(net(inputs), before), f"the output changes when it attaches to {targets!r}.")
        require(list(adapter.parameters()), f"it has no parameters on {targets!r}.")


def check_adapter_parameters_are_the_trained_ones(subject: Subject) -> None:
    """`parameters` gives exactly those with requires_grad; the base network's stay frozen."""
    net, adapter = _attached(subject)
    own, trained = {id(p) for p in adapter.parameters()}, {id(p) for p in net.parameters() if p.requires_grad}
    require(own == trained, f"parameters() gives {len(own)}, but {len(trained)} of the network ask for gradients.")


def check_adapter_disabled_restores(subject: Subject) -> None:
    """Trained, it changes the output; inside `disabled()` the output is the bare network's, bit for bit."""
    net, adapter = _attached(subject)
    inputs = _inputs()
    before = net(inputs)
    _disturb(adapter)
    after = net(inputs)
    require(not torch.equal(after, before), "weights in the adapter do not change the output.")
    with adapter.disabled():
        require(torch.equal(net(inputs), before), "the bare network's output is not restored inside disabled().")
    require(torch.equal(net(inputs), after), "the adapter does not come back after disabled().")


def check_adapter_save_and_load_is_exact(subject: Subject) -> None:
    """state_dict, loaded into a second one, gives the same output to the bit; it holds plain tensors."""
    (net, adapter), (other_net, other) = _attached(subject), _attached(subject)
    _disturb(adapter)
    state = adapter.state_dict()
    require(all(isinstance(v, Tensor) and not v.requires_grad for v in state.values()), "the state is plain tensors.")
    other.load_state_dict({name: value.clone() for name, value in state.items()})
    require(torch.equal(net(_inputs()), other_net(_inputs())), "a saved and loaded adapter gives another output.")


def check_adapter_steps_lower_a_loss(subject: Subject) -> None:
    """Forty Adam steps towards a fixed output lower the error; the base weights do not move."""
    net, adapter = _attached(subject)
    own = {id(p) for p in adapter.parameters()}
    base = {name: p.detach().clone() for name, p in net.named_parameters() if id(p) not in own}
    optimiser = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = (net(_inputs()) - 1).square().mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    require(losses[-1] < losses[0], f"forty steps move the loss from {losses[0]:.4g} to {losses[-1]:.4g}.")
    moved = [name for name, p in net.named_parameters() if name in base and not torch.equal(p, base[name])]
    require(not moved, f"base weights move with training: {', '.join(moved[:3])}.")


def _inputs() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _attached(subject: Subject) -> tuple[nn.Module, Any]:
    net, adapter = small_net(), subject.make()
    adapter.attach(net, TARGETS)
    return net, adapter


def _disturb(adapter: Any) -> None:
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source) * 0.2)
