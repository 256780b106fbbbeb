"""diffusers' Marigold pipelines from a folder, part by part: whole or not at all, and nothing but the known classes.

model_index.json may name any class of any library; only its plain values are used here.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ilora_core.errors import WeightsError, first_line
from ilora_core.files import read_json
from ilora_core.pretrained import load_pretrained

__all__ = ["load_pipeline"]

_SCHEDULERS = ("DDIMScheduler", "LCMScheduler")
_PARTS = ("unet", "vae", "text_encoder")


def load_pipeline(kind: type, folder: Path) -> Any:
    """A pipeline of diffusers' class `kind`, float32, on the CPU. Raises WeightsError that says what is wrong and where."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"{folder} holds no model_index.json: it is no diffusers pipeline.")
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != kind.__name__:
        raise WeightsError(f"{folder} holds a {index.get('_class_name')}, not a {kind.__name__}.")
    classes = (UNet2DConditionModel, AutoencoderKL, CLIPTextModel)
    parts = {name: load_pretrained(cls, folder / name) for name, cls in zip(_PARTS, classes, strict=True)}
    for network in parts.values():
        network.requires_grad_(False)
    plain = set(inspect.signature(kind).parameters) - {*_PARTS, "scheduler", "tokenizer"}
    settings = {name: index[name] for name in plain if name in index}
    return kind(**parts, scheduler=_scheduler(folder, index), tokenizer=_tokenizer(folder), **settings)


def _scheduler(folder: Path, index: dict[str, Any]) -> Any:
    import diffusers

    name = (index.get("scheduler") or [None, None])[1]
    if name not in _SCHEDULERS:
        raise WeightsError(f"{folder} asks for the scheduler {name}; Marigold runs with {' or '.join(_SCHEDULERS)}.")
    try:
        return getattr(diffusers, name).from_pretrained(folder / "scheduler", local_files_only=True)
    except Exception as error:  # OSError, ValueError, TypeError, by version
        raise WeightsError(f"cannot read {folder / 'scheduler'}: {first_line(error)}. Download it again.") from error


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # OSError, ValueError, TypeError, by version
        raise WeightsError(f"cannot read {folder / 'tokenizer'}: {first_line(error)}. Download it again.") from error
