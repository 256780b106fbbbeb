"""What `ilora predict` does between finding pictures and writing maps: batches of one size, frames on one scale, files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ilora_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ilora_core.frames import SharedScale
    from ilora_core.predict import Predictor

__all__ = ["Drawing", "Writer", "samples_of", "with_their_folder"]

Drawn = Iterator[tuple[str, Mapping[str, "Tensor"]]]


@dataclass
class Drawing:
    """Maps of pictures, in order, and what became of those that could not be drawn.

    batch       so many pictures of one size, or tiles, at once
    failed      path -> why
    inversions  key -> PSNR in dB, of generators that can only approximate a picture
    """

    drawer: Predictor
    pictures: Mapping[str, Path]
    process: str
    overlap: float
    batch: int
    failed: dict[str, str] = field(default_factory=dict)
    inversions: dict[str, float] = field(default_factory=dict)

    def of(self, keys: Sequence[str]) -> Drawn:
        """(key, maps by name, each (C,H,W)); a picture that cannot be read has no maps."""
        waiting: list[tuple[str, Tensor]] = []
        for key in keys:
            picture = self._read(key)
            if waiting and (picture is None or picture.shape != waiting[0][1].shape or len(waiting) == self.batch):
                yield from self._draw(waiting)
                waiting = []
            if picture is None:
                yield key, {}
            else:
                waiting.append((key, picture))
        if waiting:
            yield from self._draw(waiting)

    def on_one_scale(self, keys: Sequence[str], scale: SharedScale, out: Path) -> Drawn:
        """As `of`, with the relative maps of each folder's pictures brought to one scale."""
        for _, frames in groupby(keys, key=lambda key: self.pictures[key].parent):
            yield from scale(self.of(list(frames)), out)

    def _read(self, key: str) -> Tensor | None:
        from ilora_core.maps_io import read_picture

        try:
            return read_picture(self.pictures[key])
        except DataError as error:
            self.failed[str(self.pictures[key])] = str(error)
            return None

    def _draw(self, waiting: Sequence[tuple[str, Tensor]]) -> Drawn:
        import torch

        pictures = torch.stack([picture for _, picture in waiting])
        maps = self.drawer(pictures, process=self.process, overlap=self.overlap, batch=self.batch)
        for index, (key, _) in enumerate(waiting):
            if self.drawer.psnr_db is not None:
                self.inversions[key] = round(self.drawer.psnr_db[index], 2)
            yield key, {name: value[index] for name, value in maps.items()}


class Writer:
    """Where maps go, and whether they are there. scale: how frames on one scale are shown."""

    def __init__(self, out: Path, formats: Sequence[str], frame: str, *, preview: bool):
        self.out, self.formats, self.frame, self.preview = out, formats, frame, preview
        self.scale: SharedScale | None = None

    def complete(self, key: str, names: Iterable[str]) -> bool:
        """Whether every map of a picture exists."""
        return all(path.is_file() for name in names for path in self._paths(key, name))

    def write(self, key: str, name: str, value: Tensor, drawer: Predictor) -> None:
        """One map (C,H,W) in every format, each file whole or not at all; the map "" is a picture."""
        import torch

        from ilora_core.maps_io import write_map, write_picture, write_preview

        if not name:
            write_picture(self.out / "pictures" / key, value, format="png8")
            return
        intrinsic, valid = drawer.intrinsics[name], torch.ones_like(value[:1], dtype=torch.bool)
        shown = self.scale.shown(intrinsic, value) if self.scale else (intrinsic, value)
        *paths, last = self._paths(key, name)
        for path in paths if self.preview else [*paths, last]:
            meant, stored = shown if path.suffix == ".png" else (intrinsic, value)
            write_map(path, stored, valid, meant, frame=self.frame)
        if self.preview:
            write_preview(last, shown[1], valid, shown[0], frame=self.frame)

    def _paths(self, key: str, name: str) -> list[Path]:
        # Not with_suffix: a key may hold dots.
        paths = [self.out / name / f"{key}.{suffix}" for suffix in self.formats]
        return [*paths, self.out / f"{name}_preview" / f"{key}.png"] if self.preview else paths


def samples_of(drawer: Predictor, n: int, seed: int, todo: Sequence[str]) -> Drawn:
    """Maps and pictures ("") of the generator's own samples."""
    codes = drawer.generator.sample(n, seed=seed)
    for index in range(n):
        key = f"sample-{seed}-{index:06d}"
        if key in todo:
            one = {name: value if len(value) == 1 else value[index : index + 1] for name, value in codes.items()}
            drawn = {name: value[0] for name, value in drawer.from_codes(one).items()}
            yield key, {**drawn, "": drawer.generator.picture(one)[0].float().cpu()}


def with_their_folder(todo: Sequence[str], pictures: Mapping[str, Path]) -> list[str]:
    """All keys of the folders that hold one of `todo`, folder by folder: their scale depends on all their frames."""
    folders = dict.fromkeys(pictures[key].parent for key in todo)
    return [key for folder in folders for key, path in pictures.items() if path.parent == folder]
