"""What a running reproduction shows: its sweeps, each cell's steps, each result, and at the end tables and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from ilora_cli.console import console
from ilora_cli.sweep_progress import SweepDisplay
from ilora_cli.terminal_tables import rich_table

if TYPE_CHECKING:
    from ilora_core.reproduce import Reproduced, Study

__all__ = ["StudyDisplay"]


class StudyDisplay:
    """Shows events on the error stream, and at the end the tables on the standard output."""

    def __init__(self, study: Study, *, quiet: bool):
        self.study, self.quiet = study, quiet
        self._out = console(stderr=True)
        self._sweep: SweepDisplay | None = None
        self._part = ""

    def __enter__(self) -> Self:
        self._say(f"{self.study.name}: {self.study.title}")
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def show(self, event: Any) -> None:
        """One event of `ilora_core.reproduce.reproduce`."""
        from ilora_core.reproduce import Reproduced
        from ilora_core.reproduce.run import Began
        from ilora_core.sweep import Planned

        if isinstance(event, Began):
            self._close()
            self._part = f"{event.part} ({event.number} of {event.of})"
        elif isinstance(event, Planned):
            if event.waiting:  # nothing is said of what was done before
                self._say(self._part)
                self._sweep = SweepDisplay(event.plan, quiet=self.quiet)
                self._sweep.__enter__()
                self._sweep.show(event)
        elif not isinstance(event, Reproduced) and self._sweep:
            self._sweep.show(event)

    def finish(self, end: Reproduced) -> None:
        """Tables and verdicts, and where everything is."""
        from ilora_core.reproduce.report import claims_table, part_table

        self._close()
        out = console()
        tables = [*(part_table(found) for found in end.found), *end.tables]
        for table in [*tables, *([claims_table(end.decided)] if end.decided else [])]:
            out.print(rich_table(table))
        self._say(f"report: {end.files['report.html']}")
        if end.failed:
            self._say(f"{end.failed} cells failed; the same command tries them again.")

    def _close(self) -> None:
        if self._sweep:
            self._sweep.__exit__()
            self._sweep = None

    def _say(self, text: str) -> None:
        if not self.quiet:
            self._out.print(text, markup=False)
