"""A generator for the sake of its layers: without weights wherever its card can do that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilora_core.plugins import PluginHost

__all__ = ["network_for"]


def network_for(name: str, settings: Mapping[str, Any], host: PluginHost, *, weights: bool = False) -> Any:
    """The generator of a card, as a skeleton on the meta device unless `weights` are needed.

    Weights of the user's own bring their shapes with them, so they are read in any case.
    """
    host.check_settings("generators", name, settings)
    if weights or "weights" in settings or not host.card("generators", name).skeleton:
        return host.make("generators", name, **settings)
    return host.make_skeleton("generators", name, **settings)
