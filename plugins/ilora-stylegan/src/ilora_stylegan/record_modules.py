"""Walking the modules of a pickled network: attributes, tensors and children of `Record` nodes, with every type checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ilora_stylegan.pickle_nodes import Broken, Dead, Record, StoredArray, StoredTensor, describe, is_count, is_name

__all__ = ["Module", "collect"]

_TABLES = ("_parameters", "_buffers", "_modules")
_DEEPEST = 8  # a network may not contain itself
_MOST_MODULES = 10_000
_MOST_PARTS = 100_000


class Module:
    """A torch.nn.Module as its __dict__ tells it. Raises Broken where that is not what a module has."""

    def __init__(self, node: Any, path: str):
        self.path = path
        self.class_name = node.class_name[:80] if isinstance(node, Record) else describe(node)
        state = node.state if isinstance(node, Record | Dead) else None
        if not isinstance(state, dict) or not all(isinstance(state.get(table), dict) for table in _TABLES):
            raise Broken(f"{path} is no module of torch, but {describe(node)}")
        self.attributes: dict[Any, Any] = state
        self._parameters: dict[Any, Any] = state["_parameters"]
        self._buffers: dict[Any, Any] = state["_buffers"]
        self._modules: dict[Any, Any] = state["_modules"]

    def __contains__(self, name: str) -> bool:
        return self._modules.get(name) is not None

    def __getitem__(self, name: str) -> Module:
        """A child."""
        if name not in self:
            raise Broken(f"{self.path} ({self.class_name}) has no part called {name}")
        return Module(self._modules[name], f"{self.path}.{name}")

    def names(self) -> list[str]:
        """Of the children, in their order."""
        return [name for name, child in self._modules.items() if is_name(name) and child is not None]

    def tensors(self) -> Iterator[tuple[str, StoredTensor]]:
        """Its own parameters and buffers, those that are None left out."""
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            if value is not None:
                if not is_name(name) or not isinstance(value, StoredTensor):
                    raise Broken(f"{self.path} has at {describe(name)} no tensor, but {describe(value)}")
                yield name, value

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one of its own tensors; () if it is missing or None, as of a single number."""
        value = self._parameters.get(name, self._buffers.get(name))
        return value.shape if isinstance(value, StoredTensor) else ()

    def weight(self, axes: int) -> tuple[int, ...]:
        """The shape of its weight, which must have so many axes."""
        shape = self.shape("weight")
        if len(shape) != axes or 0 in shape:
            raise Broken(f"{self.path}.weight is missing or has the shape {list(shape)}")
        return shape

    def count(self, name: str) -> int:
        """An attribute that is a whole number from 0 on."""
        value = self.attributes.get(name)
        if not is_count(value, 2**20):
            raise Broken(f"{self.path}.{name} is no reasonable count")
        return value  # pyright: ignore[reportReturnType]

    def number(self, name: str) -> float | None:
        """An attribute that is a finite number, or None where it is missing or None."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
            raise Broken(f"{self.path}.{name} is no number")
        return float(value)

    def numbers(self, name: str) -> list[float]:
        """An attribute that is a list, a tuple or an array of numbers."""
        value = self.attributes.get(name)
        value = value.load().flatten().tolist() if isinstance(value, StoredArray) else value
        if not isinstance(value, list | tuple) or not all(isinstance(item, int | float) for item in value):
            raise Broken(f"{self.path}.{name} is no list of numbers")
        return list(value)

    def expect(self, name: str, *allowed: Any) -> Any:
        """An attribute that must be one of these; it may be missing, then the first."""
        value = self.attributes.get(name, allowed[0])
        if not isinstance(value, str | bool) or value not in allowed:
            raise Broken(f"{self.path}.{name} is {describe(value)}; known: {', '.join(map(repr, allowed))}")
        return value

    def multiplier(self) -> float | None:
        """lr of a fully connected layer whose run-time gains are lr/sqrt(fan-in) and lr; None where no gain is noted."""
        weight, bias = self.number("weight_gain"), self.number("bias_gain")
        if weight is None:
            return None
        lr = weight * math.sqrt(self.weight(2)[1])
        if bias is not None and not math.isclose(bias, lr, rel_tol=1e-5):
            raise Broken(f"{self.path}: the gains of weight and bias do not belong together")
        return lr if bias is None else bias


def collect(module: Module, prefix: str = "") -> dict[str, StoredTensor]:
    """What state_dict() would give, its keys with `prefix`. Raises Broken for a network that contains itself."""
    found: dict[str, StoredTensor] = {}
    waiting, seen = [(module, prefix, 0)], 0
    while waiting:
        module, prefix, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_MODULES or len(found) + len(waiting) > _MOST_PARTS:
            raise Broken(f"{module.path[:80]}: its parts have no end")
        found |= {prefix + name: value for name, value in module.tensors()}
        waiting += [(module[name], f"{prefix}{name}.", depth + 1) for name in reversed(module.names())]
    return found
