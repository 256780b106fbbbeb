"""Writes a first stage and its prior in float16 with their provenance, whole or not at all.

first_stage/  diffusers' VQModel      prior/  transformers' GPT2LMHeadModel      weights.json
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.autoencoders.vq_model import VQModel
from torch import nn

from ilora_core.errors import WeightsError
from ilora_core.files import atomic_path

from .export import LIMIT_BYTES
from .scene import WORLD

__all__ = ["export_parts", "load_first_stage"]


def export_parts(parts: Mapping[str, nn.Module], folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write `parts` under their names, and `weights.json` with `facts`, sizes and digests; replaces `folder`.

    Raises WeightsError for a part above LIMIT_BYTES.
    """
    with atomic_path(folder) as draft:
        for part, module in parts.items():
            # The plain method: diffusers' own warns of modules that stay in float32, of which there are none.
            half: Any = nn.Module.to(copy.deepcopy(module), "cpu", torch.float16)
            # Where it was loaded from is nobody's business. diffusers' configuration is frozen: an attribute would do nothing.
            if isinstance(half, ConfigMixin):
                half.register_to_config(_name_or_path="")
            else:
                half.config._name_or_path = ""
            half.save_pretrained(draft / part)
        files = sorted(p for p in draft.rglob("*") if p.is_file())
        for path in files:
            path.chmod(0o644)  # safetensors writes for its owner alone; a package is for everybody
        sizes = {part: sum(p.stat().st_size for p in files if p.parent.name == part) for part in parts}
        if over := {part: size for part, size in sizes.items() if size > LIMIT_BYTES}:
            told = ", ".join(f"{part} is {size / 1e6:.1f} MB" for part, size in over.items())
            raise WeightsError(f"{told}, over the {LIMIT_BYTES / 1e6:.0f} MB that may ship: choose narrower layers.")
        card = {
            "name": "rooms-vqgan",
            "world": WORLD,
            "licence": "Apache-2.0",
            "trained_on": "pictures of ilora_rooms, split 'pretrain', rendered from seeds; no other data",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **facts,
            "bytes": sizes,
            "sha256": {str(p.relative_to(draft)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        }
        (draft / "weights.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return folder


def load_first_stage(folder: Path) -> Any:
    """The exported first stage in float32 on the CPU, frozen."""
    model: Any = VQModel.from_pretrained(folder / "first_stage", torch_dtype=torch.float32)
    return model.eval().requires_grad_(False)
