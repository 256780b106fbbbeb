"""Official ZoeDepth checkpoints (ZoeD_M12_N.pt, _K.pt, _NK.pt) as folders that transformers loads.

    {"model": {official name: tensor}} -> model.safetensors, config.json, preprocessor_config.json

Which variant it is, and every size, follows from the tensors. K's range is written as 80 m: the official entry point
leaves it at 10 m, where its bounded bins would end. A .pt is a pickle; torch's restricted unpickler reads it, and a file
that asks for anything but tensors and plain data is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.checkpoints import read_tensors
from ilora_core.errors import WeightsError
from ilora_core.files import atomic_path, file_sha256
from ilora_core.label_cache import default_cache_root
from ilora_zoedepth.architecture import from_shapes
from ilora_zoedepth.key_map import to_disk
from ilora_zoedepth.network import load_network
from ilora_zoedepth.preprocessing import Preprocessing

__all__ = ["convert", "convert_into_cache", "read_checkpoint"]

_FORMAT = 1  # of what `convert` writes; part of the name in the cache


def convert(source: Path, out: Path) -> dict[str, Any]:
    """Write an official checkpoint as a folder for `weights`; facts about it.

    The folder appears whole or not at all, and replaces one of that name. Nothing that the checkpoint holds is executed.
    Raises WeightsError for a file that is damaged, holds more than weights, or is no ZoeDepth.
    """
    from safetensors.torch import save_file
    from transformers import ZoeDepthConfig

    state = read_checkpoint(source)
    found = from_shapes({key: tuple(value.shape) for key, value in state.items()}, source)
    tensors = _renamed(state, source)
    config = {**ZoeDepthConfig(**found.config()).to_dict(), "architectures": ["ZoeDepthForDepthEstimation"]}
    processing = Preprocessing(size=(384, 768) if found.variant == "k" else (384, 512))
    with atomic_path(out) as draft:
        draft.mkdir(parents=True)
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        for name, data in (("config.json", config), ("preprocessor_config.json", processing.to_json())):
            (draft / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        (draft / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
        _require_loads(draft, source)
    parameters = sum(value.numel() for value in tensors.values())
    return {"variant": found.variant, "parameters": parameters, "range in metres": _ranges(config)}


def convert_into_cache(source: Path) -> Path:
    """The converted folder of an official checkpoint, made on first use: $ILORA_CACHE/weights/zoedepth-<digest>."""
    folder = default_cache_root().parent / "weights" / f"zoedepth-{_FORMAT}-{file_sha256(source)[:16]}"
    if not (folder / "config.json").is_file():
        convert(source, folder)
    return folder


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Its tensors by official name, without `module.`. Raises WeightsError for what cannot be read or trusted."""
    tensors = read_tensors(path, under="model", leftovers=())
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _renamed(state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The network's tensors by their names on disk, float32. Raises WeightsError naming what no rule knows."""
    tensors, unknown = to_disk(state)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise WeightsError(f"{source} has tensors that no ZoeDepth has: {', '.join(sorted(unknown)[:3])}{more}.")
    return {name: value.to(torch.float32, copy=True).contiguous() for name, value in tensors.items()}


def _require_loads(draft: Path, source: Path) -> None:
    """Load it once, so that a tensor that is missing or misshapen is found now and not at every use."""
    try:
        load_network(draft)
    except WeightsError as error:
        raise WeightsError(f"{source} does not fit a ZoeDepth: {str(error).replace(str(draft), 'it')}") from error


def _ranges(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{bins['min_depth']:g} to {bins['max_depth']:g}" for bins in config["bin_configurations"])
