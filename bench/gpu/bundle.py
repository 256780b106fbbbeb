"""A folder as a few flat files of bounded size, and back: what resumable state travels as.

NAME.json           {"parts", "sha256", "facts"}
NAME.tar.00 …       the folder's tar, cut into parts of at most 15 MB
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PART_BYTES", "bundle_facts", "pack", "unpack"]

PART_BYTES = 15_000_000


def pack(files: Iterable[tuple[Path, str]], out: Path, name: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write (path, name inside) as NAME.* in `out`; the JSON comes last and makes the parts count."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, inside in sorted(files, key=lambda pair: pair[1]):
            tar.add(path, inside, recursive=False)
    data = buffer.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    drafts = []
    for number, piece in enumerate(pieces):
        draft = out / f".{name}.tar.{number:02d}"
        draft.write_bytes(piece)
        drafts.append(draft)
    for old in out.glob(f"{name}.tar.*"):
        old.unlink()
    written = [draft.rename(out / draft.name.removeprefix(".")) for draft in drafts]
    card = {"parts": len(pieces), "sha256": hashlib.sha256(data).hexdigest(), "facts": dict(facts)}
    path = out / f"{name}.json"
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return [*written, path]


def unpack(folder: Path, name: str, target: Path) -> dict[str, Any] | None:
    """Restore NAME.* from `folder` into `target`; its facts, or None when it is not there or not whole."""
    try:
        card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        data = b"".join((folder / f"{name}.tar.{n:02d}").read_bytes() for n in range(card["parts"]))
    except (OSError, ValueError, KeyError):
        return None
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        return None
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(target, filter="data")
    return card["facts"]


def bundle_facts(folder: Path, name: str) -> dict[str, Any]:
    """The facts of a bundle without unpacking it; {} when there is none."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError):
        return {}
