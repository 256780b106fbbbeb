"""From finished cells to what a study found: rows of each part, and each claim's verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ilora_core.errors import ConfigError, DataError
from ilora_core.reproduce.study import Claim, Decided, Part, Study
from ilora_core.sweep.average import contrast
from ilora_core.sweep.cells import Plan
from ilora_core.sweep.results import Row, collect, group_rows
from ilora_core.sweep.store import Store

__all__ = ["COSTS", "Found", "PartRow", "decide", "gather"]

COSTS = {
    "pictures": ("data", "train"),
    "trained": ("parameters", "trained"),
    "network": ("parameters", "network"),
    "generator": ("parameters", "generator"),
    "cpu_s": ("cost", "cpu_s"),
    "wall_s": ("cost", "wall_s"),
    "peak_mib": ("cost", "peak_mib"),
    "device_peak_mib": ("cost", "device_peak_mib"),
}
"""A cost's name -> where a row has it."""


@dataclass(frozen=True)
class PartRow:
    """A row with all of its labels, and the plan that it comes from."""

    labels: Mapping[str, str]
    row: Row
    plan: Plan

    @property
    def costs(self) -> dict[str, float]:
        """Means over seeds; what is not known is left out."""
        found = {name: self.row.mean(*where) for name, where in COSTS.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Found:
    """A part with its rows."""

    part: Part
    rows: Sequence[PartRow]

    @property
    def intrinsic(self) -> str:
        """The one that all rows draw; "" while nothing is finished."""
        return next((name for r in self.rows for name in r.row.figures), "")

    @property
    def protocol(self) -> str:
        """By which all rows were judged."""
        evaluations = (r.row.finished[0].evaluations for r in self.rows if r.row.finished)
        return next((e[self.intrinsic].protocol for e in evaluations if self.intrinsic in e), "")

    @property
    def figures(self) -> Sequence[str]:
        """The figures to be shown."""
        known = next((list(r.row.figures[self.intrinsic]) for r in self.rows if self.intrinsic in r.row.figures), [])
        return [name for name in self.part.figures if name in known] or known[:3]

    def row(self, labels: Mapping[str, str]) -> PartRow:
        """The one row with these labels. Raises ConfigError for none and for several."""
        found = [r for r in self.rows if all(r.labels.get(key) == value for key, value in labels.items())]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} rows of {self.part.title!r} are {dict(labels)}.")
        return found[0]


def gather(part: Part, plans: Sequence[Plan], store: Store) -> Found:
    """The rows of a part from the cells on the disk. Raises DataError where they were not judged alike."""
    rows = []
    for (labels, _), plan in zip(part.sweeps, plans, strict=True):
        results = collect(plan, store)
        rows += [PartRow({**labels, **row.labels}, row, plan) for row in group_rows(plan, results)]
    judged = {(name, e.protocol) for r in rows for f in r.row.finished for name, e in f.evaluations.items()}
    if len(judged) > 1:
        unlike = " and ".join(f"{name} by {protocol}" for name, protocol in sorted(judged))
        raise DataError(f"one table cannot hold {unlike}.")
    return Found(part, rows)


def decide(study: Study, found: Sequence[Found]) -> list[Decided]:
    """Every claim of the study with its verdict."""
    by_title = {f.part.title: f for f in found}
    return [_decide(claim, by_title[claim.part]) for claim in study.claims]


def _decide(claim: Claim, found: Found) -> Decided:
    a, b = (
        [result.evaluations[found.intrinsic] for result in found.row(labels).row.finished]
        for labels in (claim.better, claim.worse)
    )
    if not a or not b:
        return Decided(claim, "not computed", None)
    compared = contrast(a, b, claim.figure)
    verdict = {"a": "holds", "b": "the other way round", "": "undecided"}[compared.better]
    return Decided(claim, verdict, compared)
