"""The diffusion model at several qualities: checkpoints of one pre-training from random weights on, and the shipped weights.

The checkpoints are trained where the reproduction is made (`ilora_rooms.trajectory`); how good their samples are is their Fréchet
distance to rooms on the labeler's features (`ilora_rooms.quality`). Both run as processes of their own and leave files behind,
so that they are done once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ilora_core.errors import DataError
from ilora_core.files import read_json
from ilora_core.plugins import PluginHost
from ilora_core.report import Cell, Table
from ilora_core.reproduce.world import Family, Quality

__all__ = ["checkpoints"]

_VISITS, _SAMPLES, _SHARDS = (0, 1_000, 4_000), 500, 6
_QUICK_VISITS, _QUICK_SAMPLES, _QUICK_SHARDS = (0, 500), 100, 1
_SHIPPED = "98,000 (shipped)"


def checkpoints(family: Family, out: Path, *, quick: bool) -> Quality:
    """The family after some numbers of visits; below `out` when it has been trained."""
    visits = _QUICK_VISITS if quick else _VISITS
    folder = out.resolve() / ("trajectory-quick" if quick else "trajectory")
    trained = {f"{n:,}": folder / f"visits-{n:06d}" for n in visits}
    versions: dict[str, Mapping[str, Any]] = {name: {"generator.weights": str(path)} for name, path in trained.items()}
    versions[_SHIPPED] = {"generator.weights": ""}
    before = partial(_train, folder=folder, visits=visits, shards=_QUICK_SHARDS if quick else _SHARDS)
    samples = _QUICK_SAMPLES if quick else _SAMPLES
    return Quality(family, versions, before, partial(_table, folder=folder, trained=trained, samples=samples))


def _train(_out: Path, *, folder: Path, visits: Sequence[int], shards: int) -> Iterator[str]:
    """Train the checkpoints that are missing; a stopped training goes on."""
    if all((folder / f"visits-{n:06d}").is_dir() for n in visits):
        return
    yield f"Training a model on rooms from random weights, {max(visits):,} visits …"
    numbers = ",".join(map(str, visits))
    _run("ilora_rooms.trajectory", "--out", folder, "--visits", numbers, "--shards", shards, "--resume")


def _table(_out: Path, _host: PluginHost, *, folder: Path, trained: Mapping[str, Path], samples: int) -> list[Table]:
    """The distance of each checkpoint's samples to rooms, between its bounds."""
    file = folder / f"quality-{samples}.json"
    if not file.is_file():
        weights = [*map(str, trained.values()), "shipped"]
        _run("ilora_rooms.quality", "--generator", "rooms", "--n", samples, "--out", file, "--weights", *weights)
    found = read_json(file)["results"]
    names = {str(path): name for name, path in trained.items()} | {"shipped": _SHIPPED}
    rows = [(names.get(key, key), Cell(f"{row['fid']:.1f}", f"± {row['sd']:.1f}")) for key, row in found.items()]
    note = (
        f"Fréchet distance of {samples} samples to {samples} test rooms, on 128 features of the rooms labeler, not Inception's. "
        "Bounds: other rooms, and rooms through the codec."
    )
    return [Table("Quality of the samples by visits", ("", "rooms FID \u2193"), rows, note=note)]


def _run(module: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"`python -m {module}` failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
