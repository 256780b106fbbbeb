"""Cards: what a plugin says of each thing it provides, as plain data.

A card costs nothing to read: its callables are `"module:attribute"` strings, resolved when they are used.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ilora_core.errors import PluginError

__all__ = ["Card", "resolve"]


@dataclass(frozen=True)
class Card:
    """One generator, labeler, adapter, source or metric.

    name        what a user types; lower case, digits and dashes
    summary     one line for `ilora list-plugins`
    licence     of the weights or data behind it (SPDX id, or a short plain statement)
    factory     "module:callable"; called with `options` overlaid by the user's settings
    tiny        "module:callable" without arguments: the same class with random weights, on the CPU, offline, in under a
                second; the conformance checks run on it
    intrinsics  names of the maps it gives; empty = any
    options     keyword arguments that tell this card from others with the same factory
    skeleton    generators: "module:callable" like `factory`, but weightless on torch's meta device; what `ilora plan`
                counts on without a download
    convert     "module:callable" (source: Path, out: Path) -> facts to print: rewrites foreign weights as a folder that the
                factory loads; what `ilora convert` calls
    adopts      adapters that adopt a generator: "module:callable" of a miniature one, for the conformance checks
    """

    name: str
    summary: str
    licence: str
    factory: str
    tiny: str
    intrinsics: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    skeleton: str = ""
    convert: str = ""
    adopts: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


def resolve(path: str) -> Callable:
    """The object that a `"module:attribute"` string names. Raises PluginError when there is none."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise PluginError(f"{path!r} is not of the form 'module:callable'.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"cannot import {module_name!r} for {path!r}: {error}.") from error
    target: object = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise PluginError(f"module {module_name!r} has no {attribute!r} (asked for as {path!r}).")
        target = getattr(target, part)
    if not callable(target):
        raise PluginError(f"{path!r} is not callable.")
    return target
