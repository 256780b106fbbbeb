"""The label cache: maps kept by what the picture shows, not by what its file is called.

    <root>/<labeler>@<version>+<weights>/shard-<host>-<pid>-<random>.safetensors    up to 64 pictures each
                                         provenance.json

A key is the sha256 of the picture's shape and float32 numbers, so a re-fit never labels twice and a renamed file keeps
its label. A shard appears whole or not at all (written aside, flushed, renamed) and under a name of its own: a killed
writer loses the shard in hand, and any number of writers may share the folder. Two that label the same picture waste
one label and nothing else. A shard that cannot be read is set aside, and its pictures count as not labelled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.files import atomic_path, read_json, write_json
from ilora_core.intrinsics import Intrinsic

__all__ = ["LabelCache", "Labels", "default_cache_root", "picture_key"]

Labels = Mapping[str, tuple[Tensor, Tensor]]
"""Intrinsic's name -> (Map float32 (C,H,W), Valid bool (1,H,W)) of one picture."""

_FORMAT = "ilora-labels-1"
_SHARD_BYTES = 256 * 2**20
_STALE_S = 24 * 3600.0
_OPEN_SHARDS = 8


def picture_key(picture: Tensor) -> str:
    """The sha256 of a picture (3,H,W): of its shape and its float32 numbers."""
    array = picture.detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.sha256(f"{array.shape}".encode())
    digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()


def default_cache_root() -> Path:
    """$ILORA_CACHE/labels, or ~/.cache/ilora/labels."""
    root = os.environ.get("ILORA_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "ilora") / "labels"


class LabelCache:
    """The labels of one labeler in one version with one set of weights.

    root           the folder of all caches; None = `default_cache_root()`
    labeler        its name
    version        of its code; another version is another cache
    weights_hash   of its weights; the first 12 characters tell caches apart
    shard_size     pictures in a shard: what a killed writer may lose
    provenance     plain data to keep with the labels (licence, settings, …)

    `put` collects; `flush` writes what is collected. Raises DataError when the disk refuses.
    """

    def __init__(
        self,
        root: Path | str | None,
        labeler: str,
        *,
        version: str = "0",
        weights_hash: str = "",
        shard_size: int = 64,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        weights = weights_hash.removeprefix("sha256:")[:12]
        name = f"{labeler}@{version}+{weights}" if weights else f"{labeler}@{version}"
        self.folder = Path(root or default_cache_root()) / re.sub(r"[^A-Za-z0-9.@+_-]", "-", name)
        self.shard_size = shard_size
        self.damaged: list[Path] = []
        self._about = {"labeler": labeler, "version": version, "weights_hash": weights_hash, **(provenance or {})}
        self._shard_of: dict[str, Path] = {}
        self._seen: set[Path] = set()
        self._open: dict[Path, Any] = {}
        self._waiting: dict[str, Labels] = {}
        self._waiting_bytes = 0
        self.refresh()

    @classmethod
    def at(cls, folder: Path) -> LabelCache:
        """The cache that another process described in this folder. Raises DataError where there is none."""
        told = read_json(folder / "provenance.json")
        return cls(folder.parent, told["labeler"], version=told["version"], weights_hash=told["weights_hash"])

    def __len__(self) -> int:
        return len(self._shard_of) + len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of or key in self._waiting

    @property
    def provenance(self) -> dict[str, Any]:
        """What made these labels, when, and which intrinsics they are."""
        path = self.folder / "provenance.json"
        return {"format": _FORMAT, **self._about, **(read_json(path) if path.exists() else {})}

    @property
    def intrinsics(self) -> tuple[Intrinsic, ...]:
        """What the labels are; empty before `describe`."""
        return tuple(Intrinsic.from_json(item) for item in self.provenance.get("intrinsics", ()))

    def describe(self, intrinsics: tuple[Intrinsic, ...]) -> None:
        """Write provenance.json, if it is not there. Raises DataError if it speaks of other intrinsics."""
        described = [i.to_json() for i in intrinsics]
        if "intrinsics" not in (known := self.provenance):
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            write_json(self.folder / "provenance.json", {**known, "created": created, "intrinsics": described})
        elif known["intrinsics"] != described:
            names = ", ".join(item["name"] for item in known["intrinsics"])
            raise DataError(
                f"the labels in {self.folder} are {names} by other conventions than the labeler's now. "
                "Give the labeler a new `version`, or remove that folder."
            )

    def refresh(self) -> None:
        """Find shards that other writers finished; clear away what dead writers left."""
        if not self.folder.is_dir():
            return
        for leftover in self.folder.glob(".shard-*.tmp"):
            if _is_dead(leftover):
                leftover.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path not in self._seen:
                self._seen.add(path)
                self._index(path)

    def get(self, key: str) -> Labels:
        """The labels of a picture. Raises KeyError when there are none, DataError when the shard has gone bad."""
        if key in self._waiting:
            return self._waiting[key]
        path = self._shard_of[key]
        try:
            shard = self._shard(path)
            names = json.loads(shard.metadata()["intrinsics"])
            return {n: (shard.get_tensor(f"{key}/{n}"), shard.get_tensor(f"{key}/{n}/valid").bool()) for n in names}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            self._set_aside(path)
            raise DataError(f"the label shard {path} has gone bad ({error}). Run `ilora label` again.") from error

    def put(self, key: str, labels: Labels) -> None:
        """Keep a picture's labels; a full shard is written at once."""
        kept = {n: (m.detach().cpu().float().contiguous(), v.cpu().bool().contiguous()) for n, (m, v) in labels.items()}
        if self._waiting and tuple(next(iter(self._waiting.values()))) != tuple(kept):
            self.flush()
        self._waiting[key] = kept
        self._waiting_bytes += sum(m.numel() * 4 + v.numel() for m, v in kept.values())
        if len(self._waiting) >= self.shard_size or self._waiting_bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is collected as one shard. What a full disk refuses stays collected."""
        if not self._waiting:
            return
        tensors, names = {}, list(next(iter(self._waiting.values())))
        for key, labels in self._waiting.items():
            for name, (value, valid) in labels.items():
                tensors[f"{key}/{name}"], tensors[f"{key}/{name}/valid"] = value, valid.to(torch.uint8)
        about = {"format": _FORMAT, "intrinsics": json.dumps(names), "provenance": json.dumps(self._about, default=str)}
        path = self.folder / f"shard-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.safetensors"
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(save(tensors, metadata=about))
            file.flush()
            os.fsync(file.fileno())
        self._seen.add(path)
        self._shard_of.update(dict.fromkeys(self._waiting, path))
        self._waiting, self._waiting_bytes = {}, 0

    def close(self) -> None:
        """Let go of open shards."""
        self._open.clear()

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as shard:
                if (shard.metadata() or {}).get("format") != _FORMAT:
                    raise ValueError("not a label shard")
                keys = {name.split("/", 1)[0] for name in shard.keys()}  # noqa: SIM118 (it is no mapping)
        except FileNotFoundError:
            return
        except (SafetensorError, OSError, ValueError):
            self._set_aside(path)
            return
        self._shard_of.update(dict.fromkeys(keys - set(self._shard_of), path))

    def _set_aside(self, path: Path) -> None:
        """Truncated by a crash of the machine or damaged since: out of the way, and its pictures are not labelled."""
        self.damaged.append(path)
        self._open.pop(path, None)
        self._shard_of = {key: shard for key, shard in self._shard_of.items() if shard != path}
        try:
            path.rename(path.with_suffix(".damaged"))
        except OSError:  # read-only, or another process was faster: it is passed over anyway
            return

    def _shard(self, path: Path) -> Any:
        if path not in self._open:
            while len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            self._open[path] = safe_open(path, framework="pt").__enter__()
        return self._open[path]


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "host"


def _is_dead(leftover: Path) -> bool:
    """Whether the writer of `.shard-<host>-<pid>-<random>.safetensors.<pid>.tmp` is gone."""
    try:
        if time.time() - leftover.stat().st_mtime > _STALE_S:
            return True
        _, host, pid, _ = leftover.name.split("-", 3)
        if host != _host() or os.name != "posix":  # another machine's process cannot be asked
            return False
        os.kill(int(pid), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (PermissionError, ValueError):
        return False
    return False
