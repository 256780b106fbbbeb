"""Where an adapter is checked: on a small network, or on the miniature of a generator when it adopts one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.cards import resolve
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import NORMALS
from ilora_core.testing.cases import Subject, require
from ilora_core.testing.exercise import loss_of, parameters_of, small_net, targets_for

__all__ = ["TARGETS", "Place", "place_for", "use_adapter"]

TARGETS = (["conv", "up", "linear"], ["conv", "linear"], ["linear"])


@dataclass(frozen=True)
class Place:
    """An adapter and where it goes.

    put         puts an adapter there
    targets     suffixes that it fits
    output      what is drawn there
    loss        a scalar that training can lower
    parameters  (name, parameter) of all that is there, the adapter's own included or not
    """

    adapter: Any
    put: Callable[[Any, Sequence[str] | str], None]
    targets: Sequence[str]
    output: Callable[[], Tensor]
    loss: Callable[[], Tensor]
    parameters: Callable[[], list[tuple[str, nn.Parameter]]]

    def attach(self, targets: Sequence[str] | str) -> None:
        """Put the adapter there."""
        self.put(self.adapter, targets)

    def beside(self, other: Any) -> None:
        """Put another one there."""
        self.put(other, self.targets)

    def attached(self) -> Place:
        """The place itself, the adapter attached."""
        self.attach(self.targets)
        return self


def place_for(subject: Subject) -> Place:
    """A fresh place with a fresh adapter that is not attached yet."""
    adapter = subject.make()
    return _on_generator(adapter, subject) if hasattr(adapter, "adopt") else _on_network(adapter, subject)


def use_adapter(subject: Subject) -> None:
    """A short use, for the checks that watch what happens meanwhile."""
    place = place_for(subject).attached()
    place.output()
    with place.adapter.disabled():
        place.output()
    place.adapter.load_state_dict(place.adapter.state_dict())


def _generator(subject: Subject) -> Any:
    """The miniature that an adopting adapter's card names."""
    path = subject.card.adopts if subject.card else ""
    require(path, "it has `adopt`: its card says with adopts='module:callable' on which miniature it can be checked.")
    return resolve(path)()


def _on_generator(adapter: Any, subject: Subject) -> Place:
    generator = _generator(subject)
    codes = generator.sample(2, seed=0)
    target, valid = targets_for(generator, NORMALS)

    def put(one: Any, targets: Sequence[str] | str) -> None:
        one.adopt(generator, NORMALS)
        one.attach(generator.net, targets)

    return Place(
        adapter,
        put,
        generator.targets,
        lambda: generator.render(codes, NORMALS),
        lambda: loss_of(generator, codes, NORMALS, target, valid).mean(),
        lambda: list(parameters_of(generator)),
    )


def _on_network(adapter: Any, subject: Subject) -> Place:
    net, inputs = small_net(), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Place(
        adapter,
        lambda one, targets: one.attach(net, targets),
        _fitting(subject),
        lambda: net(inputs),
        lambda: (net(inputs) - 1).square().mean(),
        lambda: list(net.named_parameters()),
    )


def _fitting(subject: Subject) -> list[str]:
    """The most of the small network's layers that the adapter accepts: the linear one is the least."""
    refusal = ""
    for targets in TARGETS:
        net, adapter = small_net(), subject.make()
        names = [name for name, _ in net.named_modules()]
        try:
            adapter.attach(net, targets)
        except ConfigError as error:
            refusal = str(error)
            untouched = names == [name for name, _ in net.named_modules()]
            require(untouched, f"it refuses {targets}, but has changed the network by then. Look before you attach.")
        else:
            return targets
    require(False, f"it does not attach to a linear layer: {refusal}")
    return []
