"""A generator for the sake of its layers: without weights wherever its card can do that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilora_core.plugins import PluginHost

__all__ = ["network_for"]


def network_for(name: str, settings: Mapping[str, Any], host: PluginHost) -> Any:
    """The generator of a card: a skeleton on the meta device where the card has one.

    Weights of the user's own bring their shapes with them, so they are read.
    """
    host.check_settings("generators", name, settings)
    if "weights" in settings or not host.card("generators", name).skeleton:
        return host.make("generators", name, **settings)
    return host.make_skeleton("generators", name, **settings)
