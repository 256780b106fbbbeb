"""The bytes of a file, without reading them all: a read-only window on the disk, and a reader over a part of it."""

from __future__ import annotations

import mmap
from pathlib import Path

from ilora_core.errors import WeightsError
from ilora_stylegan.pickle_nodes import Broken

__all__ = ["Reader", "window"]

_COPIED = 4096  # longer runs of bytes are windows on the file, not copies
_LONGEST_LINE = 1 << 20


def window(path: Path) -> memoryview:
    """The file's bytes, read from the disk only where they are used. Raises WeightsError for no file or an empty one."""
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise WeightsError(f"there is no checkpoint at {path}. Give the path of a .pkl, a .pt or a folder.") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # mmap's word for a file of no bytes
        raise WeightsError(f"{path} is empty: the download broke off. Fetch it again.") from error


class Reader:
    """A file for `pickletools`: short reads are bytes, long ones windows."""

    def __init__(self, data: memoryview):
        self.data, self.position = data, 0

    def tell(self) -> int:
        return self.position

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def read(self, count: int) -> bytes | memoryview:
        """At most what is left, whatever was asked for."""
        part = self.data[self.position : self.position + max(0, min(count, self.left))]
        self.position += len(part)
        return bytes(part) if len(part) <= _COPIED else part

    def window(self, count: int) -> memoryview:
        """The next `count` bytes. Raises Broken when fewer are left."""
        if not 0 <= count <= self.left:
            raise Broken(f"{count:,} bytes are declared, and only {self.left:,} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def readline(self) -> bytes:
        """Up to and with the next newline. Raises Broken when there is none within a megabyte."""
        size = 256
        while True:
            part = bytes(self.data[self.position : self.position + size])
            end = part.find(b"\n") + 1
            if end or size >= _LONGEST_LINE or size >= self.left:
                break
            size *= 4
        if not end:
            raise Broken("a line has no end")
        self.position += end
        return part[:end]
