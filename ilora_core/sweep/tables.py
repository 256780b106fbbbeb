"""The rows of a sweep as a table for people, the same in Markdown, and as a CSV file with every figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from ilora_core.evaluate import Evaluation, Figure
from ilora_core.report.parts import Cell, Table
from ilora_core.report.tables import decimals_for, figure_label, number
from ilora_core.sweep.cells import Plan
from ilora_core.sweep.results import Row

__all__ = ["as_csv", "as_markdown", "describe_scores", "headline", "main_table"]

_COSTS = (
    ("data", "train"),
    ("parameters", "trained"),
    ("parameters", "network"),
    ("parameters", "generator"),
    ("cost", "wall_s"),
    ("cost", "cpu_s"),
    ("cost", "peak_mib"),
    ("cost", "device_peak_mib"),
)
_SHOWN = {"train": "pictures", "trained": "trained", "wall_s": "wall s", "cpu_s": "CPU s", "peak_mib": "peak MiB"}


def headline(row: Row, intrinsic: str) -> tuple[str, Figure] | None:
    """The first figure of the protocol: what tables for people and plots show."""
    return next(iter(row.figures.get(intrinsic, {}).items()), None)


def intrinsics_of(rows: Sequence[Row]) -> list[str]:
    """All that some row has figures of."""
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def main_table(plan: Plan, rows: Sequence[Row], *, title: str = "Results") -> Table:
    """One line per row: the headline of each intrinsic with its interval, the best one marked, and what it cost."""
    axes, names = [axis.name for axis in plan.sweep.compared], intrinsics_of(rows)
    seeds = max(len(row.results) for row in rows) > 1
    costs = [
        (part, name) for part, name in _COSTS if name in _SHOWN and any(r.mean(part, name) is not None for r in rows)
    ]
    header = [*(axes or [""]), *(["seeds"] if seeds else []), *(_title(name, rows) for name in names)]
    columns = [_scores(name, rows) for name in names]
    lines = []
    for index, row in enumerate(rows):
        line: list[Cell | str] = [*(row.labels.values() or ["all"])]
        line += [_counted(row)] if seeds else []
        line += [column[index] for column in columns]
        line += [_plain(row.mean(part, name)) for part, name in costs]
        lines.append(line)
    header += [_SHOWN[name] for _, name in costs]
    return Table(title, header, lines, caption=describe_scores(plan, rows), left=len(axes) or 1)


def describe_scores(plan: Plan, rows: Sequence[Row]) -> str:
    """The stamp under every figure: protocols, pictures, what the interval is over."""
    parts = []
    for name in intrinsics_of(rows):
        protocol, count = _stamp(name, rows)
        parts.append(f"{name} by {protocol} on {count} pictures")
    seeds = any(len(row.results) > 1 for row in rows)
    over = (
        "mean over seeds, 95 % bootstrap interval over pictures and seeds"
        if seeds
        else "95 % bootstrap interval over pictures"
    )
    return f"{'; '.join(parts) or 'no figures'} ({plan.scoring.held_out}); {over}"


def as_csv(plan: Plan, rows: Sequence[Row]) -> str:
    """A line per row with all figures of the protocol, their intervals, and all costs."""
    axes = [axis.name for axis in plan.sweep.compared]
    lines = []
    for row in rows:
        line: dict[str, Any] = {**row.labels, "finished": len(row.finished), "of": len(row.results)}
        for intrinsic, figures in row.figures.items():
            line[f"{intrinsic}.protocol"] = _evaluations(intrinsic, [row])[0].protocol
            for name, figure in figures.items():
                line |= {f"{intrinsic}.{name}": figure.value, f"{intrinsic}.{name}.low": figure.low}
                line |= {f"{intrinsic}.{name}.high": figure.high}
        line |= {name: value for part, name in _COSTS if (value := row.mean(part, name)) is not None}
        lines.append(line)
    header = list(dict.fromkeys([*axes, *(name for line in lines for name in line)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()} for line in lines
    )
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """A report's table in Markdown; the best value of a column is bold."""
    lines = [table.header, ["---"] * table.left + ["---:"] * (len(table.header) - table.left)]
    for row in table.rows:
        cells = [Cell(cell) if isinstance(cell, str) else cell for cell in row]
        marked = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append([f"{text} [{c.detail}]" if c.detail else text for text, c in zip(marked, cells, strict=True)])
    body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    return f"{body}\n\n{table.caption}\n"


def _title(intrinsic: str, rows: Sequence[Row]) -> str:
    name, figure = next(found for row in rows if (found := headline(row, intrinsic)))
    return f"{intrinsic}: {figure_label(name, figure.higher_is_better, figure.unit)}"


def _scores(intrinsic: str, rows: Sequence[Row]) -> list[Cell]:
    figures = [found[1] if (found := headline(row, intrinsic)) else None for row in rows]
    known = [f for f in figures if f is not None and math.isfinite(f.value)]
    decimals = decimals_for([f.value for f in known])
    best = (max if known[0].higher_is_better else min)(f.value for f in known) if len(known) > 1 else None
    cells = []
    for row, figure in zip(rows, figures, strict=True):
        if figure is None:
            cells.append(Cell("–" if row.finished else "failed", muted=True))
            continue
        sure = math.isfinite(figure.low) and math.isfinite(figure.high)
        detail = f"{number(figure.low, decimals)}, {number(figure.high, decimals)}" if sure else ""
        cells.append(Cell(number(figure.value, decimals), detail, best=figure.value == best))
    return cells


def _evaluations(intrinsic: str, rows: Sequence[Row]) -> list[Evaluation]:
    return [r.evaluations[intrinsic] for row in rows for r in row.results if intrinsic in r.evaluations]


def _stamp(intrinsic: str, rows: Sequence[Row]) -> tuple[str, str]:
    found = _evaluations(intrinsic, rows)
    return found[0].protocol, "/".join(dict.fromkeys(str(e.n) for e in found))


def _counted(row: Row) -> str:
    done, asked = len(row.finished), len(row.results)
    return str(done) if done == asked else f"{done} of {asked}"


def _plain(value: float | None) -> str:
    """A cost: whole numbers from ten upwards."""
    return "–" if value is None else f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
