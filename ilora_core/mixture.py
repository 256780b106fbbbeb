"""Several adapters in one pass of their network: a batch of K equal parts, the k-th through the k-th adapter.

    y = W x + s B_k A_k x        k = ⌊K · row / rows⌋

The mixture is one more name in peft's LoRA layers, whose A and B hold no weights of their own: they send each part of a batch
through the adapters' own, linear ones in one batched product. The layers run as always, and switching to the mixture is
switching to any adapter.

peft has a way of its own, one adapter's name per row, which a hook hands to each layer. It is not used here: torch.compile does
not look again at hooks that come and go, and draws with the wrong adapter; and each layer picks its rows by lists, which go to
a GPU one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Conv2d, Conv3d, Linear
from peft.tuners.lora.layer import Conv1d
from torch import Tensor, nn

from ilora_core.adapters import LoraAdapter, sites_of
from ilora_core.errors import PluginError
from ilora_core.protocols import Adapter

__all__ = ["Mixture", "mix"]

_MIXED = (Linear, Conv1d, Conv2d, Conv3d)  # `ilora_core.transposed`'s is a Conv2d to peft


class Mixture:
    """Adapters of one network as one adapter, for drawing alone. Made by `mix`."""

    def __init__(self, net: nn.Module, name: str, layers: Sequence[Any], parts: Sequence[str]):
        self.net, self.name = net, name
        for layer in layers:
            for setting in (layer.r, layer.lora_alpha, layer.scaling):
                setting[name] = setting[parts[0]]
            layer.use_dora[name] = False
            layer.lora_dropout[name] = nn.Identity()
            for factor in (layer.lora_A, layer.lora_B):
                factor[name] = _Parts([factor[part] for part in parts], joins=factor is layer.lora_B)

    def activate(self) -> None:
        """Switch the network to the mixture; every adapter is frozen."""
        sites_of(self.net).switch(self.name, trainable=False)


def mix(adapters: Sequence[Adapter]) -> Mixture | None:
    """A mixture of the adapters in their order, or None where they can only be used one after the other.

    Mixed are LoRAs without DoRA on one network, in the same layers, with one scale; the layers linear or (transposed)
    convolutions.
    """
    own = [adapter for adapter in adapters if isinstance(adapter, LoraAdapter)]
    if len(own) < len(adapters) or len({id(adapter.net) for adapter in own}) != 1:
        return None
    net: Any = own[0].net
    names = [adapter.name for adapter in own]
    layers = [layer for layer in sites_of(net).layers if any(name in layer.scaling for name in names)]
    name = "+".join(names)
    if name in net.peft_config or not all(_mixes(layer, names) for layer in layers):
        return None
    return Mixture(net, name, layers, names)


def _mixes(layer: Any, names: Sequence[str]) -> bool:
    if not isinstance(layer, _MIXED) or layer.merged:
        return False
    held = all(name in layer.lora_A and not layer.use_dora[name] for name in names)
    return held and len({layer.scaling[name] for name in names}) == 1


class _Parts(nn.Module):
    """A, or B, of several adapters: the k-th of as many equal parts of a batch goes through the k-th.

    What A gives stays in its parts until B joins them, since ranks may differ.
    """

    def __init__(self, parts: Sequence[nn.Module], *, joins: bool):
        super().__init__()
        self.parts: tuple[Any, ...] = tuple(parts)  # no ModuleList: they stay their adapters' own
        self.joins = joins
        shapes = {part.weight.shape for part in self.parts}
        self.linear = len(shapes) == 1 and all(type(part) is nn.Linear and part.bias is None for part in parts)

    @property
    def weight(self) -> Tensor:
        """What peft asks for the type to compute in."""
        return self.parts[0].weight

    def forward(self, x: Tensor | Sequence[Tensor], **options: Any) -> Tensor | Sequence[Tensor]:
        k = len(self.parts)
        if isinstance(x, Tensor):
            if len(x) % k:
                raise PluginError(
                    f"a layer was given {len(x)} rows for {k} maps: the generator's render_many has to give its network one "
                    "part of equal size per map. Draw one map after the other until that is mended (--one-by-one)."
                )
            if self.linear:
                weights = torch.stack([part.weight for part in self.parts])
                return torch.bmm(x.reshape(k, -1, x.shape[-1]), weights.mT).view(*x.shape[:-1], -1)
            x = x.chunk(k)
        drawn = [part(rows, **options) for part, rows in zip(self.parts, x, strict=True)]
        return torch.cat(drawn) if self.joins else drawn
