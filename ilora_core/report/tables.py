"""Tables of evaluations: one protocol's figures down and methods across, with intervals; or methods down and the leading
figures of several protocols across.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ilora_core.errors import DataError
from ilora_core.evaluate import Comparison, Evaluation, Figure
from ilora_core.evaluate_results import Results, leading_figures
from ilora_core.report.parts import Cell, Table

__all__ = [
    "comparison_table",
    "decimals_for",
    "evaluation_table",
    "figure_label",
    "licence_table",
    "number",
    "protocols_table",
]

_MOST_DECIMALS = 5
_LABELS = {
    "mean_deg": "mean error",
    "median_deg": "median error",
    "rmse_deg": "RMSE",
    "l1x100": "L1 × 100",
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "mae": "MAE",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "delta1": "δ < 1.25",
    "delta2": "δ < 1.25²",
    "delta3": "δ < 1.25³",
    "silog": "SILog",
    "irmse": "iRMSE",
    "rms01": "RMS in [0,1]",
    "mae01": "MAE in [0,1]",
    "delta1_01": "δ < 1.25 in [0,1]",
    "rms": "RMS",
    "mse": "MSE",
    "si_rms": "si-RMS",
    "si_mse": "si-MSE",
    "lmse": "LMSE",
    "psnr": "PSNR",
}


def evaluation_table(
    methods: Mapping[str, Evaluation],
    *,
    title: str = "",
    figures: Sequence[str] | None = None,
    bounds: Sequence[str] = (),
    note: str = "",
) -> Table:
    """Method's name -> Evaluation, all under one protocol, as one table; the best value of each row is marked.

    figures  which ones, in order; all of them unless given
    bounds   methods that do not compete (a codec's ceiling): drawn muted and never marked
    """
    evaluations = list(methods.values())
    if not evaluations:
        raise DataError("a table of results needs at least one method.")
    first = evaluations[0]
    if odd := [name for name, e in methods.items() if (e.protocol, e.intrinsic) != (first.protocol, first.intrinsic)]:
        raise DataError(
            f"{odd[0]} was evaluated by another protocol than {next(iter(methods))}: one table, one protocol."
        )
    rows = [_row(name, methods, bounds) for name in figures or first.figures]
    counts = " / ".join(dict.fromkeys(str(e.n) for e in evaluations))
    caption = (
        f"{first.intrinsic} · protocol {first.protocol} · {counts} pictures · 95 % bootstrap interval over pictures"
    )
    readings = {method: e.read_as for method, e in methods.items() if e.read_as}
    notes = [part for part in (note, _told("Read as", readings)) if part]
    return Table(title or f"Results: {first.intrinsic}", ("", *methods), rows, caption, " ".join(notes))


def protocols_table(results: Results, *, title: str = "All protocols") -> Table:
    """Protocol -> method -> Evaluation as one row per method: the leading figures of each protocol under its name.

    Each column has its best value marked. Intervals are in the tables of each protocol.
    """
    every = {method: found for methods in results.values() for method, found in methods.items()}
    kinds = {method: found.predicts or "not stated" for method, found in every.items()}
    words = ["", "predicts"] if any(found.predicts for found in every.values()) else [""]
    header, groups, columns = list(words), [("", 1) for _ in words], []
    for protocol, methods in results.items():
        figures = leading_figures(next(iter(methods.values())))
        groups.append((protocol, len(figures)))
        for name in figures:
            label, *cells = _row(name, methods, ())
            header.append(label.text if isinstance(label, Cell) else label)
            known = {method: cell for method, cell in zip(methods, cells, strict=True) if isinstance(cell, Cell)}
            columns.append([replace(known.get(method, Cell("–")), detail="") for method in every])
    rows = [
        [*(method, kinds[method])[: len(words)], *(column[i] for column in columns)] for i, method in enumerate(every)
    ]
    first = next(iter(every.values()))
    caption = f"{first.intrinsic} · {len(results)} protocols on the same predictions · {first.n} pictures"
    return Table(title, header, rows, caption, left=len(words), groups=groups)


def comparison_table(comparisons: Mapping[str, Comparison], *, title: str = "Paired differences") -> Table:
    """ "a against b" -> Comparison, one row each."""
    rows = []
    for name, c in comparisons.items():
        decimals = decimals_for([c.difference, c.low, c.high])
        signed = [_signed(v, decimals) for v in (c.difference, c.low, c.high)]
        verdict = {"a": "better", "b": "worse", "": "undecided"}[c.better]
        difference = Cell(signed[0], f"{signed[1]} … {signed[2]}", best=c.better == "a")
        label = figure_label(c.figure, c.higher_is_better, c.unit)
        rows.append((name, label, c.protocol, verdict, str(c.n), difference))
    note = "Difference of the figures of the same pictures; 95 % bootstrap interval over pictures."
    return Table(title, ("", "figure", "protocol", "verdict", "pictures", "difference"), rows, note=note, left=4)


def licence_table(parts: Sequence[tuple[str, str, str, str]], *, title: str = "Licences") -> Table:
    """(part, name, licence, source) of generator, labeller, data and what else went in."""
    return Table(title, ("part", "name", "licence", "source"), parts, left=4)


def figure_label(name: str, higher_is_better: bool, unit: str = "") -> str:
    """A figure's name for a reader, with its unit and an arrow that points to better."""
    label = _LABELS.get(name)
    if label is None and name.startswith("below_"):
        label = f"below {name[6:].replace('_', '.')}°"
    label = label or name.replace("_", " ")
    return f"{label}{f' ({unit})' if unit else ''} {'↑' if higher_is_better else '↓'}"


def number(value: float, decimals: int | None = None) -> str:
    """A figure with as many decimals as its size deserves; a dash for none."""
    if not math.isfinite(value):
        return "–"
    decimals = decimals_for([value]) if decimals is None else decimals
    return f"{value:.{decimals}f}" if decimals <= _MOST_DECIMALS else f"{value:.1e}"


def _told(what: str, readings: Mapping[str, str]) -> str:
    """One sentence of what was read how, methods of one reading together."""
    if len(set(readings.values())) < 2:
        return "".join(f"{what}: {reading}." for reading in dict.fromkeys(readings.values()))
    methods = {reading: [m for m, said in readings.items() if said == reading] for reading in readings.values()}
    return f"{what}: " + "; ".join(f"{', '.join(names)}: {reading}" for reading, names in methods.items()) + "."


def _signed(value: float, decimals: int) -> str:
    sign = "" if not math.isfinite(value) else "−" if value < 0 else "+"
    return sign + number(abs(value), decimals)


def _row(name: str, methods: Mapping[str, Evaluation], bounds: Sequence[str]) -> list[Cell | str]:
    known = {method: e.figures[name] for method, e in methods.items() if name in e.figures}
    if not known:
        raise DataError(f"no method has the figure {name!r}.")
    spec = next(iter(known.values()))
    decimals = decimals_for([figure.value for figure in known.values()])
    rivals = {method: figure.value for method, figure in known.items() if method not in bounds}
    rivals = {method: value for method, value in rivals.items() if math.isfinite(value)}
    pick = max if spec.higher_is_better else min
    best = pick(rivals.values()) if len(rivals) > 1 else None
    cells: list[Cell | str] = [figure_label(name, spec.higher_is_better, spec.unit)]
    for method in methods:
        winner = best is not None and method in rivals and rivals[method] == best
        cells.append(_cell(known.get(method), decimals, best=winner, muted=method in bounds))
    return cells


def _cell(figure: Figure | None, decimals: int, *, best: bool, muted: bool) -> Cell:
    if figure is None:
        return Cell("–", muted=muted)
    known = math.isfinite(figure.low) and math.isfinite(figure.high)
    detail = f"{number(figure.low, decimals)} … {number(figure.high, decimals)}" if known else ""
    return Cell(number(figure.value, decimals), detail, best, muted)


def decimals_for(values: Sequence[float]) -> int:
    """How many decimals figures of this size deserve, for all of a column."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0:
        return 2
    return (
        1
        if largest >= 100
        else 2
        if largest >= 10
        else 3
        if largest >= 1
        else 4
        if largest >= 0.01
        else 5
        if largest >= 1e-4
        else 9
    )
