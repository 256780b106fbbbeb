"""A sweep's report: what was varied, the table, a plot per axis, the first pictures, what failed, licences.

A plot holds one axis against the headline figure, seeds averaged. The other axes are lines of their own while all of their
combinations fit into one plot; otherwise they stand at their reference values. Each plot's title says which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from ilora_core.report import (
    Curves,
    Facts,
    Grid,
    GridRow,
    Panel,
    Picture,
    Provenance,
    Report,
    Section,
    Series,
    Table,
    licence_table,
    versions,
)
from ilora_core.report.curves import COLOURS
from ilora_core.report.tables import figure_label, number
from ilora_core.sweep.cells import Plan
from ilora_core.sweep.grid import Axis
from ilora_core.sweep.results import Result, Row
from ilora_core.sweep.store import Store
from ilora_core.sweep.tables import describe_scores, headline, intrinsics_of, main_table

__all__ = ["panels", "sweep_report"]

_MOST_ROWS = 12
_LOG = 10  # numbers that span more than this are drawn on a logarithmic axis


def sweep_report(plan: Plan, rows: Sequence[Row], results: Mapping[str, Result], store: Store) -> Report:
    """The report, from what is on the disk."""
    sections: list[Section] = [Facts("What was run", _facts(plan))]
    if intrinsics_of(rows):
        sections.append(main_table(plan, rows))
    if drawn := panels(plan, rows):
        note = f"{describe_scores(plan, rows)}. Bands and bars are the intervals."
        sections.append(Curves("One axis at a time", drawn, note))
    sections += [_grid(plan, rows, name, store) for name in intrinsics_of(rows)]
    if failed := [r for r in results.values() if r.status != "finished"]:
        lines = [("; ".join(str(p) for p in plan.points_of(r.cell)), r.error) for r in failed]
        sections.append(Table("Not finished", ("cell", "why"), lines, left=2))
    sections += [_licences(results), Provenance("How it was made", plan.sweep.to_json())]
    done = sum(1 for r in results.values() if r.status == "finished")
    generators = sorted({cell.config.generator for cell in plan.cells})
    title = f"Sweep over {', '.join(axis.name for axis in plan.sweep.axes) or 'one cell'}"
    drawn_maps = ", ".join(intrinsics_of(rows)) or "nothing"
    summary = f"{drawn_maps} from {', '.join(generators)}: {done} of {len(results)} cells are done."
    return Report(title, sections, summary, versions())


def panels(plan: Plan, rows: Sequence[Row]) -> list[Panel]:
    """A plot per axis and intrinsic."""
    found = (_panel(axis, name, plan, rows) for name in intrinsics_of(rows) for axis in plan.sweep.compared)
    return [panel for panel in found if panel]


def _panel(axis: Axis, intrinsic: str, plan: Plan, rows: Sequence[Row]) -> Panel | None:
    others = [other for other in plan.sweep.compared if other is not axis and len(other.choices) > 1]
    combinations = list(itertools.product(*([choice.label for choice in other.choices] for other in others)))
    about = ""
    if len(combinations) > COLOURS:
        combinations = [tuple(plan.sweep.reference[other.name] for other in others)]
        about = ", at " + ", ".join(f"{other.name} {plan.sweep.reference[other.name]}" for other in others)
    places, scale = _places(axis)
    series = []
    for index, labels in enumerate(combinations):
        held = dict(zip((other.name for other in others), labels, strict=True))
        beside = 0.0 if scale else 0.12 * (index - (len(combinations) - 1) / 2)  # so that bars do not cover each other
        series.append(_series(axis, intrinsic, held, rows, places, beside, joined=bool(scale)))
    if max(len(s.points) for s in series) < 2:
        return None
    name, figure = next(scored for row in rows if (scored := headline(row, intrinsic)))
    return Panel(
        f"{intrinsic} by {axis.name}{about}",
        f"{axis.name}{' (log scale)' if scale == 'log' else ''}",
        figure_label(name, figure.higher_is_better, figure.unit),
        series,
        ticks=[(places[choice.label], choice.label) for choice in axis.choices],
    )


def _series(
    axis: Axis,
    intrinsic: str,
    held: Mapping[str, str],
    rows: Sequence[Row],
    places: Mapping[str, float],
    beside: float,
    *,
    joined: bool,
) -> Series:
    """The rows where the other axes are held, from left to right."""
    found = []
    for row in rows:
        scored = headline(row, intrinsic)
        if scored and all(row.labels[name] == label for name, label in held.items()):
            found.append((places[row.labels[axis.name]] + beside, scored[1]))
    found.sort(key=lambda pair: pair[0])
    points, band = [(x, f.value) for x, f in found], [(x, f.low, f.high) for x, f in found]
    return Series(", ".join(f"{key} {label}" for key, label in held.items()) or intrinsic, points, band, joined=joined)


def _places(axis: Axis) -> tuple[dict[str, float], str]:
    """Label -> x, and the scale: "log" or "linear" where all labels are numbers, "" for names, which stand side by side."""
    try:
        values = {choice.label: float(choice.label.replace(",", "")) for choice in axis.choices}
    except ValueError:
        values = {}
    if not values or not all(map(math.isfinite, values.values())):
        return {c.label: float(i) for i, c in enumerate(axis.choices)}, ""
    if min(values.values()) > 0 and max(values.values()) >= _LOG * min(values.values()):
        return {label: math.log10(value) for label, value in values.items()}, "log"
    return values, "linear"


def _facts(plan: Plan) -> dict[str, str]:
    sweep = plan.sweep
    facts = {key: str(value) for key, value in sweep.base.items()}
    facts |= {f"{axis.name} (varied)": ", ".join(choice.label for choice in axis.choices) for axis in sweep.axes}
    reference = ", ".join(f"{axis.name} {sweep.reference[axis.name]}" for axis in sweep.compared)
    facts |= {"scored on": str(plan.scoring.held_out), "protocol": plan.scoring.protocol or "each intrinsic's default"}
    return facts | ({"reference values": reference} if reference else {}) | {"cells": str(len(plan.cells))}


def _grid(plan: Plan, rows: Sequence[Row], intrinsic: str, store: Store) -> Grid:
    """The first pictures, drawn by the first seed of every row (of so many rows, evenly spread)."""
    able = [row for row in rows if row.finished and intrinsic in row.finished[0].evaluations]
    step = max(1, math.ceil(len(able) / _MOST_ROWS))
    lines: list[GridRow] = []
    truth: Any = None
    for row in able[::step]:
        result = row.finished[0]
        drawn = load_file(store.pictures(result.cell, plan.scoring))
        parts = {part: drawn[f"{intrinsic}.{part}"].float() / 255 for part in ("input", "drawn", "truth")}
        if truth is None:
            lines.append(GridRow("input", list(parts["input"])))
            truth = parts["truth"]
        evaluation = result.evaluations[intrinsic]
        figure = next(iter(evaluation.figures))
        errors = [values[figure] for values in evaluation.pictures.values()]
        pictures = [Picture(p, number(errors[i])) for i, p in enumerate(parts["drawn"][: len(truth)])]
        pictures += [None] * (len(truth) - len(pictures))
        lines.append(GridRow(", ".join(f"{k} {v}" for k, v in row.labels.items()) or "drawn", pictures))
    lines.append(GridRow("truth", list(truth)))
    keys = [str(i + 1) for i in range(len(truth))]
    note = "The first held-out pictures, drawn by the first seed; below each its own error."
    return Grid(f"{intrinsic}: drawn maps", keys, lines, note)


def _licences(results: Mapping[str, Result]) -> Table:
    found = {what: licence for r in results.values() for what, licence in r.facts.get("licences", {}).items()}
    return licence_table([(*what.partition(" ")[::2], licence, "") for what, licence in found.items()])
