"""Full fine-tuning behind the adapter protocol: every parameter of the network is trained, the original is kept beside it.

It is the paper's baseline (I-LoRA Table 4), not a recommendation: its "adapter" is as large as the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import ArtefactError, ConfigError

__all__ = ["FullAdapter", "tiny"]


class FullAdapter:
    """All weights of a network as one adapter. One at a time is in place; attaching another puts this one aside.

    name  for the folder it is saved in
    seed  is taken so that every adapter can be made alike; nothing is random here
    """

    def __init__(self, *, name: str = "default", seed: int = 0):
        self.name = name
        self._net: Any = None
        self._aside: dict[str, Tensor] = {}

    def attach(self, net: nn.Module, targets: Sequence[str] | str) -> None:
        """Free every parameter, in float32; `targets` are ignored. The output does not change in float32."""
        if any(p.dtype != torch.float32 for p in net.parameters()):
            raise ConfigError("full fine-tuning trains in float32: leave runtime.precision at fp32.")
        self._net = net
        if not hasattr(net, "_ilora_base"):
            object.__setattr__(net, "_ilora_base", _copy(net))
            object.__setattr__(net, "_ilora_full", None)
        self._aside = dict(self._net._ilora_base)
        self.activate()

    def activate(self, *, trainable: bool = True) -> None:
        """Put these weights in place of the ones that are there."""
        net = self._attached()
        if net._ilora_full is not self:
            if net._ilora_full is not None:
                net._ilora_full._aside = _copy(net)
            _load(net, self._aside)
            object.__setattr__(net, "_ilora_full", self)
        net.requires_grad_(trainable)

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of the network's."""
        return self._attached().parameters()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The original weights inside the `with` block."""
        net = self._attached()
        current = _copy(net)
        _load(net, net._ilora_base)
        try:
            yield
        finally:
            _load(net, current)

    def state_dict(self) -> dict[str, Tensor]:
        """Parameter name -> tensor."""
        net = self._attached()
        state = _copy(net) if net._ilora_full is self else self._aside
        return {name: value.cpu().contiguous() for name, value in sorted(state.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ArtefactError when the tensors are not this network's."""
        own = {name: p.shape for name, p in self._attached().named_parameters()}
        if own != {name: value.shape for name, value in state.items()}:
            raise ArtefactError("these weights are not this network's: names or shapes differ.")
        if self._attached()._ilora_full is self:
            _load(self._net, state)
        else:
            self._aside = {name: value.clone() for name, value in state.items()}

    def config(self) -> dict[str, Any]:
        """What adapter_config.json says."""
        return {"peft_type": "FULL", "parameters": sum(p.numel() for p in self.parameters())}

    def _attached(self) -> Any:
        if self._net is None:
            raise ConfigError("the adapter is not attached to a network yet.")
        return self._net


def tiny() -> FullAdapter:
    """For the conformance checks."""
    return FullAdapter()


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


@torch.no_grad()
def _load(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, parameter in net.named_parameters():
        parameter.copy_(state[name].to(parameter.device))
