"""torch.save's two layouts, read without torch.load.

Stream (before torch 1.6, and inside pickles): pickles of a magic number, 1001, facts on the system, the object and a list of
keys; then per key an int64 count and the raw numbers, little-endian. Archive: a zip of NAME/data.pkl and NAME/data/KEY, never
compressed. In the object, a storage is the persistent id ("storage", type, key, location, count, …); the location, such as
"cuda:0", does not matter. Archives are never extracted: their members' names are only compared.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from ilora_stylegan.file_bytes import Reader
from ilora_stylegan.pickle_machine import Builder, Machine
from ilora_stylegan.pickle_nodes import Broken, Global, Storage, is_count

__all__ = ["MAGIC", "read_archive", "read_stream"]

MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_LARGEST_DIRECTORY = 8 << 20  # about 100,000 members
_LOCAL_HEADER = 30
_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_stream(data: memoryview, builders: Mapping[tuple[str, str], Builder]) -> Any:
    """The object of a stream. Raises Broken, also when numbers are declared that the stream does not hold."""
    reader = Reader(data)
    head = [Machine({}, allowance=0).run(reader) for _ in range(3)]
    if head[:2] != [MAGIC, _STREAM_VERSION]:
        raise Broken("this is no stream of torch.save")
    if not isinstance(head[2], dict) or head[2].get("little_endian") is not True:
        raise Broken("the numbers were written on a big-endian machine")
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        dtype, key, count = _identity(identity)
        made = storages.setdefault(key, Storage(dtype, count))
        if (made.dtype, made.numel) != (dtype, count):
            raise Broken(f"storage {key[:40]!r} is declared twice, differently")
        return made

    root = Machine(builders, allowance=len(data), persistent=storage).run(reader)
    _fill(reader, storages, Machine({}, allowance=0).run(reader))
    return root


def _fill(reader: Reader, storages: Mapping[str, Storage], keys: Any) -> None:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != {*storages}:
        raise Broken("the list of storages does not match the object")
    for key in keys:
        count = int.from_bytes(reader.read(8), "little")
        size = count * storages[key].dtype.itemsize
        if size > reader.left:
            raise Broken(f"a storage of {count:,} numbers is declared, and only {reader.left:,} bytes are left")
        storages[key].fill(reader.window(size))


def _identity(identity: Any) -> tuple[torch.dtype, str, int]:
    """dtype, key and count of a storage's persistent id."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise Broken("a persistent id that is no storage")
    kind, key, _, count = identity[1:5]
    if not isinstance(kind, Global) or not isinstance(key, str) or not is_count(count, 2**40):
        raise Broken("a storage's id is malformed")
    if kind.module not in ("torch", "torch.cuda") or kind.name not in _TYPES:
        raise Broken(f"numbers of an unknown kind, {kind.path}")
    if identity[5:] not in ((), (None,)):
        raise Broken("a storage is a view of another, which torch has not written since 2017")
    return _TYPES[kind.name], key, count


def read_archive(data: memoryview, builders: Mapping[tuple[str, str], Builder]) -> Any:
    """The object of a zip archive. Raises Broken for a zip of anything else."""
    members = _members(data)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Broken("the zip archive holds no data.pkl of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    if bytes(members.get(f"{folder}byteorder", b"little")[:8]) != b"little":
        raise Broken("the numbers were written on a big-endian machine")

    def storage(identity: Any) -> Storage:
        dtype, key, count = _identity(identity)
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise Broken(f"the archive lacks {folder[:40]}data/{key[:40]}")
        made = Storage(dtype, count)
        made.fill(member)
        return made

    return Machine(builders, allowance=len(data), persistent=storage).run(Reader(members[pickles[0]]))


class _Directory(io.RawIOBase):
    """The archive for `zipfile`, which reads its directory whole: a large one is refused first."""

    def __init__(self, data: memoryview):
        super().__init__()
        self._data, self._at = data, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        if self._at < 0:
            raise OSError("before the start of the file")
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else min(self._at + size, len(self._data))
        if end - self._at > _LARGEST_DIRECTORY:
            raise Broken("the zip archive's directory is absurdly large")
        part = bytes(self._data[self._at : max(self._at, end)])
        self._at += len(part)
        return part


def _members(data: memoryview) -> dict[str, memoryview]:
    """Name -> its bytes, as windows. Compressed and encrypted members are left out: torch.save writes none."""
    found = {}
    with zipfile.ZipFile(_Directory(data)) as archive:  # pyright: ignore[reportArgumentType]
        for info in archive.infolist():
            if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                start = info.header_offset + _LOCAL_HEADER
                if info.header_offset < 0 or start > len(data):
                    raise Broken("a member of the zip archive lies outside it")
                start += sum(struct.unpack("<HH", data[start - 4 : start]))
                if info.file_size != info.compress_size or start + info.file_size > len(data):
                    raise Broken("a member of the zip archive is larger than the archive")
                found[info.filename] = data[start : start + info.file_size]
    return found
