"""What a study leaves for people: tables, plots, pictures, verdicts, the paper's own numbers, one report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ilora_core.evaluate import Figure
from ilora_core.report import Cell, Curves, Grid, GridRow, Panel, Picture, Report, Section, Table, Text, versions
from ilora_core.report.tables import decimals_for, figure_label, number
from ilora_core.reproduce.results import Found, PartRow
from ilora_core.reproduce.study import Decided, Published, Study
from ilora_core.reproduce.world import World
from ilora_core.sweep.report import panels
from ilora_core.sweep.store import Store

__all__ = [
    "best_of_each",
    "claims_table",
    "part_table",
    "pictures_by_test",
    "plots_of",
    "published_table",
    "study_report",
]

_MOST_ROWS = 12

Line = tuple[str, list[Tensor | None], list[str]]
"""A label, pictures (3,H,W), and each one's own first figure."""
_COSTS = {"pictures": "pictures", "trained": "trained", "cpu_s": "CPU s", "peak_mib": "peak MiB"}


def study_report(
    study: Study,
    world: World,
    found: Sequence[Found],
    decided: Sequence[Decided],
    extra: Sequence[Table],
    store: Store,
) -> Report:
    """The whole study as one report."""
    sections: list[Section] = [
        Text("What is asked", (f"The paper: {study.paper}", f"Here: {study.about}", world.about))
    ]
    sections += [claims_table(decided)] if decided else []
    sections += extra
    for part in found:
        sections.append(part_table(part))
        if drawn := plots_of(part):
            sections.append(Curves(f"{part.part.title}: plots", drawn, "Bands and bars are 95 % intervals."))
        sections += [_grid(part, test, lines) for test, lines in pictures_by_test(part, store)]
    sections += [published_table(one) for one in study.published]
    sections += [Text("Footnotes", tuple(study.footnotes))] if study.footnotes else []
    title = f"{study.name}: {study.title}"
    return Report(
        title, sections, f"World: {world.name}{', quick' if world.quick else ''}.", versions("diffusers", "peft")
    )


def part_table(found: Found) -> Table:
    """A row for each point: labels, figures with intervals, the best of each held-out set marked, and what it cost."""
    names = list(dict.fromkeys(key for r in found.rows for key in r.labels))
    known = [_figures(r, found.intrinsic) for r in found.rows]
    tests = [_test(r) for r in found.rows]
    columns = [_column([f.get(name) for f in known], tests) for name in found.figures]
    told = {"tested on": tests} if len(set(tests)) > 1 else {}
    header = [*names, *told, *(_label(name, known) for name in found.figures), *_COSTS.values()]
    seeds = max((len(r.row.results) for r in found.rows), default=1)
    lines = []
    for index, r in enumerate(found.rows):
        costs = [_cost(r.costs.get(name)) for name in _COSTS]
        labels = [*(r.labels.get(name, "") for name in names), *(column[index] for column in told.values())]
        lines.append([*labels, *(column[index] for column in columns), *costs])
    return Table(
        found.part.title, header, lines, caption=_stamp(found, seeds), note=found.part.note, left=len(names) + len(told)
    )


def claims_table(decided: Sequence[Decided]) -> Table:
    """Every claim with its verdict and the difference behind it."""
    lines = []
    for one in decided:
        if one.comparison is None:
            lines.append((one.claim.text, one.verdict, Cell("–", muted=True)))
            continue
        c = one.comparison
        decimals = decimals_for([c.difference, c.low, c.high])
        signed = [f"{'+' if v >= 0 else '−'}{number(abs(v), decimals)}" for v in (c.difference, c.low, c.high)]
        unit = f" {c.unit}" if c.unit else ""
        lines.append((one.claim.text, one.verdict, Cell(f"{signed[0]}{unit}", f"{signed[1]}, {signed[2]}")))
    note = "The first side minus the second, of the same pictures; 95 % bootstrap interval over pictures and seeds."
    return Table("What holds", ("claim", "verdict", "difference"), lines, note=note, left=2)


def published_table(published: Published) -> Table:
    """The paper's own numbers."""
    return Table(
        f"The paper, {published.source}", published.header, [list(r) for r in published.rows], note=published.note
    )


def plots_of(found: Found) -> list[Panel]:
    """A plot per axis, where the part is one grid."""
    if len(found.part.sweeps) != 1 or not found.intrinsic:
        return []
    return panels(found.rows[0].plan, [r.row for r in found.rows])


def pictures_by_test(found: Found, store: Store) -> list[tuple[str, list[Line]]]:
    """Held-out set -> lines of pictures of its first members: the input, evenly spread rows, the truth."""
    lines = ((test, _lines(found, rows, store)) for test, rows in _by_test(found).items())
    return [(test, drawn) for test, drawn in lines if drawn]


def _lines(found: Found, rows: Sequence[PartRow], store: Store) -> list[Line]:
    able = [r for r in rows if r.row.finished and _file(r, store).is_file()]
    lines: list[Line] = []
    truth: list[Tensor | None] = []
    for r in able[:: max(1, math.ceil(len(able) / _MOST_ROWS))]:
        drawn = load_file(_file(r, store))
        parts = {part: drawn[f"{found.intrinsic}.{part}"].float() / 255 for part in ("input", "drawn", "truth")}
        if not lines:
            lines.append(("input", list(parts["input"]), [""] * len(parts["input"])))
            truth = list(parts["truth"])
        evaluation = r.row.finished[0].evaluations[found.intrinsic]
        figure = next(iter(evaluation.figures))
        errors = [number(values[figure]) for values in evaluation.pictures.values()][: len(truth)]
        lines.append((", ".join(filter(None, r.labels.values())), list(parts["drawn"][: len(truth)]), errors))
    return [*lines, ("truth", truth, [""] * len(truth))] if lines else []


def _grid(found: Found, test: str, lines: Sequence[Line]) -> Grid:
    rows = []
    for label, pictures, errors in lines:
        shown = [p if p is None or not e else Picture(p, e) for p, e in zip(pictures, errors, strict=True)]
        rows.append(GridRow(label, shown))
    columns = [str(i + 1) for i in range(len(rows[0].pictures))]
    note = f"The first pictures of {test}, drawn by the first seed; below each its own error."
    return Grid(f"{found.part.title}: drawn maps", columns, rows, note)


def _by_test(found: Found) -> dict[str, list[PartRow]]:
    grouped: dict[str, list[PartRow]] = {}
    for r in found.rows:
        grouped.setdefault(_test(r), []).append(r)
    return grouped


def _test(r: PartRow) -> str:
    """The held-out set: what was tested on another cannot be compared."""
    return str(r.plan.scoring.held_out)


def _file(r: PartRow, store: Store) -> Any:
    return store.pictures(r.row.finished[0].cell, r.plan.scoring)


def _figures(r: PartRow, intrinsic: str) -> Mapping[str, Figure]:
    return r.row.figures.get(intrinsic, {})


def _label(name: str, known: Sequence[Mapping[str, Figure]]) -> str:
    figure = next(f[name] for f in known if name in f)
    return figure_label(name, figure.higher_is_better, figure.unit)


def _column(figures: Sequence[Figure | None], tests: Sequence[str]) -> list[Cell]:
    known = [f for f in figures if f is not None and math.isfinite(f.value)]
    decimals = decimals_for([f.value for f in known])
    values = [f.value if f is not None and math.isfinite(f.value) else None for f in figures]
    best = best_of_each(values, tests, higher=bool(known) and known[0].higher_is_better)
    cells = []
    for figure, most in zip(figures, best, strict=True):
        if figure is None:
            cells.append(Cell("–", muted=True))
            continue
        sure = math.isfinite(figure.low) and math.isfinite(figure.high)
        detail = f"{number(figure.low, decimals)}, {number(figure.high, decimals)}" if sure else ""
        cells.append(Cell(number(figure.value, decimals), detail, best=figure.value == most))
    return cells


def best_of_each(values: Sequence[float | None], tests: Sequence[str], *, higher: bool) -> list[float | None]:
    """For each value the best of its held-out set; None where there is nothing to compare it with."""
    among: dict[str, list[float]] = {}
    for value, test in zip(values, tests, strict=True):
        among.setdefault(test, []).extend([] if value is None else [value])
    return [(max if higher else min)(among[test]) if len(among[test]) > 1 else None for test in tests]


def _stamp(found: Found, seeds: int) -> str:
    tests = ", ".join(_by_test(found))
    over = (
        f"mean over {seeds} seeds, 95 % bootstrap interval over pictures and seeds"
        if seeds > 1
        else "95 % bootstrap interval over pictures"
    )
    return f"{found.intrinsic} by {found.protocol} ({tests}); {over}" if found.intrinsic else "nothing is finished"


def _cost(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
