"""The report of an evaluation of folders: pictures from best to worst, tables, differences, what was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ilora_core.evaluate import Evaluation
from ilora_core.evaluate_folders import MapFolder, compare_methods, read_prediction
from ilora_core.folders import PICTURE_FOLDERS, unique_paths
from ilora_core.intrinsics import Intrinsic
from ilora_core.maps_io import read_picture
from ilora_core.report import (
    Facts,
    Grid,
    GridRow,
    Picture,
    Report,
    Section,
    comparison_table,
    evaluation_table,
    protocols_table,
    versions,
)
from ilora_core.report.tables import figure_label, number

__all__ = ["draw_map", "evaluation_report", "pictures_beside", "spread_keys", "unmatched_note"]

_ROWS = 6


def evaluation_report(
    results: Mapping[str, Mapping[str, Evaluation]],
    methods: Mapping[str, MapFolder],
    truth: MapFolder,
    *,
    pictures: Mapping[str, Path] | None = None,
    facts: Mapping[str, str] | None = None,
    resize: bool = False,
) -> Report:
    """A report of what `evaluate_folders` found, merged with earlier results or not: those have figures, but no maps.

    pictures  key -> the input, for the grid
    facts     for the last section
    """
    first = next(iter(results.values()))
    name = truth.intrinsic.name
    sections: list[Section] = [_grid(first, methods, truth, pictures or {}, resize=resize)]
    if len(results) > 1:
        sections.append(protocols_table(results))
    sections += [evaluation_table(found, title=f"Results by {protocol}") for protocol, found in results.items()]
    if comparisons := compare_methods(results):
        sections.append(comparison_table(comparisons))
    sections.append(Facts("What was compared", facts or {}))
    n = next(iter(first.values())).n
    summary = f"{', '.join(first)}: {name} of {n} pictures, compared with the truth."
    return Report(f"Evaluation of {name}", sections, summary, versions())


def pictures_beside(directory: Path | str) -> dict[str, Path]:
    """The input pictures of a folder of pairs by key; none where it has no folder of pictures."""
    for name in PICTURE_FOLDERS:
        if (Path(directory) / name).is_dir():
            return unique_paths(Path(directory) / name)
    return {}


def spread_keys(evaluation: Evaluation, figure: str, *, count: int = _ROWS) -> list[str]:
    """Keys from the best to the worst picture, evenly spread over their ranks: not a choice of nice ones."""
    better_first = sorted(
        evaluation.pictures,
        key=lambda key: evaluation.pictures[key][figure],
        reverse=evaluation.figures[figure].higher_is_better,
    )
    last = len(better_first) - 1
    ranks = dict.fromkeys(round(i * last / max(1, count - 1)) for i in range(count))
    return [better_first[rank] for rank in ranks]


def draw_map(intrinsic: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    """A map (C,H,W) as a picture (3,H,W). Relative depth within [0,1] is drawn as it is, not stretched again."""
    known = value[valid.expand_as(value)]
    within = known.numel() and known.min() >= -0.25 and known.max() <= 1.25
    if intrinsic.encoding == "relative_depth" and within:
        near = value if intrinsic.kind == "affine_disparity" else 1 - value
        return torch.where(valid, near, torch.zeros_like(near)).clamp(0, 1).expand(3, -1, -1)
    return intrinsic.to_picture(value[None], valid[None])[0]


def _grid(
    results: Mapping[str, Evaluation],
    methods: Mapping[str, MapFolder],
    truth: MapFolder,
    pictures: Mapping[str, Path],
    *,
    resize: bool,
) -> Grid:
    leader = next(iter(results.values()))
    figure, spec = next(iter(leader.figures.items()))
    keys = spread_keys(leader, figure)
    rows = [_row(key, figure, results, methods, truth, pictures, resize=resize) for key in keys]
    columns = (*(("input",) if pictures else ()), *methods, "truth")
    label = figure_label(figure, spec.higher_is_better, spec.unit)
    note = f"From the best to the worst picture of {next(iter(methods))}, evenly spread; below each: {label}."
    return Grid("Maps", columns, rows, note)


def _row(
    key: str,
    figure: str,
    results: Mapping[str, Evaluation],
    methods: Mapping[str, MapFolder],
    truth: MapFolder,
    pictures: Mapping[str, Path],
    *,
    resize: bool,
) -> GridRow:
    true, valid = truth.read(key)
    cells: list[Tensor | Picture | None] = []
    if pictures:
        cells.append(read_picture(pictures[key]) if key in pictures else None)
    for name, maps in methods.items():
        value, known = read_prediction(maps, key, true, resize=resize)
        cells.append(Picture(draw_map(maps.intrinsic, value, known), number(results[name].pictures[key][figure])))
    target = truth.intrinsic.to_picture(true[None], valid[None])[0]
    return GridRow(key, (*cells, target))


def unmatched_note(missing: Mapping[str, Sequence[str]]) -> str:
    """One line on what was left out; empty when nothing was."""
    parts = [f"{name} lacks {len(keys)} (such as {keys[0]})" for name, keys in missing.items()]
    return f"left out: {'; '.join(parts)}" if parts else ""
