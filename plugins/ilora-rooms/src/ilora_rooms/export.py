"""Writes a diffusers folder in float16 with its provenance, whole or not at all."""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import copy
import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from .codec import PatchCodec
from .model import Generator
from .scene import WORLD
from .words import write_tokenizer_files

__all__ = ["LIMIT_BYTES", "export_folder", "load_folder"]

LIMIT_BYTES = 16_000_000


def _model_index(pipeline: str) -> dict[str, object]:
    return {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["ilora_rooms.codec", "PatchCodec"],
    }


def export_folder(
    generator: Generator, folder: Path, provenance: dict[str, object], *, pipeline: str = "StableDiffusionPipeline"
) -> Path:
    """model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/ and weights.json.

    pipeline: the diffusers class that is to read it.
    """
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for part, module in (("unet", generator.unet), ("text_encoder", generator.text)):
        half: Any = copy.deepcopy(module).to("cpu", torch.float16)
        if part == "unet":
            half.register_to_config(_name_or_path="")  # where it was loaded from is nobody's business
        half.save_pretrained(draft / part)
    generator.codec.register_to_config(_name_or_path="")
    generator.codec.save_pretrained(draft / "vae")  # 2 kB: kept exact
    generator.scheduler.save_pretrained(draft / "scheduler")
    write_tokenizer_files(draft / "tokenizer")
    (draft / "model_index.json").write_text(json.dumps(_model_index(pipeline), indent=2) + "\n")
    files = sorted(p for p in draft.rglob("*") if p.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors writes for its owner alone; a package is for everybody
    total = sum(p.stat().st_size for p in files)
    if total > LIMIT_BYTES:
        raise ValueError(
            f"the export is {total / 1e6:.1f} MB, over the {LIMIT_BYTES / 1e6:.0f} MB that may ship: {draft}"
        )
    card = {
        "name": "rooms-ldm",
        "world": WORLD,
        "licence": "Apache-2.0",
        "trained_on": "pictures of ilora_rooms, split 'pretrain', rendered from seeds; no other data",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **provenance,
        "bytes": total,
        "sha256": {str(p.relative_to(draft)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }
    (draft / "weights.json").write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder


def load_folder(folder: Path) -> Generator:
    """The exported generator in float32 on the CPU."""
    return Generator(
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        PatchCodec.from_pretrained(folder, subfolder="vae"),
        DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
