"""The folder of a sweep's cells: what is finished stays, what is half done is beside it, and two processes never share a cell.

OUT/cells/<hash>/cell.json         the resolved configuration that the hash is of; the folder appears whole, by a rename
OUT/cells/<hash>/fit/              what `ilora fit` leaves, without its checkpoints (method mean-map: mean-map/)
OUT/cells/<hash>/cost.json
OUT/cells/<hash>/evaluation-<id>.json    figures on one set of pictures by one protocol, every picture's with them
OUT/cells/<hash>/pictures-<id>.safetensors    the first pictures with the maps that were drawn, for reports
OUT/cells/.<hash>.part/            being made; a later run goes on from here
OUT/cells/<hash>.failed.json       why it failed last; the next run tries again
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilora_core.errors import DataError
from ilora_core.files import read_json, write_json
from ilora_core.sweep.cells import Cell, Scoring

__all__ = ["Store"]


@dataclass(frozen=True)
class Store:
    """OUT/cells, by cell and by scoring."""

    out: Path

    def folder(self, cell: Cell) -> Path:
        """Of a finished cell."""
        return self.out / "cells" / cell.hash

    def part(self, cell: Cell) -> Path:
        """Of a cell that is being made."""
        return self.out / "cells" / f".{cell.hash}.part"

    def failure(self, cell: Cell) -> Path:
        """Where an error is noted."""
        return self.out / "cells" / f"{cell.hash}.failed.json"

    def evaluation(self, cell: Cell, scoring: Scoring) -> Path:
        """Where figures are."""
        return self.folder(cell) / f"evaluation-{scoring.id}.json"

    def pictures(self, cell: Cell, scoring: Scoring) -> Path:
        """Where drawn maps are."""
        return self.folder(cell) / f"pictures-{scoring.id}.safetensors"

    def made(self, cell: Cell) -> bool:
        """Whether the artefact is there. Raises DataError when the folder is another cell's."""
        if not self.folder(cell).is_dir():
            return False
        if read_json(self.folder(cell) / "cell.json").get("cell") != json.loads(json.dumps(cell.to_json())):
            raise DataError(
                f"{self.folder(cell)} does not hold the cell that its name says. Delete it to compute it again."
            )
        return True

    def scored(self, cell: Cell, scoring: Scoring) -> bool:
        """Whether nothing is left to do."""
        return self.made(cell) and self.evaluation(cell, scoring).is_file()

    def finish(self, cell: Cell, facts: dict[str, Any], cost: dict[str, float]) -> None:
        """Give a cell its place."""
        part = self.part(cell)
        for checkpoints in part.glob("fit/*/checkpoints"):
            shutil.rmtree(checkpoints)
        write_json(part / "cost.json", cost)
        write_json(part / "cell.json", {"cell": cell.to_json(), **facts})
        part.rename(self.folder(cell))

    def fail(self, cell: Cell, error: BaseException) -> str:
        """Note an error, and forget what was half done: settings may be right and the data of another day."""
        message = str(error) or type(error).__name__
        shutil.rmtree(self.part(cell), ignore_errors=True)
        write_json(self.failure(cell), {"cell": cell.to_json(), "error": type(error).__name__, "message": message})
        return message

    def succeed(self, cell: Cell) -> None:
        """Forget an earlier error."""
        self.failure(cell).unlink(missing_ok=True)

    @contextmanager
    def lock(self, cell: Cell) -> Iterator[None]:
        """Wait until nobody else works on this cell. The system lets go of the lock when a process dies."""
        path = self.out / "cells" / f".{cell.hash}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:  # Windows: one sweep per folder at a time
            yield
            return
        with open(path, "a", encoding="ascii") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
            if self.folder(cell).is_dir():  # whoever waited for this file finds the cell finished
                path.unlink(missing_ok=True)
