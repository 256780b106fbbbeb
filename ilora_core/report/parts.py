"""What a report is made of: plain data, no drawing.

A report is a title and sections; a section is one of Text, Facts, Table, Grid, Curves, Views and Provenance. Pictures are
tensors (3,H,W) or (1,H,W) in [0,1], sRGB-encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Cell",
    "Curves",
    "Facts",
    "Grid",
    "GridRow",
    "Panel",
    "Picture",
    "Provenance",
    "Report",
    "Section",
    "Series",
    "Table",
    "Text",
    "View",
    "Views",
]


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values, in order."""

    title: str
    items: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A value, what stands small beside it (an interval), and how it is drawn: the best of its row, or a bound."""

    text: str
    detail: str = ""
    best: bool = False
    muted: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under a header. The first `left` columns hold words and are aligned left, the others figures, right.

    groups  words over neighbouring columns, each with how many it spans; of all columns, "" over those without
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    note: str = ""
    left: int = 1
    groups: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Picture:
    """A picture with a line below it, for instance its own error."""

    image: Tensor
    caption: str = ""


@dataclass(frozen=True)
class GridRow:
    """One line of a grid: a label (a picture's key) and one picture per column; None leaves a gap."""

    label: str
    pictures: Sequence[Tensor | Picture | None]


@dataclass(frozen=True)
class Grid:
    """Pictures side by side: input, prediction, target and what else there is."""

    title: str
    columns: Sequence[str]
    rows: Sequence[GridRow]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """A line through (x, y). band: (x, low, high). smooth draws a running mean over the faint original.

    joined=False: points with bars in place of a line with a band, for an x that has no order.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    smooth: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One chart. levels: horizontal lines to compare with. marked: an x to point out (the best step).

    ticks: (x, text) in place of round numbers, for names and for numbers on a scale of one's own.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Mapping[str, float] = field(default_factory=dict)
    log_y: bool = False
    marked: float | None = None
    ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Curves:
    """Charts side by side."""

    title: str
    panels: Sequence[Panel]
    note: str = ""


@dataclass(frozen=True)
class View:
    """A scene to turn with the mouse: the picture on its button, and `ilora_core.viewer.scene_data` of its maps."""

    label: str
    image: Tensor
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Views:
    """Scenes, each drawn when its button is pressed. The only section with scripts; they come once per report."""

    title: str
    views: Sequence[View]
    note: str = ""


@dataclass(frozen=True)
class Provenance:
    """How a thing was made (an artefact's run.json): plain JSON data."""

    title: str
    data: Mapping[str, Any]
    note: str = ""


Section = Text | Facts | Table | Grid | Curves | Views | Provenance


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Report:
    """A title, one sentence on what this is, facts for the header (versions, device, command) and sections."""

    title: str
    sections: Sequence[Section]
    summary: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    when: str = field(default_factory=_now)
