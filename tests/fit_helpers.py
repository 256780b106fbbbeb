"""A tiny Stable Diffusion folder and tiny pairs, as files: what a user would give `ilora fit`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE, PAIRS = 32, 10


def save_tiny_model(folder: Path) -> Path:
    """Random weights in a diffusers folder."""
    import json

    from ilora_sd.factories import tiny_components

    parts = tiny_components()
    for name, part in (("unet", parts.unet), ("vae", parts.vae), ("text_encoder", parts.text_encoder)):
        part.save_pretrained(folder / name)
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(parts.scheduler_config)))
    return folder


def save_pairs(folder: Path, n: int = PAIRS) -> Path:
    """Pictures, normals and depth that follow from the pictures, so that there is something to learn."""
    rng = np.random.default_rng(0)
    for name in ("pictures", "normals", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        coarse = torch.from_numpy(rng.random((1, 3, 4, 4), dtype=np.float32))
        picture = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0].permute(1, 2, 0).numpy()
        Image.fromarray((picture * 255).astype(np.uint8)).save(folder / "pictures" / f"{i:03d}.png")
        normals = picture - np.array([0.5, 0.5, 1.5], dtype=np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        np.save(folder / "normals" / f"{i:03d}.npy", normals)
        np.save(folder / "depth" / f"{i:03d}.npy", 1 + 4 * picture.mean(2))
    return folder


def fit_command(model: Path, pairs: Path, out: Path, *more: str) -> list[str]:
    """The command line of a fit that takes a second of computing."""
    return [
        *(sys.executable, "-m", "ilora_cli.main", "fit", "--generator", "sd", "--preset", "none"),
        *("--set", f"generator.weights={model}", "--set", f"generator.resolution={SIDE}"),
        *("--pairs", str(pairs), "--out", str(out), "--device", "cpu", "--validation", "2"),
        *more,
    ]
