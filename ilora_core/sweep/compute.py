"""One cell from its configuration to its figures: make it unless it is there, score it unless it is scored.

A step of the work that was done stays done: a fit goes on at its last resume point, an artefact that is there is only scored.
"""

from __future__ import annotations

import gc
from collections.abc import Generator as Yields
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ilora_core.config import FitConfig
from ilora_core.data import Prepared
from ilora_core.errors import DataError
from ilora_core.evaluate import Pair, evaluate
from ilora_core.evaluate_report import draw_map
from ilora_core.files import atomic_path, read_json, write_json
from ilora_core.fit import Event, Validated
from ilora_core.intrinsics import Intrinsic
from ilora_core.noise import mix_seeds
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Source
from ilora_core.runtime import pick_device
from ilora_core.sweep.cells import Cell, Scoring
from ilora_core.sweep.cost import Meter
from ilora_core.sweep.drawers import Drawer, DrawsTruth
from ilora_core.sweep.held_out import open_held_out
from ilora_core.sweep.methods import get_method
from ilora_core.sweep.store import Store

__all__ = ["Job", "compute"]

_SHOWN = 4


@dataclass(frozen=True)
class Job:
    """A cell to be computed into a sweep's folder and scored; plain enough to be sent to another process."""

    cell: Cell
    scoring: Scoring
    out: Path

    @property
    def store(self) -> Store:
        """Where it goes."""
        return Store(self.out)


def compute(job: Job, host: PluginHost) -> Iterator[Event]:
    """Do what is left to do. Yields what a fit yields; closing it between two events keeps what is done."""
    cell, store = job.cell, job.store
    try:
        with store.lock(cell), torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seeds(cell.config.train.seed, 0x5EED))  # dropout: the same after whatever came before
            drawer = None if store.made(cell) else (yield from _make(cell, store, host))
            if not store.scored(cell, job.scoring):
                yield from _score(job, host, drawer)
            store.succeed(cell)
    finally:
        gc.collect()  # a generator's cycles must not meet the next one's


def _make(cell: Cell, store: Store, host: PluginHost) -> Yields[Event, None, Drawer]:
    """The artefact, measured, and what draws the first intrinsic with it."""
    method, part = get_method(cell.method), store.part(cell)
    spent = part / "spent.json"  # of the wall and CPU time before the last resume point
    part.mkdir(parents=True, exist_ok=True)
    meter = Meter(read_json(spent) if spent.is_file() else None)
    work = method.make(cell.config, part, host)
    try:
        while True:
            event = next(work)
            if isinstance(event, Validated):
                write_json(spent, meter.read())
            yield event
    except StopIteration as done:
        facts: dict[str, Any] = done.value
    except (GeneratorExit, KeyboardInterrupt):
        work.close()  # saves a resume point
        write_json(spent, meter.read())
        raise
    cost = meter.read()
    drawer = method.open(cell.config, part, cell.config.intrinsics[0].name, host)
    spent.unlink(missing_ok=True)
    store.finish(cell, {**facts, "parameters": dict(drawer.parameters)}, cost)
    return drawer


def _score(job: Job, host: PluginHost, drawer: Drawer | None) -> Yields[Event, None, None]:
    """Figures with intervals of every intrinsic. drawer: of the first one, where it is open already."""
    store, scoring = job.store, job.scoring
    config = _drawn_with(job.cell.config, scoring.draw)
    method, meter = get_method(job.cell.method), Meter()
    drawer = None if scoring.draw else drawer
    found: dict[str, Any] = {}
    shown: dict[str, Tensor] = {}
    for wanted in config.intrinsics:
        drawer = drawer or method.open(config, store.folder(job.cell), wanted.name, host)
        device = pick_device(config.runtime.device)
        source = yield from open_held_out(scoring.held_out, config, size=drawer.size, host=host, device=device)
        yield Prepared("score", 0, len(source))
        intrinsic = _true_intrinsic(source, wanted)
        pairs = _Pairs(source, intrinsic, drawer.reading(intrinsic) if isinstance(drawer, DrawsTruth) else drawer)
        found[wanted.name] = evaluate(pairs, intrinsic, protocol=scoring.protocol or None).to_json()
        shown |= pairs.shown
        drawer = None
    with atomic_path(store.pictures(job.cell, scoring)) as path:
        save_file(shown, path)
    stamp = {**scoring.to_json(), "cost": meter.read(), "evaluations": found}
    write_json(store.evaluation(job.cell, scoring), stamp)


def _drawn_with(config: FitConfig, draw: Mapping[str, Any]) -> FitConfig:
    """The configuration with the settings that count for drawing alone."""
    own = {**config.settings.get("generator", {}), **draw}
    return replace(config, settings={**config.settings, "generator": own}) if draw else config


def _true_intrinsic(source: Source, wanted: Intrinsic) -> Intrinsic:
    for intrinsic in source.intrinsics:
        if intrinsic.name == wanted.name:
            return intrinsic
    raise DataError(f"the held-out pictures have no {wanted.name} maps.")


class _Pairs:
    """Draws a source's pictures as they are asked for; keeps the first few as 8-bit pictures, by name: (N,3,H,W)."""

    def __init__(self, source: Source, intrinsic: Intrinsic, drawer: Drawer):
        self.source, self.intrinsic, self.drawer = source, intrinsic, drawer
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.source:
            drawn = self._as_truth(self.drawer(batch))
            truth, valid = (part.cpu() for part in batch.maps[self.intrinsic.name])
            for row, key in enumerate(batch.keys):
                if len(self._rows) < _SHOWN:
                    self._rows.append(self._row(batch.pictures[row], drawn[row], truth[row], valid[row]))
                yield key, drawn[row], truth[row], valid[row]

    @property
    def shown(self) -> dict[str, Tensor]:
        """`NAME.input`, `NAME.drawn` and `NAME.truth`, of pictures of the first one's size."""
        same = [row for row in self._rows if row[0].shape == self._rows[0][0].shape]
        parts = zip(("input", "drawn", "truth"), zip(*same, strict=True), strict=True)
        return {f"{self.intrinsic.name}.{part}": torch.stack(pictures) for part, pictures in parts}

    def _as_truth(self, drawn: Tensor) -> Tensor:
        """Relative depth, near = large where the truth has it so."""
        flipped = "affine_disparity"
        return drawn if (self.drawer.intrinsic.kind == flipped) == (self.intrinsic.kind == flipped) else 1 - drawn

    def _row(self, picture: Tensor, drawn: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        everywhere = torch.ones_like(valid)
        reading = self.intrinsic.predicted()
        pictures = (
            picture.cpu(),
            draw_map(reading, drawn, everywhere),
            self.intrinsic.to_picture(truth[None], valid[None])[0],
        )
        input_, prediction, target = ((p.float().clamp(0, 1) * 255).round().to(torch.uint8) for p in pictures)
        return input_, prediction, target
