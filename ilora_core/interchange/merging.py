"""An adapter's change written into the network's own weights: W ← W + (alpha / r) B A, and the like for peft's other methods."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ilora_core.errors import ConfigError

__all__ = ["merge_active"]


def merge_active(net: nn.Module) -> None:
    """Put the active adapter into the weights and take every adapter off: plain layers stay. Cannot be undone.

    Raises ConfigError when nothing is attached.
    """
    carrying: list[tuple[str, Any]] = [(n, m) for n, m in net.named_modules() if isinstance(m, BaseTunerLayer)]
    if not carrying:
        raise ConfigError("there is nothing to merge: the adapter changes no weights of the network.")
    for path, layer in carrying:
        layer.merge(safe_merge=True, adapter_names=list(layer.active_adapters))
        parent, _, child = path.rpartition(".")
        setattr(net.get_submodule(parent), child, layer.get_base_layer())
    stale: Any = net
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in stale.__dict__:
            delattr(stale, name)
