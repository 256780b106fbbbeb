"""How an adapter comes to a generator: adopted where it asks for more than the network, then attached, one kind at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ilora_core.config import FitConfig
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Adapter, Generator

__all__ = ["attach", "check_adapter"]


def check_adapter(config: FitConfig, host: PluginHost) -> None:
    """Raise ConfigError for settings that the adapter does not take, before a generator is loaded."""
    settings = {name: value for name, value in config.settings.get("adapter", {}).items() if name != "targets"}
    host.card("adapters", config.adapter)
    try:
        host.check_settings("adapters", config.adapter, settings)
        host.make("adapters", config.adapter, **settings)  # small, and knows which values make sense
    except ConfigError as error:
        if config.adapter == "lora" or config.preset == "none":
            raise
        raise ConfigError(f"{error} Presets are made for lora: with another adapter give --preset none.") from error


def attach(adapter: Adapter, generator: Generator, intrinsic: Intrinsic, targets: Sequence[str] | str) -> None:
    """Attach an adapter that is to draw `intrinsic`.

    Raises ConfigError where another kind of adapter is there already: each kind can only switch its own on and off.
    """
    known: Any = generator.net
    kind = known.__dict__.get("_ilora_kind", type(adapter))
    if kind is not type(adapter):
        raise ConfigError(
            f"a {type(adapter).__name__} cannot share a generator with a {kind.__name__}: use them one after the other."
        )
    if adopt := getattr(adapter, "adopt", None):
        adopt(generator, intrinsic)
    adapter.attach(generator.net, targets)
    object.__setattr__(known, "_ilora_kind", kind)
