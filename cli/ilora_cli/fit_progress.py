"""What a running fit shows and leaves behind: a progress bar, preview grids, a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ilora_cli.console import console

if TYPE_CHECKING:
    from ilora_core.config import FitConfig
    from ilora_core.fit import Event, Fitted, Validated

__all__ = ["FitDisplay"]


class FitDisplay:
    """Shows events on the error stream; `finish` writes the report and returns the results as plain data."""

    def __init__(self, config: FitConfig, folder: Path, *, quiet: bool = False, writes: bool = True):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.config, self.folder, self.quiet, self.writes = config, folder, quiet, writes
        self._out = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._out,
            transient=True,
            disable=quiet or not self._out.is_terminal,
        )
        self._task: Any = None
        self._phase = ""
        self._left = [intrinsic.name for intrinsic in config.intrinsics]
        self._shown: dict[str, Validated] = {}
        self._fitted: list[Fitted] = []

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """One event of `ilora_core.fit.fit`."""
        from ilora_core.fit import Fitted, Prepared, Step, Validated

        if isinstance(event, Prepared):
            by = f" with {event.by}" if event.by else ""
            self._phase_of(f"{event.what} pictures{by}", event.total, event.done, "")
        elif isinstance(event, Step):
            every = 1 if event.loss.device.type == "cpu" else 10
            if event.number % every == 0:
                note = f"loss {float(event.loss):.4f}"
                self._phase_of(self._current(), self.config.train.steps, event.number, note)
        elif isinstance(event, Validated):
            self._validated(event)
        elif isinstance(event, Fitted):
            self._fitted.append(event)
            self._say(f"{event.intrinsic}: done, in {event.folder}")

    def finish(self) -> dict[str, Any]:
        """Write the report; the results by intrinsic."""
        if not self.writes:
            return {}
        from ilora_core.fit_report import write_fit_report

        report = write_fit_report(self.folder, self._shown)
        self._say(f"report: {report}")
        results = {
            event.intrinsic: {
                "folder": str(event.folder),
                "best": None
                if event.best is None
                else {"step": event.best.step, "metric": event.best.metric, "value": event.best.value},
            }
            for event in self._fitted
        }
        return {"out": str(self.folder), "report": str(report), "intrinsics": results}

    def _validated(self, event: Validated) -> None:
        from ilora_core.report import grid_png

        if event.value is not None:
            self._say(f"{event.intrinsic}: step {event.step}, {event.metric} = {event.value:.4g}")
        if event.pictures and self.writes:
            self._shown[event.intrinsic] = event
            previews = self.folder / event.intrinsic / "previews"
            grid_png(previews / f"step_{event.step:06d}.png", event.pictures, ("input", "prediction", "target"))

    def _current(self) -> str:
        done = {event.intrinsic for event in self._fitted}
        return next((name for name in self._left if name not in done), "")

    def _phase_of(self, phase: str, total: int, done: int, note: str) -> None:
        if phase != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._phase = self._bar.add_task(phase, total=total, note=note), phase
        self._bar.update(self._task, completed=done, note=note)

    def _say(self, text: str) -> None:
        if not self.quiet:
            self._out.print(text)
