"""A sweep from its plan to its report, one cell after the other or spread by Ray. It yields what happens, as `fit` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilora_core.errors import ConfigError
from ilora_core.fit import Event
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.report import Table
from ilora_core.sweep.cells import Cell, Plan, plan_sweep
from ilora_core.sweep.compute import Job, compute
from ilora_core.sweep.grid import Sweep
from ilora_core.sweep.output import write_outputs
from ilora_core.sweep.results import Result, read_result
from ilora_core.sweep.store import Store

__all__ = [
    "EXECUTORS",
    "Failed",
    "Finished",
    "Planned",
    "Started",
    "SweepEvent",
    "Swept",
    "Working",
    "fill",
    "run_sweep",
]

EXECUTORS = ("sequential", "ray")


@dataclass(frozen=True)
class Planned:
    """Before anything is loaded: the plan, and the cells that are left to do."""

    plan: Plan
    waiting: tuple[Cell, ...]


@dataclass(frozen=True)
class Started:
    """A cell begins (sequential only)."""

    cell: Cell


@dataclass(frozen=True)
class Working:
    """Something happened in a cell's fit (sequential only)."""

    cell: Cell
    event: Event


@dataclass(frozen=True)
class Finished:
    """A cell is done and scored."""

    cell: Cell
    result: Result


@dataclass(frozen=True)
class Failed:
    """A cell could not be done; the sweep goes on."""

    cell: Cell
    message: str


@dataclass(frozen=True)
class Swept:
    """The end. results: what sweep.json holds; table: its rows for people; files: what was written, by name."""

    results: dict[str, Any]
    table: Table
    files: dict[str, Path]
    failed: int


SweepEvent = Planned | Started | Working | Finished | Failed | Swept


def run_sweep(
    sweep: Sweep | Plan, out: Path | str, *, on: str = "sequential", host: PluginHost | None = None
) -> Iterator[SweepEvent]:
    """Compute what is missing of a sweep in the folder `out`, and write its tables, plots and report there.

    on: "sequential", or "ray": on the cluster of ray.init(), of RAY_ADDRESS, or on a local one that is started for it; its
    workers load the plugins that they find, not `host`.
    Raises ConfigError for a sweep that makes no sense, before anything is loaded. A cell that fails is an event.
    """
    host, store = host or load_plugins(), Store(Path(out).resolve())
    plan = sweep if isinstance(sweep, Plan) else plan_sweep(sweep, host)
    yield from fill(plan, store, on=on, host=host)
    results, table, files = write_outputs(plan, store)
    yield Swept(results, table, files, sum(1 for cell in results["cells"] if cell["status"] != "finished"))


def fill(plan: Plan, store: Store, *, on: str, host: PluginHost) -> Iterator[SweepEvent]:
    """The cells alone: what is missing of a plan is computed into the store; several sweeps may share one."""
    if on not in EXECUTORS:
        raise ConfigError(f"--on is one of {', '.join(EXECUTORS)}, not {on!r}.")
    waiting = tuple(cell for cell in plan.cells if not store.scored(cell, plan.scoring))
    yield Planned(plan, waiting)
    jobs = [Job(cell, plan.scoring, store.out) for cell in waiting]
    if on == "ray" and jobs:
        from ilora_core.sweep.on_ray import spread

        for job, message in spread(jobs):
            yield Failed(job.cell, message) if message else _finished(job)
    elif jobs:
        yield from _in_turn(jobs, host)


def _in_turn(jobs: Sequence[Job], host: PluginHost) -> Iterator[SweepEvent]:
    for job in jobs:
        yield Started(job.cell)
        try:
            for event in compute(job, host):
                yield Working(job.cell, event)
        except Exception as error:
            yield Failed(job.cell, job.store.fail(job.cell, error))
        else:
            yield _finished(job)


def _finished(job: Job) -> Finished:
    return Finished(job.cell, read_result(job.cell, job.scoring, job.store))
