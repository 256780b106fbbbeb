"""Artefacts as `ilora fit` leaves them, with random weights and everything around them that must stay at home."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from ilora_core.artefact import save_artefact
from ilora_core.intrinsics import DEPTH, NORMALS

LAYOUT = "pytorch_lora_weights.safetensors"


def save_set(folder: Path) -> Path:
    """Normals and depth, beside a report."""
    for intrinsic in (NORMALS, DEPTH):
        save_one(folder / intrinsic.name, intrinsic)
    (folder / "report.html").write_text("<html>")
    (folder / "run.json").write_text("{}")
    return folder


def save_one(folder: Path, intrinsic=NORMALS, **changes) -> Path:
    """One artefact with logs, a checkpoint, a resume point, hidden files, and paths of this machine in run.json."""
    (folder / "previews").mkdir(parents=True)
    Image.new("RGB", (24, 8), (90, 120, 150)).save(folder / "previews" / "step_000002.png")
    state = {"to_q.lora_A.weight": torch.zeros(8, 4), "to_q.lora_B.weight": torch.zeros(4, 8)}
    generator = SimpleNamespace(layouts=lambda state, config: {LAYOUT: (state, {"format": "pt"})})
    save_artefact(folder, state, {"peft_type": "LORA", "r": 8}, {**record_of(intrinsic), **changes}, generator)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "state.pt").write_bytes(b"pickle")
    (folder / ".hidden.safetensors").write_bytes(b"secret")
    (folder / "notes.txt").write_text("secret")
    (folder / "merged.safetensors").write_bytes(b"somebody else's")
    (folder / "checkpoints" / "step_000002").mkdir(parents=True)
    (folder / "checkpoints" / "step_000002" / "adapter_model.safetensors").write_bytes(b"old")
    return folder


def record_of(intrinsic) -> dict:
    """As `ilora_core.run` writes it, for a fit from a folder in somebody's home."""
    weights = str(Path.home() / "nets with spaces" / "mine")
    return {
        "config": {"pairs": str(Path.cwd() / "data"), "settings": {"generator": {"weights": weights}}},
        "generator": {
            "name": "sd",
            "plugin": "ilora-sd",
            "settings": {"weights": weights},
            "provenance": {"weights": weights, "failed": [f"a/b: no file /home/ann/x/y.json, {Path.home()}/z"]},
        },
        "licences": {"generator sd": "that of the weights you give", "pairs": "yours"},
        "adapter": "lora",
        "data": {"train": 8, "validation": 2},
        "intrinsic": intrinsic.predicted().to_json(),
        "best": {"step": 2, "metric": intrinsic.metric, "value": 1.5},
        "steps": 4,
    }


def read_record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))
