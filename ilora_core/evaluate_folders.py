"""Evaluate maps that lie in folders: match files by key, read them, compare, and lay out a report.

    truth = open_truth("data", NORMALS)                    # data/normals, masks from data/mask and data/normals_mask
    methods = {"ours": open_predictions("maps", NORMALS)}  # maps/normals, as `ilora predict` writes it
    match = match_keys(truth, methods)
    results = evaluate_folders(methods, truth, match.keys, protocols=("normals-pooled",))

A key is the path below its folder without the suffix. Every method is evaluated on the pictures that all of them have,
so that methods can be compared picture by picture; what is left out is named in `match`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.evaluate import Comparison, Evaluation, Pair, compare, evaluate_all
from ilora_core.folders import PICTURE_FOLDERS, index_folder, unique_paths
from ilora_core.intrinsics import Intrinsic, resize_map
from ilora_core.maps_io import read_map, read_mask
from ilora_core.metrics.predicted import predicted_kind
from ilora_core.pixels import read_pixels

__all__ = [
    "MapFolder",
    "Match",
    "compare_methods",
    "evaluate_folders",
    "match_keys",
    "open_predictions",
    "open_truth",
    "read_prediction",
]

_MOST_EXACT = (".npy", ".npz", ".exr", ".tif", ".tiff", ".png")


@dataclass(frozen=True)
class MapFolder:
    """The maps of one intrinsic in a folder. frame and scale: as for `ilora_core.maps_io.read_map`.

    predicts  of predicted depth: one of `ilora_core.metrics.predicted.PREDICTS`
    """

    intrinsic: Intrinsic
    files: Mapping[str, Path]
    masks: tuple[Mapping[str, Path], ...] = ()
    frame: str = "opencv"
    scale: float | None = None
    predicts: str = ""

    def read(self, key: str) -> tuple[Tensor, Tensor]:
        """Map (C,H,W) and Valid (1,H,W), masks applied. Raises DataError that names the file."""
        value, valid = read_map(self.files[key], self.intrinsic, frame=self.frame, scale=self.scale)
        for masks in self.masks:
            if key in masks:
                mask = read_mask(masks[key])
                if mask.shape != valid.shape:
                    raise DataError(f"the mask {masks[key]} and its map {self.files[key]} differ in size.")
                valid = valid & mask
        return value, valid


@dataclass(frozen=True)
class Match:
    """Keys that truth and all methods have, and those that one of them lacks: its name -> keys."""

    keys: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]


def open_truth(
    directory: Path | str,
    intrinsic: Intrinsic,
    *,
    mask: Path | str | None = None,
    frame: str = "opencv",
    scale: float | None = None,
) -> MapFolder:
    """True maps in DIR/<intrinsic>, with the masks of a folder of pairs, or in DIR itself. Raises DataError for none.

    Depth stored as a picture (integers without a scale) has lost its metres: its intrinsic is `intrinsic.predicted()`.
    """
    directory = Path(directory)
    files = _files(directory, intrinsic)
    folders = [directory / name for name in ("mask", f"{intrinsic.name}_mask")]
    folders += [Path(mask)] if mask else []
    if mask and not Path(mask).is_dir():
        raise DataError(f"there is no folder of masks {mask}.")
    masks = tuple(unique_paths(folder) for folder in folders if folder.is_dir())
    if intrinsic.kind == "metric" and scale is None and read_pixels(next(iter(files.values()))).top is not None:
        intrinsic = intrinsic.predicted()
    return MapFolder(intrinsic, files, masks, frame, scale)


def open_predictions(
    directory: Path | str,
    intrinsic: Intrinsic,
    *,
    predicts: str | None = None,
    frame: str = "opencv",
    scale: float | None = None,
) -> MapFolder:
    """Predicted maps in DIR/<intrinsic> or in DIR itself. predicts: what depth maps hold; "depth" unless told."""
    files, kind = _files(Path(directory), intrinsic), predicted_kind(intrinsic, predicts)
    reading = intrinsic.predicted()  # not metric: a prediction of 0 or below is a prediction, not a hole
    if kind:
        reading = replace(reading, kind="affine_disparity" if kind == "disparity" else "affine_depth")
    first = next(iter(files.values()))
    if kind == "metric" and scale is None and read_pixels(first).top is not None:
        raise DataError(
            f"{first} holds integers, which know no metres by themselves. Say what one of them is (--scale 0.001 for "
            "millimetres), or that they are pictures of depth (--predicts depth)."
        )
    return MapFolder(reading, files, (), frame, scale, kind)


def match_keys(truth: MapFolder, methods: Mapping[str, MapFolder]) -> Match:
    """The keys to evaluate on. Raises DataError when there is none."""
    sides = {"truth": set(truth.files), **{name: set(maps.files) for name, maps in methods.items()}}
    every, common = set().union(*sides.values()), set.intersection(*sides.values())
    if not common:
        examples = ", ".join(f"{name} has {min(keys)!r}" for name, keys in sides.items())
        raise DataError(
            f"no key occurs on every side ({examples}); files are matched by their path without the suffix."
        )
    missing = {name: tuple(sorted(every - keys)) for name, keys in sides.items() if every - keys}
    return Match(tuple(sorted(common)), missing)


def evaluate_folders(
    methods: Mapping[str, MapFolder],
    truth: MapFolder,
    keys: Sequence[str],
    *,
    protocols: Sequence[str | None] = (None,),
    resize: bool = False,
    skip_holes: bool = False,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, dict[str, Evaluation]]:
    """Protocol -> method -> Evaluation.

    resize      bring predictions of another size to the truth's
    skip_holes  leave out pixels where a prediction's file holds nothing, instead of refusing it
    """
    by_protocol: dict[str, dict[str, Evaluation]] = {}
    for name, maps in methods.items():
        pairs = _pairs(maps, truth, keys, resize=resize, skip_holes=skip_holes)
        options: dict[str, Any] = {"protocols": protocols, "seed": seed, "resamples": resamples}
        found = evaluate_all(pairs, truth.intrinsic, predicts=maps.predicts or None, **options)
        for protocol, evaluation in found.items():
            by_protocol.setdefault(protocol, {})[name] = evaluation
    return by_protocol


def compare_methods(results: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Comparison]:
    """The first method against each other one, by each protocol's first figure: "a against b" -> Comparison."""
    comparisons = {}
    for protocol, methods in results.items():
        first, *others = methods
        for other in others:
            label = f"{first} against {other}" + (f" ({protocol})" if len(results) > 1 else "")
            comparisons[label] = compare(methods[first], methods[other])
    return comparisons


def read_prediction(maps: MapFolder, key: str, like: Tensor, *, resize: bool = False) -> tuple[Tensor, Tensor]:
    """A predicted map at the size of the true one, `like`. Raises DataError for another size unless it may resize."""
    value, valid = maps.read(key)
    size = (like.shape[-2], like.shape[-1])
    if value.shape[-2:] == size:
        return value, valid
    if not resize:
        sizes = [f"{t.shape[-1]}x{t.shape[-2]}" for t in (value, like)]
        raise DataError(f"{maps.files[key]} is {sizes[0]}, its truth {sizes[1]}. Allow resizing (--resize) or fix it.")
    resized, still = resize_map(maps.intrinsic, value[None], valid[None], size)
    return resized[0], still[0]


def _pairs(
    predictions: MapFolder, truth: MapFolder, keys: Sequence[str], *, resize: bool, skip_holes: bool
) -> Iterator[Pair]:
    for key in keys:
        true, valid = truth.read(key)
        value, known = read_prediction(predictions, key, true, resize=resize)
        if skip_holes:
            valid = valid & known
        # A hole where the truth is known must not pass for the 0 that the file's reader put there.
        yield key, torch.where(known, value, torch.full_like(value, torch.nan)), true, valid


def _files(directory: Path, intrinsic: Intrinsic) -> dict[str, Path]:
    if not directory.is_dir():
        raise DataError(f"there is no folder {directory}.")
    folder = directory / intrinsic.name if (directory / intrinsic.name).is_dir() else directory
    if folder is directory and any((directory / name).is_dir() for name in PICTURE_FOLDERS):
        raise DataError(f"{directory} holds pictures but no {intrinsic.name}/.")
    # `ilora predict --format npy,png` writes a map twice: the file that says most is read.
    files = {key: min(paths, key=_exactness) for key, paths in index_folder(folder).items()}
    if not files:
        raise DataError(f"there are no maps in {folder}.")
    return files


def _exactness(path: Path) -> int:
    suffix = path.suffix.lower()
    return _MOST_EXACT.index(suffix) if suffix in _MOST_EXACT else len(_MOST_EXACT)
