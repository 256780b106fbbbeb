"""Compute a study: fill its grids, decide its claims, write what it found.

OUT/cells/…                    the cells of all studies, each computed once (see `ilora_core.sweep.store`)
OUT/<study>/results.json       rows with every figure, costs, claims with their verdicts, the paper's numbers, where it was made
OUT/<study>/report.html        the same for people, with pictures; report.md without
OUT/<study>/<part>-….png       the first test pictures, drawn by every row
OUT/<study>/<part>-….svg       a plot per axis
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ilora_core import __version__
from ilora_core.files import write_json, write_text
from ilora_core.machine import describe_device
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.report import Table, grid_png, versions, write_report
from ilora_core.report.curves import panel_file
from ilora_core.reproduce.markdown import study_markdown
from ilora_core.reproduce.report import pictures_by_test, plots_of, study_report
from ilora_core.reproduce.results import Found, decide, gather
from ilora_core.reproduce.study import Decided, Study
from ilora_core.reproduce.world import World
from ilora_core.runtime import pick_device
from ilora_core.sweep import SweepEvent, plan_sweep
from ilora_core.sweep.cells import Plan
from ilora_core.sweep.run import fill
from ilora_core.sweep.store import Store

__all__ = ["Began", "Reproduced", "plan_study", "reproduce"]


@dataclass(frozen=True)
class Began:
    """A sweep of a part begins: how many of the study's sweeps it is, of how many."""

    part: str
    number: int
    of: int


@dataclass(frozen=True)
class Reproduced:
    """The end: what results.json holds, the tables for people, the files by name, and how many cells failed."""

    study: Study
    results: dict[str, Any]
    found: Sequence[Found]
    decided: Sequence[Decided]
    tables: Sequence[Table]
    files: dict[str, Path]
    failed: int


def plan_study(study: Study, host: PluginHost) -> list[list[Plan]]:
    """The plans of every part's sweeps; raises ConfigError for what cannot be, before anything is loaded."""
    return [[plan_sweep(sweep, host) for _, sweep in part.sweeps] for part in study.parts]


def reproduce(
    study: Study, world: World, out: Path | str, *, on: str = "sequential", host: PluginHost | None = None
) -> Iterator[SweepEvent | Began | Reproduced]:
    """Compute what is missing of a study in `out` and write its results; yields what happens, as `run_sweep` does."""
    host, store = host or load_plugins(), Store(Path(out).resolve())
    plans = plan_study(study, host)
    number, total = 0, sum(map(len, plans))
    for part, own in zip(study.parts, plans, strict=True):
        for plan in own:
            number += 1
            yield Began(part.title, number, total)
            yield from fill(plan, store, on=on, host=host)
    found = [gather(part, own, store) for part, own in zip(study.parts, plans, strict=True)]
    decided = decide(study, found)
    extra = list(study.tables(store.out, host)) if study.tables else []
    extra += [study.summary(decided)] if study.summary else []
    folder = store.out / study.name
    results = _as_json(study, world, found, decided, extra)
    files = {name: folder / name for name in ("results.json", "report.md", "report.html")}
    results = _portable(results, store.out) | {"pictures": _draw(folder, found, store)}
    write_json(files["results.json"], results)
    write_text(files["report.md"], study_markdown(results))
    write_report(files["report.html"], study_report(study, world, found, decided, extra, store))
    failed = sum(1 for f in found for r in f.rows for result in r.row.results if result.status != "finished")
    yield Reproduced(study, results, found, decided, extra, files, failed)


def _as_json(
    study: Study, world: World, found: Sequence[Found], decided: Sequence[Decided], extra: Sequence[Table]
) -> dict[str, Any]:
    return {
        "study": study.name,
        "title": study.title,
        "world": world.name,
        "quick": world.quick,
        "paper": study.paper,
        "about": study.about,
        "ilora": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": describe_device(pick_device(world.device)),
        "versions": versions("diffusers", "transformers", "peft", "accelerate"),
        "parts": [_part_json(f) for f in found],
        "claims": [one.to_json() for one in decided],
        "tables": [asdict(table) for table in extra],
        "published": [asdict(one) for one in study.published],
        "footnotes": list(study.footnotes),
    }


def _part_json(found: Found) -> dict[str, Any]:
    rows = []
    for r in found.rows:
        row = r.row.to_json()
        figures = row["figures"].get(found.intrinsic, {})
        rows.append(
            {
                "labels": dict(r.labels),
                "test": str(r.plan.scoring.held_out),
                "seeds": row["finished"],
                "figures": figures,
                "costs": r.costs,
                "cells": row["cells"],
            }
        )
    own = {"title": found.part.title, "note": found.part.note, "intrinsic": found.intrinsic, "protocol": found.protocol}
    sweeps = [{"labels": dict(labels), **sweep.to_json()} for labels, sweep in found.part.sweeps]
    return {**own, "shown": list(found.figures), "rows": rows, "sweeps": sweeps}


def _portable(data: Any, out: Path) -> Any:
    """The same without this machine's path of the folder that everything is in."""
    if isinstance(data, str):
        return data.replace(str(out), "OUT")
    if isinstance(data, list):
        return [_portable(value, out) for value in data]
    return {k: _portable(v, out) for k, v in data.items()} if isinstance(data, dict) else data


def _draw(folder: Path, found: Sequence[Found], store: Store) -> list[str]:
    """Write pictures and plots; their names, in the order of the parts."""
    names = []
    for part in found:
        stem = re.sub(r"[^a-z0-9]+", "-", part.part.title.lower()).strip("-")
        for index, panel in enumerate(plots_of(part)):
            names.append(f"{stem}-plot-{index + 1}.svg")
            write_text(folder / names[-1], panel_file(panel))
        for index, (_, lines) in enumerate(pictures_by_test(part, store)):
            names.append(f"{stem}-{index + 1}.png")
            columns = [""] * len(lines[0][1])
            grid_png(folder / names[-1], [p for _, p, _ in lines], columns, row_titles=[label for label, _, _ in lines])
    return names
