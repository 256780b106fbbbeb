"""Pictures to learn from: pairs on disk, folders of pictures, tensors in memory, and parts of any source.

Everything is read when it is asked for, one batch at a time, in a fixed order. With `size`, the shorter side is brought
to it (antialiased) and the centre is cut out, as the reference does; a map is resized by its valid pixels only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError, DataError
from ilora_core.folders import find_pictures, infer_intrinsic, load_intrinsic, picture_folder, unique_paths
from ilora_core.intrinsics import Intrinsic, resize_map
from ilora_core.maps_io import read_map, read_mask, read_picture
from ilora_core.pixels import read_pixels
from ilora_core.protocols import Batch, Source

__all__ = [
    "FolderSource",
    "PairsSource",
    "Size",
    "Subset",
    "TensorSource",
    "at_size",
    "in_batches",
    "infer_intrinsic",
    "load_intrinsic",
    "source_keys",
]

Size = int | tuple[int, int] | None
"""Side of a square, (H, W), or None for the pictures' own sizes."""

Sample = tuple[str, Tensor, Mapping[str, tuple[Tensor, Tensor]]]


def source_keys(source: Source) -> tuple[str, ...]:
    """All keys of a source, from its `keys` where it has them, else by going through it once."""
    keys = getattr(source, "keys", None)
    return tuple(keys) if keys is not None else tuple(key for batch in source for key in batch.keys)


class PairsSource:
    """Pictures with their maps, from a folder laid out as in `ilora_core.folders`.

    intrinsics  the maps to read; each has a folder of its name
    size        see `Size`
    frame       the axes that normals are stored in
    scales      intrinsic's name -> physical value of one stored number (depth in millimetres: 0.001)
    missing     "error", or "skip" to leave out pictures that lack a map

    The listing is checked at once and raises DataError; files are read when their batch is due.
    """

    def __init__(
        self,
        directory: Path | str,
        intrinsics: Iterable[Intrinsic],
        *,
        size: Size = None,
        batch_size: int = 8,
        frame: str = "opencv",
        scales: Mapping[str, float] | None = None,
        missing: str = "error",
    ) -> None:
        if missing not in ("error", "skip"):
            raise ConfigError(f"missing is 'error' or 'skip', not {missing!r}.")
        self.directory, self.size, self.batch_size, self.frame = Path(directory), size, batch_size, frame
        self.scales = dict(scales or {})
        self._pictures = unique_paths(picture_folder(directory))
        declared = tuple(intrinsics)
        self._maps = {i.name: _folder_of(self.directory, i) for i in declared}
        self._masks = {i.name: _masks_of(self.directory, i) for i in declared}
        self.keys: Sequence[str] = self._complete(missing)
        self.intrinsics = tuple(self._as_stored(i) for i in declared)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        return in_batches((self._read(key) for key in self.keys), self.batch_size)

    def select(self, keys: Sequence[str]) -> PairsSource:
        """The same folder, these pictures only."""
        return _with_keys(self, keys)

    def _complete(self, missing: str) -> tuple[str, ...]:
        lacking = {key: [n for n, maps in self._maps.items() if key not in maps] for key in self._pictures}
        incomplete = [key for key, names in lacking.items() if names]
        if incomplete and missing == "error":
            first = incomplete[0]
            raise DataError(
                f"{len(incomplete)} of {len(lacking)} pictures in {self.directory} lack a map; {self._pictures[first]} "
                f"has none in {lacking[first][0]}/. Run `ilora doctor {self.directory}` for the whole list."
            )
        complete = tuple(key for key in self._pictures if not lacking[key])
        if not complete:
            raise DataError(f"{self.directory} holds no picture with {' and '.join(self._maps) or 'its maps'}.")
        return complete

    def _as_stored(self, intrinsic: Intrinsic) -> Intrinsic:
        """Depth in integer files without a scale is relative, whatever was declared."""
        first = self._maps[intrinsic.name][self.keys[0]]
        if intrinsic.kind != "metric" or intrinsic.name in self.scales or first.suffix.lower() == ".exr":
            return intrinsic
        return intrinsic if read_pixels(first).top is None else intrinsic.predicted()

    def _read(self, key: str) -> Sample:
        picture = read_picture(self._pictures[key])
        maps = {}
        for intrinsic in self.intrinsics:
            path = self._maps[intrinsic.name][key]
            value, valid = read_map(path, intrinsic, frame=self.frame, scale=self.scales.get(intrinsic.name))
            _check_aspect(path, value, self._pictures[key], picture)
            for masks in self._masks[intrinsic.name]:
                if key in masks:
                    valid = valid & _resized_mask(read_mask(masks[key]), valid)
            maps[intrinsic.name] = (torch.where(valid, value, torch.zeros_like(value)), valid)
        return key, *at_size(picture, maps, self.intrinsics, self.size)


class FolderSource:
    """Pictures without maps: files, folders and globs as `find_pictures` takes them."""

    intrinsics: tuple[Intrinsic, ...] = ()

    def __init__(self, paths: str | Path | Iterable[str | Path], *, size: Size = None, batch_size: int = 8) -> None:
        self._pictures, self.size, self.batch_size = find_pictures(paths), size, batch_size
        self.keys: Sequence[str] = tuple(self._pictures)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        samples = ((key, *at_size(read_picture(self._pictures[key]), {}, (), self.size)) for key in self.keys)
        return in_batches(samples, self.batch_size)

    def select(self, keys: Sequence[str]) -> FolderSource:
        """The same pictures, these only."""
        return _with_keys(self, keys)


class TensorSource:
    """Pictures (N,3,H,W) and maps (N,C,H,W) that are in memory already."""

    def __init__(
        self,
        pictures: Tensor,
        maps: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        *,
        intrinsics: Sequence[Intrinsic] = (),
        keys: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> None:
        self.pictures, self.maps, self.batch_size = pictures, dict(maps or {}), batch_size
        self.intrinsics = tuple(intrinsics)
        self.keys: Sequence[str] = tuple(keys) if keys is not None else tuple(f"{i:06d}" for i in range(len(pictures)))
        if len(self.keys) != len(pictures) or len(set(self.keys)) != len(self.keys):
            raise ConfigError(f"{len(pictures)} pictures need as many keys, each once; got {len(set(self.keys))}.")
        if {i.name for i in self.intrinsics} != set(self.maps):
            raise ConfigError(f"maps {sorted(self.maps)} and intrinsics {[i.name for i in self.intrinsics]} differ.")

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.keys), self.batch_size):
            part = slice(start, start + self.batch_size)
            maps = {name: (value[part], valid[part]) for name, (value, valid) in self.maps.items()}
            yield Batch(tuple(self.keys[part]), self.pictures[part], maps)


class Subset:
    """Some pictures of a source, by key, in the source's order."""

    def __init__(self, source: Source, keys: Iterable[str]) -> None:
        wanted = set(keys)
        self.keys: Sequence[str] = tuple(key for key in source_keys(source) if key in wanted)
        if unknown := sorted(wanted - set(self.keys)):
            raise ConfigError(f"the source has no picture {unknown[0]!r}.")
        select: Callable[[Sequence[str]], Source] | None = getattr(source, "select", None)
        self._source = select(self.keys) if select else source  # a folder need not read what is not wanted
        self.intrinsics = source.intrinsics

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        wanted = set(self.keys)
        for batch in self._source:
            rows = [row for row, key in enumerate(batch.keys) if key in wanted]
            if len(rows) == len(batch.keys):
                yield batch
            elif rows:
                yield _rows(batch, rows)


def _with_keys(source, keys: Sequence[str]):
    part = object.__new__(type(source))
    part.__dict__.update(source.__dict__, keys=tuple(keys))
    return part


def _rows(batch: Batch, rows: list[int]) -> Batch:
    index = torch.tensor(rows)

    def take(x: Tensor) -> Tensor:
        return x if len(x) == 1 < len(batch.keys) else x[index.to(x.device)]

    return replace(
        batch,
        keys=tuple(batch.keys[row] for row in rows),
        pictures=take(batch.pictures),
        maps={name: (take(value), take(valid)) for name, (value, valid) in batch.maps.items()},
        codes=None if batch.codes is None else {name: take(code) for name, code in batch.codes.items()},
    )


def in_batches(samples: Iterable[Sample], batch_size: int) -> Iterator[Batch]:
    """Batches of neighbours of one size; a sample is (key, picture (3,H,W), intrinsic's name -> (Map, Valid))."""
    waiting: list[Sample] = []
    for sample in samples:
        if waiting and (len(waiting) == batch_size or waiting[0][1].shape != sample[1].shape):
            yield _stack(waiting)
            waiting = []
        waiting.append(sample)
    if waiting:
        yield _stack(waiting)


def _stack(samples: list[Sample]) -> Batch:
    names = samples[0][2]
    maps = {
        name: (torch.stack([s[2][name][0] for s in samples]), torch.stack([s[2][name][1] for s in samples]))
        for name in names
    }
    return Batch(tuple(s[0] for s in samples), torch.stack([s[1] for s in samples]), maps)


def at_size(
    picture: Tensor, maps: Mapping[str, tuple[Tensor, Tensor]], intrinsics: Iterable[Intrinsic], size: Size
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Picture (3,H,W) and its maps at one size: cover it, then cut out the centre. Pixels that are not valid do not blend in."""
    height, width = picture.shape[-2:]
    wanted = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    grow = max(wanted[0] / height, wanted[1] / width)
    cover = (max(wanted[0], int(height * grow)), max(wanted[1], int(width * grow)))
    top, left = (round((c - w) / 2) for c, w in zip(cover, wanted, strict=True))
    window = (..., slice(top, top + wanted[0]), slice(left, left + wanted[1]))
    if picture.shape[-2:] != cover:
        picture = F.interpolate(picture[None], cover, mode="bilinear", antialias=True)[0].clamp(0, 1)
    fitted = {}
    for intrinsic in intrinsics:
        value, valid = maps[intrinsic.name]
        value, valid = resize_map(intrinsic, value[None], valid[None], cover)
        fitted[intrinsic.name] = (value[0][window].contiguous(), valid[0][window].contiguous())
    return picture[window].contiguous(), fitted


def _folder_of(directory: Path, intrinsic: Intrinsic) -> dict[str, Path]:
    folder = directory / intrinsic.name
    maps = unique_paths(folder) if folder.is_dir() else {}
    if not maps:
        there = ", ".join(sorted(p.name + "/" for p in directory.iterdir() if p.is_dir()))
        raise DataError(f"there are no maps in {folder}; {directory} holds {there}.")
    return maps


def _masks_of(directory: Path, intrinsic: Intrinsic) -> list[dict[str, Path]]:
    folders = (directory / "mask", directory / f"{intrinsic.name}_mask")
    return [unique_paths(folder) for folder in folders if folder.is_dir()]


def _resized_mask(mask: Tensor, valid: Tensor) -> Tensor:
    """A mask at its map's size; nearest, so that it neither grows nor shrinks."""
    if mask.shape == valid.shape:
        return mask
    return F.interpolate(mask[None].float(), valid.shape[-2:], mode="nearest-exact")[0] > 0.5


def _check_aspect(map_path: Path, value: Tensor, picture_path: Path, picture: Tensor) -> None:
    (h, w), (picture_h, picture_w) = value.shape[-2:], picture.shape[-2:]
    slack = 1.0 / min(h, w) + 1.0 / min(picture_h, picture_w) if (h, w) != (picture_h, picture_w) else 0.0
    if abs((w / h) / (picture_w / picture_h) - 1) > slack:
        raise DataError(f"{map_path} is {w}x{h}, its picture {picture_path} {picture_w}x{picture_h}: not one shape.")
