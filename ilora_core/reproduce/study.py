"""What a reproduction of one table or figure is made of: grids of cells, statements to be checked, the paper's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ilora_core.evaluate import Comparison
from ilora_core.plugins import PluginHost
from ilora_core.report.parts import Table
from ilora_core.sweep import Sweep

__all__ = ["Claim", "Decided", "Part", "Published", "Study"]


@dataclass(frozen=True)
class Published:
    """Numbers as the paper prints them. source: the place in the paper; note: how they can be read beside ours."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement of the form "`better` beats `worse`", about two rows of the part with that title.

    A row is named by some of its labels, as many as tell it from the others. figure: of the protocol; "" = its first.
    """

    text: str
    part: str
    better: Mapping[str, str]
    worse: Mapping[str, str]
    figure: str = ""


@dataclass(frozen=True)
class Decided:
    """A claim and what the pictures say: "holds", "the other way round", "undecided", or "not computed"."""

    claim: Claim
    verdict: str
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        compared = {} if self.comparison is None else self.comparison.to_json()
        return {**asdict(self.claim), "verdict": self.verdict, "comparison": compared}


@dataclass(frozen=True)
class Part:
    """One table: the rows of several sweeps of the same intrinsic by the same protocol, each with labels of its own.

    figures: of the protocol, in this order; () = its first three.
    """

    title: str
    sweeps: Sequence[tuple[Mapping[str, str], Sweep]]
    figures: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Study:
    """A table or figure of the paper, made anew.

    name, title  "table4", and what it is about
    paper        what the paper says there
    about        what is computed here in its place
    parts        the grids
    claims       statements that the grids decide
    published    the paper's own numbers
    footnotes    errors and open points of the paper, and what must not be compared
    tables       further tables that are no grid of fits
    summary      one more table, from the claims' verdicts
    """

    name: str
    title: str
    paper: str
    about: str
    parts: Sequence[Part] = ()
    claims: Sequence[Claim] = ()
    published: Sequence[Published] = ()
    footnotes: Sequence[str] = ()
    tables: Callable[[Path, PluginHost], Sequence[Table]] | None = None
    summary: Callable[[Sequence[Decided]], Table] | None = None
