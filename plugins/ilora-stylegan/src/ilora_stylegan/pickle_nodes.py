"""What a pickle's contents become here: plain values, tensors and arrays still in the file, and inert stand-ins for the rest.

Every class below only remembers. None has a method that a pickle can reach by name, and all compare by identity, so that a
stand-in is a cheap and harmless key.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Broken",
    "DType",
    "Dead",
    "Global",
    "Record",
    "Storage",
    "StoredArray",
    "StoredTensor",
    "check_key",
    "describe",
    "is_count",
    "is_name",
]

_MOST_AXES = 32
_LONGEST_AXIS = 2**31
_LONGEST_NAME = 200
_LONGEST_KEY = 16
_DEEPEST_KEY = 3
_ORDERS = ("<", ">", "|", "=")
_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class Broken(ValueError):
    """Contents that make no sense. The reader turns it into a WeightsError that names the file and the place."""


def describe(value: Any) -> str:
    """A few words on a value. Its repr is not safe: what is small in the file may be without end when written out."""
    if isinstance(value, str):
        return repr(value[:40])
    if value is None or isinstance(value, int | float | Dead | Global | Record | StoredArray | StoredTensor):
        return repr(value)[:200]
    return f"a {type(value).__name__}"


def is_count(value: Any, limit: int = 2**62) -> bool:
    """A plain integer in [0, limit)."""
    return type(value) is int and 0 <= value < limit


def is_name(value: Any) -> bool:
    """A text of reasonable length, as attributes and variables have."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple) and len(value) <= _MOST_AXES and all(is_count(size, _LONGEST_AXIS) for size in value)
    )


@dataclass(eq=False, frozen=True, repr=False)
class Global:
    """The name of a class or function. Nothing is imported."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """module.name, cut to a readable length."""
        return f"{self.module[:80]}.{self.name[:80]}"

    def __repr__(self) -> str:
        return f"<name {self.path}>"


@dataclass(eq=False, repr=False)
class Dead:
    """An object of a class that is not on the list, or the result of a call that was not made.

    what   the class or function
    args   what it would have been called with
    state  what would have become its attributes
    """

    what: Global
    args: tuple[Any, ...] = ()
    state: Any = None

    @property
    def name(self) -> str:
        """module.name of the class or function."""
        return self.what.path

    def __repr__(self) -> str:
        return f"<not made: {self.name}>"


@dataclass(eq=False, repr=False)
class Record:
    """An object of NVIDIA's torch_utils.persistence. The source text beside it is dropped unread."""

    class_name: str
    state: dict[Any, Any]

    def __repr__(self) -> str:
        return f"<record {self.class_name[:80]}>"


@dataclass(eq=False, repr=False)
class Storage:
    """A run of `numel` numbers. `data` is a window on the file; some layouts put it behind the tensors that need it."""

    dtype: torch.dtype
    numel: int
    data: memoryview | None = None

    def fill(self, data: memoryview) -> None:
        """Raises Broken unless the window holds as many bytes as were declared."""
        if len(data) != self.numel * self.dtype.itemsize:
            raise Broken(f"a storage declares {self.numel} numbers of {self.dtype} and has {len(data)} bytes")
        self.data = data


@dataclass(eq=False, repr=False)
class StoredTensor:
    """A tensor still in the file. Its bounds are checked when it is made, before anything is allocated."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        if not (is_count(self.offset) and _is_shape(self.shape) and isinstance(self.stride, tuple)):
            raise Broken("a tensor has no usable offset, shape or stride")
        if len(self.stride) != len(self.shape) or not all(is_count(step) for step in self.stride):
            raise Broken("a tensor's strides do not fit its shape, or are negative")
        if self.numel > self.storage.numel or self._span > self.storage.numel:
            raise Broken(f"a tensor of shape {list(self.shape)} reaches beyond the {self.storage.numel} numbers stored")

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def _span(self) -> int:
        """One past the last number it touches."""
        if not self.numel:
            return 0
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def without(self, *axes: int) -> StoredTensor:
        """The same numbers without these axes. Raises Broken unless they exist and have length 1."""
        if not all(axis < len(self.shape) and self.shape[axis] == 1 for axis in axes):
            raise Broken(f"a tensor of shape {list(self.shape)} has no axes {list(axes)} of length 1")
        kept = [axis for axis in range(len(self.shape)) if axis not in axes]
        shape, stride = tuple(self.shape[axis] for axis in kept), tuple(self.stride[axis] for axis in kept)
        return StoredTensor(self.storage, self.offset, shape, stride)

    def load(self) -> Tensor:
        """A contiguous copy, on the CPU whatever device it was saved from."""
        if self.storage.data is None:
            raise Broken("a tensor's numbers are missing")
        if not self.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        width = self.dtype.itemsize
        raw = bytearray(self.storage.data[self.offset * width : self._span * width])
        # A byte other than 0 and 1 is no valid bool.
        flat = torch.frombuffer(raw, dtype=torch.uint8 if self.dtype == torch.bool else self.dtype)
        value = flat.as_strided(self.shape, self.stride).clone(memory_format=torch.contiguous_format)
        return value.ne(0) if self.dtype == torch.bool else value

    def __repr__(self) -> str:
        return f"<stored tensor {list(self.shape)} {self.dtype}>"


@dataclass(eq=False, repr=False)
class DType:
    """A numpy dtype of plain numbers: kinds b, i, u and f."""

    code: str
    order: str = "<"

    @classmethod
    def known(cls, code: Any) -> DType | None:
        """None for every other kind: objects, texts, fields, dates."""
        found = _CODE.fullmatch(code) if isinstance(code, str) else None
        return cls(found[1], code[0] if code[0] in _ORDERS else "<") if found else None

    def build(self, state: Any) -> None:
        """numpy's state (version, byte order, subarray, names, fields, …). Raises Broken for anything but a byte order."""
        plain = isinstance(state, tuple) and 5 <= len(state) <= 9 and state[2:5] == (None, None, None)
        if not plain or state[1] not in _ORDERS:
            raise Broken("a numpy dtype has fields, subarrays or an unknown byte order")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(">" if self.order == ">" else "<")


@dataclass(eq=False, repr=False)
class StoredArray:
    """A numpy array still in the file."""

    shape: tuple[int, ...] = ()
    refused: str = "it was never filled"
    _dtype: np.dtype | None = None
    _data: memoryview = field(default_factory=lambda: memoryview(b""))
    _order: Literal["C", "F"] = "C"

    def build(self, state: Any) -> None:
        """numpy's state (version, shape, dtype, columns first, bytes); the version may be missing.

        Raises Broken unless the bytes are exactly as many as shape and dtype take. Other dtypes are refused when loaded.
        """
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Broken("a numpy array has a state of an unknown form")
        shape, dtype, columns, data = state[-4:]
        if not isinstance(dtype, DType):
            self.refused = "its dtype is not a plain number"
            return
        if not _is_shape(shape) or not isinstance(data, bytes | bytearray | memoryview):
            raise Broken("a numpy array has no usable shape or bytes")
        found = dtype.numpy()
        if math.prod(shape) * found.itemsize != len(data):
            raise Broken(f"a numpy array of shape {list(shape)} and {found} has {len(data)} bytes")
        self.shape, self._dtype, self._data = shape, found, memoryview(data)
        self._order = "F" if columns is True else "C"

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def load(self) -> np.ndarray:
        """A copy. Raises Broken for an array of objects, texts or fields."""
        if self._dtype is None:
            raise Broken(f"a numpy array cannot be used: {self.refused}")
        flat = np.frombuffer(self._data, dtype=self._dtype)
        return flat.reshape(self.shape, order=self._order).copy()

    def __repr__(self) -> str:
        return f"<stored array {list(self.shape)} {self._dtype}>"


def check_key(key: Any, depth: int = 0) -> Any:
    """The key of a dict or the member of a set. Raises Broken for one whose hash would be costly or could recurse."""
    if isinstance(key, tuple):
        if len(key) > _LONGEST_KEY or depth == _DEEPEST_KEY:
            raise Broken("a key is a tuple of absurd length or depth")
        for part in key:
            check_key(part, depth + 1)
    elif isinstance(key, int) and key.bit_length() > 64:
        raise Broken("a key is an integer of absurd length")
    elif not (key is None or isinstance(key, str | bytes | int | float | frozenset | Global | Dead | Record)):
        raise Broken(f"a key is or holds a {type(key).__name__}")
    return key
