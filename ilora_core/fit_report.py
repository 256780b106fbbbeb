"""A fit's report: previews of the last validation, loss and metric curves, scores, provenance, licences.

Where normals and depth were fitted together, the first held-out pictures can be seen in three dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ilora_core.files import read_json
from ilora_core.intrinsics import Intrinsic
from ilora_core.report import (
    Curves,
    Grid,
    GridRow,
    Panel,
    Provenance,
    Report,
    Section,
    Series,
    Table,
    Views,
    licence_table,
    write_report,
)
from ilora_core.validation import Validated
from ilora_core.viewer.sections import MOST_VIEWS, scene_view, views_section

__all__ = ["curves_of", "licences_of", "write_fit_report"]

_COLUMNS = ("input", "prediction", "target")


def write_fit_report(folder: Path, shown: Mapping[str, Validated]) -> Path:
    """Write `folder/report.html` from what a fit left there. shown: the last validation of each intrinsic."""
    record = read_json(folder / "run.json")
    names = [entry["name"] for entry in record["config"]["intrinsics"]]
    finished = {name: read_json(folder / name / "run.json") for name in names if (folder / name / "run.json").is_file()}
    sections: list[Section] = [_scores(finished)]
    for name in finished:
        if name in shown and shown[name].pictures:
            rows = [GridRow(str(i), row) for i, row in enumerate(shown[name].pictures)]
            sections.append(Grid(f"{name}: held-out pictures", _COLUMNS, rows, note=f"after step {shown[name].step}"))
        sections.append(curves_of(folder / name / "metrics.jsonl", name))
    if views := _views(shown, [Intrinsic.from_json(entry) for entry in record["config"]["intrinsics"]]):
        sections.append(views)
    sections += [licences_of(record), Provenance("How it was made", record)]
    path = folder / "report.html"
    write_report(path, Report(f"{', '.join(names)} from {record['generator']['name']}", sections))
    return path


def _views(shown: Mapping[str, Validated], intrinsics: Sequence[Intrinsic]) -> Views | None:
    """Prediction and target of the first held-out pictures, where the fit has normals and depth of the same ones."""
    by_encoding = {i.encoding: i for i in intrinsics if i.name in shown and shown[i.name].pictures}
    normals, depth = by_encoding.get("unit_vector"), by_encoding.get("relative_depth")
    if normals is None or depth is None:
        return None
    views = []
    for number, (of_normals, of_depth) in enumerate(
        zip(shown[normals.name].pictures, shown[depth.name].pictures, strict=False)
    ):
        if not torch.equal(of_normals[0], of_depth[0]):
            return None
        for what, column in (("prediction", 1), ("target", 2)):
            views.append(
                scene_view(
                    f"{number}: {what}",
                    picture=of_normals[0],
                    depth=depth.from_picture(of_depth[column][None])[0],
                    depth_kind=depth.predicted().kind,
                    normals=normals.from_picture(of_normals[column][None])[0],
                )
            )
    return views_section(
        views[:MOST_VIEWS], note="Both as pictures hold them: depth is relative, its range the one that agrees best."
    )


def licences_of(record: Mapping[str, Any]) -> Table:
    """Generator, labeler and data with their licences and where they came from."""
    served = record["generator"].get("provenance", {})
    origin = str(served.get("served_by") or served.get("weights") or "")
    parts = [
        (*what.partition(" ")[::2], licence, origin if what.startswith("generator") else "")
        for what, licence in record["licences"].items()
    ]
    return licence_table(parts)


def curves_of(path: Path, name: str) -> Curves:
    """Loss and validation metric over steps, from a metrics.jsonl."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    series: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if key not in ("step", "lr") and value is not None:
                series.setdefault(key, []).append((line["step"], value))
    panels = [Panel(key, "step", key, (Series(name, points, smooth=key == "loss"),)) for key, points in series.items()]
    return Curves(f"{name}: training", panels)


def _scores(finished: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, record in finished.items():
        best = record.get("best") or {}
        value = best.get("value")
        shown = f"{value:.4g}" if value is not None else "not validated"
        rows.append((name, best.get("metric", ""), shown, str(best.get("step", "")), str(record["data"]["train"])))
    header = ("intrinsic", "metric", "validation", "step", "labels")
    return Table(
        "Adapters", header, rows, note="The validation metric of the adapter that was kept, over held-out pictures."
    )
