"""From a Report to one self-contained HTML file: pictures as data URIs, charts as inline SVG, no request.

There is a script only in a report with Views: it opens the viewer, whose page is in the report once, deflated.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ilora_core.errors import DataError
from ilora_core.files import write_text
from ilora_core.report.curves import panel_svg
from ilora_core.report.parts import Cell, Grid, Picture, Provenance, Report, Section, Table, Views
from ilora_core.report.pictures import data_uri

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["render_report", "versions", "write_report"]

_LONGEST_FACT = 160


def write_report(path: Path | str, report: Report) -> None:
    """Write a report as HTML, atomically. Raises DataError when a grid's or table's rows do not fit its header."""
    write_text(path, render_report(report))


def render_report(report: Report) -> str:
    """A report as HTML text."""
    environment = Environment(
        loader=PackageLoader("ilora_core.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for section in report.sections:
        _check(section)
    environment.filters |= {"picture": _picture, "chart": lambda p: Markup(panel_svg(p)), "cell": _cell}
    environment.filters |= {"flat": lambda data: list(_flat(data)), "pretty": _pretty}
    environment.filters |= {"scene": _scene}
    template = environment.get_template("report.html.j2")
    kinds = [type(section).__name__.lower() for section in report.sections]
    viewer = _viewer() if any(isinstance(section, Views) for section in report.sections) else None
    return template.render(report=report, sections=list(zip(kinds, report.sections, strict=True)), viewer=viewer)


def versions(*distributions: str) -> dict[str, str]:
    """Versions of ilora, Python and the named distributions that are installed, for a report's header."""
    found = {"python": python_version()}
    for name in ("ilora", "torch", *distributions):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _check(section: Section) -> None:
    if isinstance(section, Grid):
        for row in section.rows:
            _same(section.title, row.label, len(row.pictures), len(section.columns))
    if isinstance(section, Table):
        if section.groups:
            _same(section.title, "the line over its header", sum(n for _, n in section.groups), len(section.header))
        for index, row in enumerate(section.rows):
            _same(section.title, f"row {index}", len(row), len(section.header))


def _same(title: str, row: str, has: int, wants: int) -> None:
    if has != wants:
        raise DataError(f"report section {title!r}: {row} has {has} columns, its header {wants}.")


def _picture(picture: Tensor | Picture) -> dict[str, Any]:
    caption = picture.caption if isinstance(picture, Picture) else ""
    uri, width, height = data_uri(picture.image if isinstance(picture, Picture) else picture)
    return {"uri": uri, "width": width, "height": height, "caption": caption, "small": max(width, height) <= 128}


def _viewer() -> dict[str, str]:
    """The viewer's page, deflated, with the name of the place for a scene in it."""
    from ilora_core.viewer.document import SCENE_SLOT, page_html  # torch behind it: only for reports with views

    packed = base64.b64encode(zlib.compress(page_html().encode(), 9)).decode()
    return {"page": packed, "slot": SCENE_SLOT}


def _scene(data: Mapping[str, Any]) -> Markup:
    from ilora_core.viewer.document import scene_json

    return Markup(scene_json(data))


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Short values with dotted names; what is long or deep is left to the full JSON below them."""
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and prefix.count(".") < 2:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            text = ", ".join(map(str, value))
            if len(text) <= _LONGEST_FACT and not any(isinstance(v, Mapping | list) for v in value):
                yield name, text
        elif value not in (None, "") and not isinstance(value, Mapping) and len(str(value)) <= _LONGEST_FACT:
            yield name, str(value)


def _pretty(section: Provenance) -> str:
    return json.dumps(section.data, indent=2, ensure_ascii=False, default=str)
