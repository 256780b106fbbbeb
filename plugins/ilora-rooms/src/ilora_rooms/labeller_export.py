"""Writes the labeller in float16 with its provenance, whole or not at all."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from ilora_core.files import atomic_path, write_json
from ilora_rooms.export import LIMIT_BYTES
from ilora_rooms.labeller import RoomsNet

__all__ = ["export_labeller"]


def export_labeller(net: RoomsNet, folder: Path, provenance: dict[str, object]) -> Path:
    """`labeller.safetensors` and `weights.json` in `folder`."""
    with atomic_path(folder) as draft:
        draft.mkdir(parents=True)
        path = draft / "labeller.safetensors"
        save_file({k: v.detach().cpu().to(torch.float16).contiguous() for k, v in net.state_dict().items()}, path)
        path.chmod(0o644)  # safetensors writes for its owner alone; a package is for everybody
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise ValueError(f"the labeller is {size / 1e6:.1f} MB, over the {LIMIT_BYTES / 1e6:.0f} MB that may ship")
        card = {
            "name": "rooms-labeller",
            "licence": "Apache-2.0",
            "trained_on": "rooms of ilora_rooms, split 'labeller', rendered from seeds with exact maps; no other data",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "widths": list(net.widths),
            **provenance,
            "bytes": size,
            "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
        }
        write_json(draft / "weights.json", card)
    return folder
