"""Look through a folder of pairs before any model loads: every file is opened once, and every fault gets a record.

First the listing (who lacks a partner), then each pair (readable, same shape, in range), then all together (axes,
colours, copies), then the validation folder (nothing in it may be trained on).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ilora_core.axes import AxisEvidence
from ilora_core.errors import DataError
from ilora_core.findings import Finding, Report
from ilora_core.folders import index_folder, infer_intrinsic, map_folders, picture_folder
from ilora_core.intrinsics import BUILT_IN, DEPTH, Intrinsic
from ilora_core.label_cache import picture_key
from ilora_core.map_checks import ColourEvidence, check_axes, check_colour, check_map
from ilora_core.maps_io import decode_map, read_mask, read_picture
from ilora_core.pixels import read_pixels

__all__ = ["inspect_pairs"]


def inspect_pairs(
    directory: Path | str,
    intrinsics: Sequence[Intrinsic] | None = None,
    *,
    validation: Path | str | None = None,
    frame: str = "opencv",
    scales: Mapping[str, float] | None = None,
) -> Report:
    """Check a folder laid out as in `ilora_core.folders`; what is wrong with it comes back, it does not raise.

    intrinsics  the maps to check; None: every folder beside the pictures, undeclared ones as `infer_intrinsic` says
    validation  a folder of pairs or pictures that must not share a picture with this one
    frame, scales  as in `PairsSource`
    """
    visit = _Visit(Path(directory), frame, dict(scales or {}))
    findings = list(visit.run(intrinsics, None if validation is None else Path(validation)))
    order = {"error": 0, "warning": 1}
    return Report(str(directory), visit.pictures, visit.maps, tuple(sorted(findings, key=lambda f: order[f.severity])))


@dataclass
class _Visit:
    """One run through one folder, and what it has seen so far."""

    directory: Path
    frame: str
    scales: dict[str, float]
    pictures: int = 0
    maps: dict[str, int] = field(default_factory=dict)
    axes: AxisEvidence = field(default_factory=AxisEvidence)
    colour: ColourEvidence = field(default_factory=ColourEvidence)
    seen: dict[str, Path] = field(default_factory=dict)
    seen_maps: dict[tuple[str, str], Path] = field(default_factory=dict)
    resized: dict[str, int] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    masks: dict[str, Mapping[str, list[Path]]] = field(default_factory=dict)
    depth: Intrinsic = DEPTH

    def run(self, wanted: Sequence[Intrinsic] | None, validation: Path | None) -> Iterator[Finding]:
        """All findings. Stops early where there is nothing to open."""
        try:
            folder = picture_folder(self.directory)
        except DataError as error:
            yield Finding("error", "layout", str(self.directory), str(error), "See `ilora doctor --help`.")
            return
        intrinsics = []
        for intrinsic, finding in _intrinsics(self.directory, wanted):
            intrinsics += [intrinsic] if intrinsic else []
            if finding:
                yield finding
        listing = {i.name: index_folder(self.directory / i.name) for i in intrinsics}
        pictures = index_folder(folder)
        yield from _check_listing(folder, pictures, listing)
        for key, paths in pictures.items():
            yield from self._pair(
                key, paths[0], {i: listing[i.name][key][0] for i in intrinsics if key in listing[i.name]}
            )
        yield from self._together(validation)

    def _pair(self, key: str, path: Path, maps: Mapping[Intrinsic, Path]) -> Iterator[Finding]:
        try:
            picture = read_picture(path)
        except DataError as error:
            yield _unreadable(path, error)
            picture = None
        if picture is not None:
            self.pictures += 1
            yield from self._picture(path, picture)
        read: dict[str, tuple[Tensor, Tensor]] = {}
        for intrinsic, map_path in maps.items():
            try:
                yield from self._map(key, map_path, intrinsic, picture, path, read)
            except DataError as error:
                yield _unreadable(map_path, error)
        self.axes.add(read.get("normals"), read.get("depth"), self.depth)
        if "albedo" in read and picture is not None and read["albedo"][0].shape == picture.shape:
            self.colour.add(picture, *read["albedo"])

    def _masks(self, folder: str) -> Mapping[str, list[Path]]:
        if folder not in self.masks:
            self.masks[folder] = index_folder(self.directory / folder)
        return self.masks[folder]

    def _picture(self, path: Path, picture: Tensor) -> Iterator[Finding]:
        if bool((picture == picture[:, :1, :1]).all()):
            yield Finding("warning", "constant-picture", str(path), "one colour everywhere", "Remove the pair.")
        digest = picture_key(picture)
        if digest in self.seen:
            told = f"shows exactly what {self.seen[digest].name} shows"
            yield Finding("warning", "duplicate-picture", str(path), told, "Remove one of the two pairs.")
        self.seen.setdefault(digest, path)

    def _map(
        self,
        key: str,
        path: Path,
        intrinsic: Intrinsic,
        picture: Tensor | None,
        picture_path: Path,
        read: dict[str, tuple[Tensor, Tensor]],
    ) -> Iterator[Finding]:
        pixels, scale = read_pixels(path), self.scales.get(intrinsic.name)
        value, valid = decode_map(pixels, intrinsic, path, frame=self.frame, scale=scale)
        self.maps[intrinsic.name] = self.maps.get(intrinsic.name, 0) + 1
        has_holes = not bool(torch.isfinite(torch.from_numpy(pixels.stored)).all())
        self.holes[intrinsic.name] = self.holes.get(intrinsic.name, 0) + has_holes
        for folder in ("mask", f"{intrinsic.name}_mask"):
            if key in self._masks(folder):
                mask = read_mask(self._masks(folder)[key][0])
                valid = valid & mask if mask.shape == valid.shape else valid
        yield from check_map(path, pixels, value, valid, intrinsic, scaled=scale is not None)
        yield from self._copy(path, pixels.stored.tobytes(), intrinsic)
        if picture is not None and (mismatch := self._shape(path, value, picture_path, picture, intrinsic)):
            yield mismatch
            return
        if valid.any():
            read[intrinsic.name] = (value, valid)
            self.depth = intrinsic if intrinsic.name == "depth" else self.depth

    def _copy(self, path: Path, content: bytes, intrinsic: Intrinsic) -> Iterator[Finding]:
        key = (intrinsic.name, hashlib.sha256(content).hexdigest())
        if key in self.seen_maps and intrinsic.encoding in ("unit_vector", "relative_depth", "shading"):
            told = f"is exactly {self.seen_maps[key].name}"
            yield Finding("warning", "duplicate-map", str(path), told, "Was a file copied over another?")
        self.seen_maps.setdefault(key, path)

    def _shape(
        self, path: Path, value: Tensor, picture_path: Path, picture: Tensor, intrinsic: Intrinsic
    ) -> Finding | None:
        (h, w), (ph, pw) = value.shape[-2:], picture.shape[-2:]
        if (h, w) == (ph, pw):
            return None
        if abs((w / h) / (pw / ph) - 1) > 1 / min(h, w) + 1 / min(ph, pw):
            told = f"is {w}x{h}, its picture {picture_path.name} {pw}x{ph}"
            return Finding("error", "size-mismatch", str(path), told, "Cut or render both to one shape.")
        self.resized[intrinsic.name] = self.resized.get(intrinsic.name, 0) + 1
        return None

    def _together(self, validation: Path | None) -> Iterator[Finding]:
        yield from check_axes(self.axes, str(self.directory / "normals"), str(self.directory / "depth"))
        yield from check_colour(self.colour, str(self.directory / "albedo"))
        for name, count in self.resized.items():
            told = f"{count} maps have another resolution than their picture and will be resized to it"
            yield Finding("warning", "resized", str(self.directory / name), told, "Nothing, if that is intended.")
        for name, count in self.holes.items():
            if count:
                told = f"{count} of {self.maps[name]} maps have NaN or infinite pixels, which count as not valid"
                yield Finding("warning", "invalid-pixels", str(self.directory / name), told, "Nothing, if intended.")
        if validation is not None:
            yield from self._leaks(validation)

    def _leaks(self, validation: Path) -> Iterator[Finding]:
        try:
            folder = validation if not any((validation / n).is_dir() for n in ("pictures", "images", "rgb")) else None
            files = index_folder(folder or picture_folder(validation))
            if not files:
                raise DataError(f"there are no pictures in {validation}.")
        except DataError as error:
            yield Finding("error", "layout", str(validation), str(error), "Give a folder of pairs or of pictures.")
            return
        trained = index_folder(picture_folder(self.directory))
        for key, paths in files.items():
            try:
                digest = picture_key(read_picture(paths[0]))
            except DataError as error:
                yield _unreadable(paths[0], error)
                continue
            if digest in self.seen:
                told = f"shows exactly what {self.seen[digest]} shows"
                yield Finding("error", "leak", str(paths[0]), told, "Take it out of one of the two folders.")
            elif key in trained:
                told = f"has the name of {trained[key][0]}, with other content"
                yield Finding("warning", "same-key", str(paths[0]), told, "Make sure that they are different scenes.")


def _intrinsics(
    directory: Path, wanted: Sequence[Intrinsic] | None
) -> Iterator[tuple[Intrinsic | None, Finding | None]]:
    """The intrinsics to look at, each with a finding where it was guessed or has no maps."""
    for intrinsic in wanted or ():
        found = index_folder(directory / intrinsic.name) if (directory / intrinsic.name).is_dir() else {}
        told = f"there are no maps of {intrinsic.name}"
        fix = f"Put them in {directory / intrinsic.name}, each with its picture's stem."
        yield intrinsic, None if found else Finding("error", "layout", str(directory / intrinsic.name), told, fix)
    if wanted is not None:
        return
    names = [name for name in map_folders(directory) if index_folder(directory / name)]
    if not names:
        fix = f"Put them in {directory / 'normals'} or another folder named after the intrinsic."
        yield None, Finding("error", "layout", str(directory), "there are no folders with maps", fix)
    for name in names:
        try:
            intrinsic, words = infer_intrinsic(directory, name)
        except DataError as error:
            yield None, _unreadable(directory / name, error)
            continue
        fix = "Declare it with --intrinsic FILE.toml if that is wrong."
        told = None if name in BUILT_IN else Finding("warning", "assumed-intrinsic", str(directory / name), words, fix)
        yield intrinsic, told


def _check_listing(
    folder: Path, pictures: Mapping[str, list[Path]], maps: Mapping[str, Mapping[str, list[Path]]]
) -> Iterator[Finding]:
    if not pictures:
        yield Finding("error", "layout", str(folder), "there are no pictures", "Put them there as png, jpg, tif, …")
    for files in (pictures, *maps.values()):
        for paths in files.values():
            if len(paths) > 1:
                told = f"has the stem of {paths[0].name}; which of them is meant?"
                yield Finding("error", "duplicate-stem", str(paths[1]), told, "Remove one of them.")
    for name, files in maps.items():
        for key in pictures:
            if files and key not in files:
                told, fix = f"has no {name}", f"Add {name}/{key} with any readable suffix, or remove the picture."
                yield Finding("error", "missing-map", str(pictures[key][0]), told, fix)
        for key in files:
            if key not in pictures:
                fix = f"Add {folder.name}/{key}, or remove the map."
                yield Finding("error", "missing-picture", str(files[key][0]), "has no picture", fix)


def _unreadable(path: Path, error: DataError) -> Finding:
    return Finding("error", "unreadable", str(path), str(error), "Replace the file, or remove the pair.")
