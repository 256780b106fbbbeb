"""Writes a trained network in float16 with its provenance, whole or not at all."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ilora_core.errors import ConfigError
from ilora_core.files import atomic_path, write_json
from ilora_paradigms.labeller import SHIPPED, WEIGHTS_FILE
from ilora_paradigms.net import ParadigmNet

__all__ = ["LIMIT_BYTES", "SETTINGS", "SHIPPED", "export_network"]

LIMIT_BYTES = 7_000_000
SETTINGS: dict[str, Any] = {"blend": 0.0, "views": 1, "work_size": 96}
"""What the card `paradigms` does unless told otherwise; chosen on development rooms."""


def export_network(net: ParadigmNet, folder: Path, provenance: Mapping[str, Any]) -> Path:
    """`paradigms.safetensors` and `weights.json` in `folder`. Raises ConfigError above LIMIT_BYTES."""
    with atomic_path(folder) as draft:
        draft.mkdir(parents=True)
        path = draft / WEIGHTS_FILE
        save_file({k: v.detach().cpu().to(torch.float16).contiguous() for k, v in net.state_dict().items()}, path)
        path.chmod(0o644)  # safetensors writes for its owner alone; a package is for everybody
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise ConfigError(f"{size / 1e6:.1f} MB of weights are over the {LIMIT_BYTES / 1e6:.0f} MB that may ship.")
        card = {
            "name": "paradigms",
            "licence": "Apache-2.0",
            "trained_on": "paradigms drawn by ilora_paradigms.paradigm from seeds; no photograph, rendering or label",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "parameters": sum(p.numel() for p in net.parameters()),
            "widths": list(net.widths),
            "settings": SETTINGS,
            **provenance,
            "bytes": size,
            "sha256": {WEIGHTS_FILE: hashlib.sha256(path.read_bytes()).hexdigest()},
        }
        write_json(draft / "weights.json", card)
    return folder
