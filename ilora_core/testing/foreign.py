"""Pickles of classes that are not installed, as training tools leave them in checkpoints."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["foreign_class"]


@contextmanager
def foreign_class(path: str) -> Iterator[type]:
    """A class that pickles as "package.module.Name" inside the block. What was not installed before is gone afterwards."""
    module, _, name = path.rpartition(".")
    kind = type(name, (), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    packages = [".".join(parts[: end + 1]) for end in range(len(parts))]
    before = {package: sys.modules.get(package) for package in packages}
    sys.modules.update({package: ModuleType(package) for package in packages})
    setattr(sys.modules[module], name, kind)
    try:
        yield kind
    finally:
        for package, module_before in before.items():
            del sys.modules[package]
            if module_before is not None:
                sys.modules[package] = module_before
