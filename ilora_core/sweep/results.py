"""A sweep's results as they are on the disk, by cell, and by row: a point of the compared axes, over seeds the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ilora_core.evaluate import Evaluation, Figure
from ilora_core.files import read_json
from ilora_core.sweep.average import average
from ilora_core.sweep.cells import Cell, Plan, Scoring
from ilora_core.sweep.store import Store

__all__ = ["Result", "Row", "collect", "group_rows", "read_result"]


@dataclass(frozen=True)
class Result:
    """One cell. status: "finished", "failed" or "missing"; evaluations by intrinsic; cost and facts as in the cell's files."""

    cell: Cell
    status: str
    error: str = ""
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data: figures without every picture's, which are in the cell's own file."""
        figures = {
            name: {key: value for key, value in evaluation.to_json().items() if key != "pictures"}
            for name, evaluation in self.evaluations.items()
        }
        return {
            "hash": self.cell.hash,
            "method": self.cell.method,
            "status": self.status,
            **({"error": self.error} if self.error else {}),
            "evaluations": figures,
            "cost": dict(self.cost),
            "parameters": self.facts.get("parameters", {}),
            "data": self.facts.get("data", {}),
        }


@dataclass(frozen=True)
class Row:
    """A point of the compared axes. figures: intrinsic -> name -> mean over seeds; results: every seed's, failed ones too."""

    labels: Mapping[str, str]
    results: Sequence[Result]
    figures: Mapping[str, Mapping[str, Figure]]

    @property
    def finished(self) -> list[Result]:
        """The results that have figures."""
        return [result for result in self.results if result.status == "finished"]

    def mean(self, part: str, name: str) -> float | None:
        """The mean over seeds of a number in `cost`, or in the facts' `parameters` or `data`."""
        groups = [r.cost if part == "cost" else r.facts.get(part, {}) for r in self.finished]
        values = [group[name] for group in groups if name in group]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        figures = {
            intrinsic: {name: {k: None if v != v else v for k, v in asdict(f).items()} for name, f in found.items()}
            for intrinsic, found in self.figures.items()
        }
        cells = [result.cell.hash for result in self.results]
        return {"labels": dict(self.labels), "finished": len(self.finished), "cells": cells, "figures": figures}


def collect(plan: Plan, store: Store) -> dict[str, Result]:
    """Hash -> result, for every cell of the plan."""
    return {cell.hash: read_result(cell, plan.scoring, store) for cell in plan.cells}


def group_rows(plan: Plan, results: Mapping[str, Result]) -> list[Row]:
    """The rows, in the order of the grid."""
    compared = [axis.name for axis in plan.sweep.compared]
    grouped: dict[tuple[str, ...], list[Result]] = {}
    for point, cell in plan.points:
        grouped.setdefault(tuple(point.labels[name] for name in compared), []).append(results[cell.hash])
    rows = []
    for labels, found in grouped.items():
        once = list({result.cell.hash: result for result in found}.values())
        rows.append(Row(dict(zip(compared, labels, strict=True)), once, _averaged(once)))
    return rows


def _averaged(results: Sequence[Result]) -> dict[str, dict[str, Figure]]:
    by_intrinsic: dict[str, list[Evaluation]] = {}
    for result in results:
        for name, evaluation in result.evaluations.items():
            by_intrinsic.setdefault(name, []).append(evaluation)
    return {name: average(evaluations) for name, evaluations in by_intrinsic.items()}


def read_result(cell: Cell, scoring: Scoring, store: Store) -> Result:
    """What the disk has of a cell."""
    if store.scored(cell, scoring):
        stamp = read_json(store.evaluation(cell, scoring))
        evaluations = {name: Evaluation.from_json(data) for name, data in stamp["evaluations"].items()}
        facts, cost = read_json(store.folder(cell) / "cell.json"), read_json(store.folder(cell) / "cost.json")
        return Result(cell, "finished", "", evaluations, {**cost, "score_wall_s": stamp["cost"]["wall_s"]}, facts)
    if store.failure(cell).is_file():
        return Result(cell, "failed", read_json(store.failure(cell))["message"])
    return Result(cell, "missing", "it was not computed")
