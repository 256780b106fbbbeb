"""The closed-form linear probe of a pre-trained rooms model: what of the normals one matrix reads off its features.

It needs no tuning and seconds (`ilora_core.controls.LinearProbe`), so it is the cleanest test of "did pre-training put the
intrinsic there".

    python -m ilora_rooms.probe FOLDER [FOLDER ...]     # 250 labels, 100 test rooms; one line of JSON per export
"""

from __future__ import annotations

import json
import sys

from ilora_rooms.experiment import Rows, score_controls
from ilora_rooms.generator import rooms
from ilora_rooms.source import RoomsSource

__all__ = ["normals_probe"]


def normals_probe(folder: str, labels: Rows, test: Rows, *, timestep: int) -> float:
    """Mean angular error in degrees, pooled over the valid pixels of `test`."""
    scores = score_controls(rooms(weights=folder, timestep=timestep), labels, test, ["normals"])
    return scores["normals"].evaluations["linear probe"].figures["mean_deg"].value


def main(folders: list[str]) -> None:
    labels, test = Rows.of(RoomsSource(n=250)), Rows.of(RoomsSource(split="test", n=100))
    for folder in folders:
        row = {f"t{t}": round(normals_probe(folder, labels, test, timestep=t), 2) for t in (999, 300)}
        print(json.dumps({"folder": folder, **row}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
