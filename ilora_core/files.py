"""Writing files so that a reader never sees half of one: a temporary name beside the target, then a rename. Digests."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ilora_core.errors import DataError

__all__ = ["atomic_path", "file_sha256", "read_json", "write_json", "write_text"]


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to (a file or a folder); on success it takes the place of `path`, else it is removed.

    Missing parent folders are made. A full disk or a refused write becomes one DataError that names the path.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder; "
            "what was finished before is kept."
        ) from error
    finally:
        _remove(temporary)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically and flush it to the disk."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path | str, data: Any) -> None:
    """Write readable JSON atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON. Raises DataError that says where it breaks."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(temporary: Path, path: Path) -> None:
    if path.is_dir() and temporary.is_dir():  # a rename cannot replace a folder that holds files
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
    else:
        os.replace(temporary, path)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with suppress(OSError):  # the write's own error is the one to report
            temporary.unlink(missing_ok=True)
