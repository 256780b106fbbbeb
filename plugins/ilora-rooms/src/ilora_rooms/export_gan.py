"""Writes the rooms StyleGAN2 with its provenance, whole or not at all.

The folder: config.json and model.safetensors in float32, as `ilora_stylegan.checkpoints` reads them, and weights.json.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path

import torch

from ilora_core.errors import WeightsError
from ilora_stylegan.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ilora_stylegan.configs import StyleGAN2Config
from ilora_stylegan.stylegan2 import StyleGAN2

from .scene import WORLD
from .sheet import grid, save

__all__ = ["LIMIT_BYTES", "export_gan", "load_gan", "sample_sheet"]

LIMIT_BYTES = 16_000_000
NAME = "rooms-stylegan2"


def export_gan(net: StyleGAN2, folder: Path, provenance: dict[str, object]) -> Path:
    """`net` on the CPU -> `folder`, replaced if it exists. Raises WeightsError above LIMIT_BYTES."""
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    save_checkpoint(Checkpoint(net.config, net.state_dict(), {"name": NAME}), draft)
    files = sorted(draft.iterdir())
    for path in files:
        path.chmod(0o644)  # safetensors writes for its owner alone; a package is for everybody
    total = sum(path.stat().st_size for path in files)
    if total > LIMIT_BYTES:
        shutil.rmtree(draft)
        raise WeightsError(
            f"the export to {folder} is {total / 1e6:.1f} MB, over the {LIMIT_BYTES / 1e6:.0f} MB that may ship: "
            "choose narrower channels."
        )
    card = {
        "name": NAME,
        "world": WORLD,
        "licence": "Apache-2.0",
        "trained_on": "pictures of ilora_rooms, split 'pretrain', rendered from seeds; no other data",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        **provenance,
        "bytes": total,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (draft / "weights.json").write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder


def load_gan(folder: Path) -> StyleGAN2:
    """The exported network on the CPU, for inference."""
    checkpoint = read_checkpoint(folder)
    assert isinstance(checkpoint.config, StyleGAN2Config)
    net = StyleGAN2(checkpoint.config)
    net.load_state_dict(checkpoint.state)
    return net.eval().requires_grad_(False)


def sample_sheet(net: StyleGAN2, path: Path, *, n: int = 64, psi: float = 1.0, up_to: int | None = None) -> None:
    """n samples of a fixed seed, eight a row, as a PNG."""
    codes = torch.randn(n, net.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = torch.cat([net(net.mapping(z, psi=psi), noise="none", up_to=up_to) for z in codes.split(16)])
    save(grid((images + 1) / 2, 8), path)
