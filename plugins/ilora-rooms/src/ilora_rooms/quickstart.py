"""The quickstart: render, fit, predict, score, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.config import merge_settings
from ilora_core.evaluate import compare
from ilora_core.files import write_json
from ilora_core.fit import Fitted, Validated, fit
from ilora_core.fit_report import curves_of, licences_of
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.report import (
    Grid,
    GridRow,
    Provenance,
    Report,
    Section,
    Text,
    Views,
    comparison_table,
    evaluation_table,
    grid_png,
    versions,
    write_report,
)
from ilora_core.viewer.sections import scene_view, views_section
from ilora_rooms.experiment import Rows, Scores, fit_config, score_adapters, score_controls
from ilora_rooms.generator import rooms
from ilora_rooms.source import RoomsSource

__all__ = ["Settings", "run"]

RATES = {"normals": 5e-3, "depth": 3e-3}
"""Learning rates, chosen on held-out label rooms; the random network is given the same."""
NAMES = tuple(RATES)
_ADAPTER, _RANDOM, _CEILING = "adapter", "random init", "codec ceiling"
_SHOWN = 6


@dataclass(frozen=True)
class Settings:
    """What a quickstart depends on."""

    steps: int
    labels: int = 250
    test: int = 100
    timestep: int | None = None
    seed: int = 0
    device: str = "cpu"
    random_init: bool = False


def run(
    folder: Path, settings: Settings, *, say: Callable[[str], None], host: PluginHost | None = None
) -> dict[str, Any]:
    """Do it all into `folder`; returns the figures as plain data."""
    host = host or load_plugins()
    shutil.rmtree(folder, ignore_errors=True)
    say(f"Rendering {settings.labels} rooms to learn from and {settings.test} to be judged on …")
    labels = Rows.of(RoomsSource(split="labels", n=settings.labels))
    test = Rows.of(RoomsSource(split="test", n=settings.test))
    _fit(folder / "adapters", settings, {}, host, say)
    if settings.random_init:
        say("The same fit on a network that never saw a room …")
        _fit(folder / "random-init", settings, {"random_unet": True}, host, say)
    say("Scoring on unseen rooms …")
    scores = score_controls(rooms(timestep=settings.timestep), labels, test, NAMES)
    for name in NAMES:
        score_adapters(folder / "adapters" / name, test, scores, host, _ADAPTER)
        if settings.random_init:
            score_adapters(folder / "random-init" / name, test, scores, host, _RANDOM)
    return _write(folder, settings, scores, test, say)


def _fit(
    out: Path, settings: Settings, generator: Mapping[str, Any], host: PluginHost, say: Callable[[str], None]
) -> None:
    """One fit per map, since each has its own learning rate, into out/<map>."""
    options = {"timestep": settings.timestep} if settings.timestep is not None else {}
    own = {"steps": settings.steps, "seed": settings.seed, "keep_every": max(1, -(-settings.steps // 5))}
    for name in NAMES:
        train = {**merge_settings("rooms", "rooms", {})["train"], "lr": RATES[name], **own}
        config = fit_config(
            [name],
            labels=settings.labels,
            generator={**generator, **options},
            train=train,
            runtime={"device": settings.device},
        )
        for event in fit(config, out / name, host=host):
            if isinstance(event, Validated) and event.value is not None:
                say(f"  {name}: step {event.step} of {settings.steps}, {event.metric} = {event.value:.3g}")
            elif isinstance(event, Fitted):
                say(f"  {name}: adapter in {event.folder}")


def _write(
    folder: Path, settings: Settings, scores: Mapping[str, Scores], test: Rows, say: Callable[[str], None]
) -> dict[str, Any]:
    from ilora_core.files import read_json

    record = read_json(folder / "adapters" / NAMES[0] / "run.json")
    results = {
        name: {method: evaluation.to_json() for method, evaluation in found.evaluations.items()}
        for name, found in scores.items()
    }
    data = {
        "settings": asdict(settings),
        "recipe": record["config"]["settings"],
        "lr": RATES,
        "versions": versions("diffusers", "peft"),
        "results": results,
    }
    write_json(folder / "results.json", data)
    for name, found in scores.items():
        say(_summary(found))
        columns, rows = _grid(found, test)
        grid_png(folder / f"{name}.png", rows, columns)
    sections = _sections(folder, scores, test, record)
    report = folder / "report.html"
    write_report(report, Report("Rooms: what the generator already knows", sections, summary=_SUMMARY))
    return {"report": str(report), "results": str(folder / "results.json"), **_headline(scores)}


_SUMMARY = (
    "A 5 M parameter latent diffusion model was trained to draw rooms, never to draw a map. A rank-8 adapter on its "
    "attention layers, fitted to a few hundred labelled rooms, makes it draw their surface normals and depth. All scores "
    "are on rooms that neither the generator nor the adapter has seen, against exact maps."
)


def _sections(folder: Path, scores: Mapping[str, Scores], test: Rows, record: Mapping[str, Any]) -> list[Section]:
    sections: list[Section] = []
    for name, found in scores.items():
        figures = ("mean_deg", "median_deg", "below_11_25") if name == "normals" else ("rms01", "delta1_01")
        known = [figure for figure in figures if figure in found.evaluations[_ADAPTER].figures]
        sections.append(evaluation_table(found.evaluations, figures=known or None, bounds=(_CEILING,)))
        others = [m for m in found.evaluations if m not in (_ADAPTER, _CEILING)]
        adapter = found.evaluations[_ADAPTER]
        paired = {f"{name}: adapter against {m}": compare(adapter, found.evaluations[m]) for m in others}
        sections.append(comparison_table(paired, title=f"Paired differences: {name}"))
        columns, rows = _grid(found, test)
        lines = [GridRow(key, row) for key, row in zip(test.keys, rows, strict=False)]
        sections.append(Grid(f"{name} on unseen rooms", columns, lines))
        sections.append(curves_of(folder / "adapters" / name / name / "metrics.jsonl", name))
    sections.append(_views(scores, test))
    note = (
        "The codec ceiling is what the true map loses in the generator's encoder and decoder alone: no method that ends in "
        "that decoder can do better. The mean map looks at no picture."
    )
    return [*sections, Text("How to read this", (note,)), licences_of(record), Provenance("How it was made", record)]


def _views(scores: Mapping[str, Scores], test: Rows) -> Views:
    """The first two test rooms as the adapters draw them, and as they are."""
    drawn, kind = scores["depth"].maps[_ADAPTER], scores["depth"].intrinsic.predicted().kind
    true = {name: torch.where(valid, value, torch.nan) for name, (value, valid) in test.maps.items()}
    views = []
    for i in range(min(2, len(test.keys))):
        picture, normals = test.pictures[i], scores["normals"].maps[_ADAPTER][i]
        views.append(
            scene_view(f"{test.keys[i]}: adapters", picture=picture, depth=drawn[i], depth_kind=kind, normals=normals)
        )
        views.append(
            scene_view(
                f"{test.keys[i]}: truth",
                picture=picture,
                depth=true["depth"][i],
                depth_kind=scores["depth"].intrinsic.kind,
                normals=true["normals"][i],
                albedo=true["albedo"][i].nan_to_num(),
            )
        )
    return views_section(
        views, note="The adapters know no metres: their depth starts at the range that agrees best with their normals."
    )


def _grid(found: Scores, test: Rows) -> tuple[tuple[str, ...], list[list[Tensor]]]:
    """Input, every method, truth, for the first test rooms."""
    truth, valid = test.maps[found.intrinsic.name]
    methods = [method for method in found.maps if method != _CEILING]
    rows = []
    for i in range(min(_SHOWN, len(test.keys))):
        drawn = [found.picture(method, i) for method in methods]
        target = found.intrinsic.to_picture(truth[i : i + 1], valid[i : i + 1])[0]
        rows.append([test.pictures[i], *drawn, target])
    return ("input", *methods, "truth"), rows


def _summary(found: Scores) -> str:
    """One line per method, best last."""
    first = next(iter(found.evaluations[_ADAPTER].figures))
    lines = [f"{found.intrinsic.name} ({found.evaluations[_ADAPTER].protocol}, {first}):"]
    for method, evaluation in found.evaluations.items():
        figure = evaluation.figures[first]
        lines.append(f"  {method:14s} {figure.value:8.3f}   [{figure.low:.3f}, {figure.high:.3f}]")
    return "\n".join(lines)


def _headline(scores: Mapping[str, Scores]) -> dict[str, Any]:
    return {
        name: {
            method: {k: {"value": f.value, "low": f.low, "high": f.high} for k, f in evaluation.figures.items()}
            for method, evaluation in found.evaluations.items()
        }
        for name, found in scores.items()
    }
