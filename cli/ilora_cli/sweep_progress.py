"""What a running sweep shows: how many cells, which one, its steps, and each result as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from ilora_cli.console import console
from ilora_cli.terminal_tables import rich_table

if TYPE_CHECKING:
    from ilora_core.sweep import Finished, Plan, Planned, SweepEvent, Swept, Working

__all__ = ["SweepDisplay", "grid_size"]


def grid_size(plan: Plan) -> str:
    """`adapter.rank 4 × train.seed 3: 12 cells`."""
    axes = " × ".join(f"{axis.name} {len(axis.choices)}" for axis in plan.sweep.axes) or "nothing varied"
    points = f" for {len(plan.points)} points" if len(plan.points) > len(plan.cells) else ""
    return f"{axes}: {len(plan.cells)} cells{points}"


class SweepDisplay:
    """Shows events on the error stream, and at the end the table on the standard output."""

    def __init__(self, plan: Plan, *, quiet: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.plan, self.quiet = plan, quiet
        self._out = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._out,
            transient=True,
            disable=quiet or not self._out.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=None, note="")
        self._done = self._waiting = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: SweepEvent) -> None:
        """One event of `ilora_core.sweep.run_sweep`."""
        from ilora_core.sweep import Failed, Finished, Planned, Started, Working

        if isinstance(event, Planned):
            self._planned(event)
        elif isinstance(event, Started):
            self._bar.update(self._task, note=self._name(event))
        elif isinstance(event, Working):
            self._bar.update(self._task, note=f"{self._name(event)}: {_phase(event)}")
        elif isinstance(event, (Finished, Failed)):
            self._done += 1
            self._bar.update(self._task, completed=self._done)
            told = _figures(event) if isinstance(event, Finished) else f"failed: {event.message}"
            self._say(f"[{self._done}/{self._waiting}] {self._name(event)}: {told}")

    def finish(self, end: Swept) -> None:
        """The table, and where everything is."""
        console().print(rich_table(end.table))
        self._say(f"report: {end.files['report.html']}")
        if end.failed:
            self._say(f"{end.failed} cells failed; the same command tries them again.")

    def _planned(self, event: Planned) -> None:
        self._waiting = len(event.waiting)
        self._bar.update(self._task, total=self._waiting)
        for note in self.plan.notes:
            self._say(note)
        done = len(self.plan.cells) - self._waiting
        self._say(f"{grid_size(self.plan)}; {self._waiting} to do{f', {done} done before' if done else ''}.")

    def _name(self, event: Any) -> str:
        return str(self.plan.points_of(event.cell)[0])

    def _say(self, text: str) -> None:
        if not self.quiet:
            self._out.print(text, markup=False)


def _phase(event: Working) -> str:
    from ilora_core.fit import Prepared, Step

    inner = event.event
    if isinstance(inner, Step):
        return f"step {inner.number} of {event.cell.config.train.steps}"
    return f"{inner.what} {inner.done} of {inner.total}" if isinstance(inner, Prepared) else ""


def _figures(event: Finished) -> str:
    from ilora_core.report.tables import figure_label, number

    parts = []
    for intrinsic, evaluation in event.result.evaluations.items():
        name, figure = next(iter(evaluation.figures.items()))
        label = figure_label(name, figure.higher_is_better, figure.unit)
        parts.append(f"{intrinsic} {label} {number(figure.value)} [{number(figure.low)}, {number(figure.high)}]")
    return f"{'; '.join(parts)}, {event.result.cost['wall_s']:.1f} s"
