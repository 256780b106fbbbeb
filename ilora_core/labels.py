"""Run a labeler over a source once, keep its maps in the cache, and read them back as a source with maps.

cache = cache_for(labeler, "my-labeler")
for progress in label_source(labeler, source, cache): ...
fit on LabelledSource(source, cache)                     # the labeler is no longer needed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import DataError, PluginError
from ilora_core.exports import PictureFormat, iter_export
from ilora_core.files import write_json
from ilora_core.intrinsics import Intrinsic
from ilora_core.label_cache import LabelCache, default_cache_root, picture_key
from ilora_core.protocols import Batch, Labeler, Source
from ilora_core.sources import source_keys

__all__ = [
    "LabelCache",
    "LabelProgress",
    "LabelledSource",
    "cache_for",
    "default_cache_root",
    "export_labels",
    "label_source",
    "picture_key",
]


@dataclass(frozen=True)
class LabelProgress:
    """done of total pictures have labels; `reused` of them had one before. labeler: whose, of several that run in turn."""

    done: int
    total: int
    reused: int
    labeler: str = ""


def cache_for(
    labeler: Labeler,
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    root: Path | str | None = None,
    provenance: Mapping[str, Any] | None = None,
    shard_size: int = 64,
) -> LabelCache:
    """The cache of a labeler: by its `version` and `weights_hash` attributes, where it has them, and its settings.

    name      what the user calls it
    settings  what it was made with: other settings, other labels
    """
    version, settings = str(getattr(labeler, "version", "0")), dict(settings or {})
    if settings:
        text = json.dumps(settings, sort_keys=True, default=str)
        version += f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    cache = LabelCache(
        root,
        name,
        version=version,
        weights_hash=str(getattr(labeler, "weights_hash", "")),
        shard_size=shard_size,
        provenance={"settings": settings, **(provenance or {})},
    )
    cache.describe(tuple(labeler.intrinsics))
    return cache


def label_source(
    labeler: Labeler, source: Source, cache: LabelCache, *, batch_size: int = 8, device: torch.device | str = "cpu"
) -> Iterator[LabelProgress]:
    """Label what the cache lacks. What is done stays done: a stopped run goes on where its last shard ended.

    The labeler leaves the device when it is done.

    Raises PluginError when the labeler's maps are not what it promised, DataError when the disk is full.
    """
    if callable(move := getattr(labeler, "to", None)):
        move(device)
    queue = _Queue(labeler, cache, batch_size, device)
    seen, reused, total = 0, 0, len(source)
    try:
        for batch in source:
            reused += sum(not queue.add(picture) for picture in batch.pictures)
            seen += len(batch.keys)
            yield LabelProgress(seen - len(queue), total, reused)
        queue.run()
    finally:
        cache.flush()
        if callable(move):
            move("cpu")
    yield LabelProgress(seen, total, reused)


class LabelledSource:
    """A source whose maps come from a label cache, read as they are needed.

    Its keys, pictures and codes are the source's own. Raises DataError at a picture that has no label.
    """

    def __init__(self, source: Source, cache: LabelCache, intrinsics: Sequence[Intrinsic] | None = None) -> None:
        self._source, self._cache = source, cache
        self.intrinsics = cache.intrinsics if intrinsics is None else tuple(intrinsics)
        self.keys: Sequence[str] = source_keys(source)

    def __len__(self) -> int:
        return len(self._source)

    @property
    def provenance(self) -> dict[str, Any]:
        """Who made the labels, in which version, with which weights and settings, under which licence."""
        return self._cache.provenance

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            yield replace(batch, maps=self._maps(batch))

    def _maps(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        rows = []
        for key, picture in zip(batch.keys, batch.pictures, strict=True):
            digest = picture_key(picture)
            if digest not in self._cache:
                raise DataError(
                    f"{key} has no label in {self._cache.folder}. Run `ilora label` over the same pictures."
                )
            rows.append(self._cache.get(digest))
        names = [i.name for i in self.intrinsics]
        return {n: (torch.stack([r[n][0] for r in rows]), torch.stack([r[n][1] for r in rows])) for n in names}


def export_labels(
    source: Source,
    cache: LabelCache,
    directory: Path | str,
    *,
    formats: Mapping[str, str] | None = None,
    pictures: PictureFormat = "auto",
    about: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Write pictures and their labels as a folder for `--pairs`, with provenance.json. Yields pictures per batch.

    about: what provenance.json says of the pictures, beside what the cache knows of the labels.
    """
    yield from iter_export(LabelledSource(source, cache), directory, formats=formats, pictures=pictures)
    write_json(Path(directory) / "provenance.json", {**cache.provenance, "pictures": len(source), **(about or {})})


class _Queue:
    """Pictures of one size on their way through the labeler, in batches."""

    def __init__(self, labeler: Labeler, cache: LabelCache, batch_size: int, device: torch.device | str) -> None:
        self._labeler, self._cache, self._batch_size, self._device = labeler, cache, batch_size, device
        self._waiting: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, picture: Tensor) -> bool:
        """Whether the picture had to be queued: the cache does not know it, and no other file shows the same."""
        key = picture_key(picture)
        if key in self._cache or key in self._waiting:
            return False
        if self._waiting and next(iter(self._waiting.values())).shape != picture.shape:
            self.run()
        self._waiting[key] = picture
        if len(self._waiting) >= self._batch_size:
            self.run()
        return True

    def run(self) -> None:
        """Label what waits."""
        if not self._waiting:
            return
        pictures = torch.stack(list(self._waiting.values()))
        with torch.inference_mode():
            given = self._labeler.label(pictures.to(self._device))
        _check_labels(given, self._labeler.intrinsics, pictures)
        for row, key in enumerate(self._waiting):
            # A copy: a row of a batch would keep the whole batch in memory.
            self._cache.put(key, {name: (m[row].cpu().clone(), v[row].cpu().clone()) for name, (m, v) in given.items()})
        self._waiting = {}


def _check_labels(given: Mapping[str, Any], intrinsics: Sequence[Intrinsic], pictures: Tensor) -> None:
    b, _, h, w = pictures.shape
    for intrinsic in intrinsics:
        if intrinsic.name not in given:
            raise PluginError(f"the labeler promises {intrinsic.name} and gives {', '.join(given) or 'nothing'}.")
        value, valid = given[intrinsic.name]
        allowed = {(b, c, h, w) for c in ({1, 3} if intrinsic.encoding == "shading" else {intrinsic.channels})}
        if tuple(value.shape) not in allowed or tuple(valid.shape) != (b, 1, h, w) or valid.dtype != torch.bool:
            raise PluginError(
                f"the labeler's {intrinsic.name} is {tuple(value.shape)} with a mask {tuple(valid.shape)} of "
                f"{valid.dtype}; it must be {(b, intrinsic.channels, h, w)} with a bool mask {(b, 1, h, w)}."
            )
