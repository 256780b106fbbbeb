"""What a sweep leaves beside its cells: sweep.json, table.csv, table.md and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ilora_core import __version__
from ilora_core.files import write_json, write_text
from ilora_core.report import Table, write_report
from ilora_core.sweep.cells import Plan
from ilora_core.sweep.report import sweep_report
from ilora_core.sweep.results import collect, group_rows
from ilora_core.sweep.store import Store
from ilora_core.sweep.tables import as_csv, as_markdown, main_table

__all__ = ["write_outputs"]


def write_outputs(plan: Plan, store: Store) -> tuple[dict[str, Any], Table, dict[str, Path]]:
    """Write them from the cells on the disk: what sweep.json holds, the table, and the files by name."""
    results = collect(plan, store)
    rows = group_rows(plan, results)
    table = main_table(plan, rows)
    data = {
        "ilora": __version__,
        "sweep": plan.sweep.to_json(),
        "scoring": plan.scoring.to_json(),
        "rows": [row.to_json() for row in rows],
        "cells": [
            {"points": [dict(p.labels) for p in plan.points_of(r.cell)], **r.to_json()} for r in results.values()
        ],
    }
    files = {name: store.out / name for name in ("sweep.json", "table.csv", "table.md", "report.html")}
    write_json(files["sweep.json"], data)
    write_text(files["table.csv"], as_csv(plan, rows))
    write_text(files["table.md"], as_markdown(table))
    write_report(files["report.html"], sweep_report(plan, rows, results, store))
    return data, table, files
