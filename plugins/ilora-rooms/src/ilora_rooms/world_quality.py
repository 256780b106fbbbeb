"""The diffusion model at several qualities: earlier states of the shipped weights, random ones, and how good their samples are.

The earlier states are in a clone of the repository (`ilora_rooms.generator.CHECKPOINTS`); `ilora_rooms.trajectory` trains more.
The quality of samples is their Fréchet distance to rooms on the labeler's features (`ilora_rooms.quality`), measured once by a
process of its own that leaves a file.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from ilora_core.errors import DataError
from ilora_core.files import read_json
from ilora_core.plugins import PluginHost
from ilora_core.report import Cell, Table
from ilora_core.reproduce.world import Family, Quality
from ilora_rooms.generator import CHECKPOINTS

__all__ = ["states"]

_STATES = {"10,000 visits": "visits-010000", "30,000 visits": "visits-030000", "71,000 visits": "visits-071000"}
_RANDOM, _SHIPPED = "random weights", "98,000 visits (shipped)"
_BOUNDS = {"real rooms": "other rooms", "codec": "other rooms through the codec", "untrained": _RANDOM}


def states(family: Family, *, quick: bool) -> Quality:
    """The family at every state that is there, the best last."""
    present = {name: folder for name, folder in _STATES.items() if (CHECKPOINTS / folder).is_dir()}
    present = dict(list(present.items())[:1]) if quick else present
    versions = {_RANDOM: {"generator.random_unet": True}}
    versions |= {name: {"generator.weights": folder} for name, folder in present.items()}
    versions[_SHIPPED] = {"generator.timestep": family.settings["generator.timestep"]}  # as it is: Table 4's cells
    return Quality(family, versions, partial(_table, present=present, samples=50 if quick else 200))


def _table(out: Path, _host: PluginHost, *, present: dict[str, str], samples: int) -> list[Table]:
    """The distance of each state's samples to rooms, between its bounds."""
    file = out / f"rooms-fid-{samples}.json"
    if not file.is_file():
        weights = [*(str(CHECKPOINTS / folder) for folder in present.values()), "shipped"]
        options = ["--generator", "rooms", "--n", str(samples), "--out", str(file), "--weights", *weights]
        command = [sys.executable, "-m", "ilora_rooms.quality", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise DataError(f"measuring the samples' quality failed: {' '.join(last)}")
    names = {str(CHECKPOINTS / folder): name for name, folder in present.items()} | {"shipped": _SHIPPED} | _BOUNDS
    found = {names[key]: row for key, row in read_json(file)["results"].items()}
    order = [*_BOUNDS.values(), *present, _SHIPPED]
    rows = [(n, Cell(f"{found[n]['fid']:.1f}", f"± {found[n]['sd']:.1f}")) for n in order if n in found]
    note = (
        f"Fréchet distance of {samples} samples to {samples} test rooms, on 128 features of the rooms labeler, not Inception's. "
        "The states of 10,000 and 30,000 visits have an older codec than the others, through which their maps are drawn too."
    )
    return [Table("Quality of the samples", ("", "rooms FID ↓"), rows, note=note)]
