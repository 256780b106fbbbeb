"""What a cell can be: an adapter that is fitted, or a baseline that it is held against.

A method says what its result depends on (`plan`), makes it into a folder (`make`), and reads it back as something that draws
(`open`). Another baseline is another such class in METHODS.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from pathlib import Path
from typing import Any, Protocol

from ilora_core.config import FitConfig
from ilora_core.errors import UnknownName
from ilora_core.fit import Event
from ilora_core.plugins import PluginHost
from ilora_core.sweep.drawers import Drawer
from ilora_core.sweep.held_out import HeldOut
from ilora_core.sweep.learnt import AdapterFit, Mean, Probe, RandomInit
from ilora_core.sweep.untrained import Ceiling, Labels, Picture, Prompt

__all__ = ["METHODS", "Method", "get_method"]


class Method(Protocol):
    """One way to come to maps."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        """The method that does it, and the configuration without what does not matter. ConfigError where it cannot be.

        held_out: what it is to be scored on, which for "validation" and "samples" depends on the configuration too.
        """
        ...

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        """Make it in `folder`, or go on there; yields progress as `fit` does, and returns facts for tables."""
        ...

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        """What draws the intrinsic `name`."""
        ...


def get_method(name: str) -> Method:
    """The method of that name. Raises UnknownName that lists them."""
    if name not in METHODS:
        raise UnknownName(f"no method is called {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]


METHODS: dict[str, Method] = {
    "adapter": AdapterFit(),
    "random-init": RandomInit(),
    "mean-map": Mean(),
    "probe": Probe(),
    "labeler": Labels(),
    "picture": Picture(),
    "ceiling": Ceiling(),
    "prompt": Prompt(),
}
