"""Resumable state of two networks and two Adam optimisers, in the small files of `checkpoint`.

A state is `state-<images>`: safetensors shards of at most 14 MB with `raw/<name>` weights, `ema/<name>` averages,
`square/<name>` and `count/<name>` of Adam, and `state.json`. With beta1 = 0 Adam's first moment is the last gradient and the
next step overwrites it, so it is not stored and resuming is still exact. Compact stores averages in float16 and second
moments in bfloat16: resuming is then close, not bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .checkpoint import SHARD_BYTES

__all__ = ["load_gan_state", "save_gan_state"]


def _shards(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    return shards


def _flat(
    networks: nn.Module, average: Mapping[str, Tensor], optimisers: Sequence[torch.optim.Optimizer], compact: bool
) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in networks.named_parameters()}
    tensors = {f"raw/{name}": parameter.detach() for parameter, name in names.items()}
    tensors |= {f"ema/{name}": value.half() if compact else value for name, value in average.items()}
    for optimiser in optimisers:
        for parameter, moments in optimiser.state.items():
            square = moments["exp_avg_sq"]
            tensors[f"square/{names[parameter]}"] = square.bfloat16() if compact else square
            tensors[f"count/{names[parameter]}"] = moments["step"]
    return tensors


def save_gan_state(
    out: Path,
    meta: Mapping[str, object],
    networks: nn.Module,
    average: Mapping[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    *,
    compact: bool = False,
) -> Path:
    """Write `state-<images>` under `out`, whole or not at all, and drop older states."""
    final = out / f"state-{int(str(meta['images'])):09d}"
    draft = out / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for number, shard in enumerate(_shards(_flat(networks, average, optimisers, compact))):
        save_file(shard, draft / f"{number:02d}.safetensors")
    (draft / "state.json").write_text(json.dumps(meta, indent=1))
    older = [p for p in out.glob("state-*") if p != final]
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
    return final


def load_gan_state(
    folder: Path,
    networks: nn.Module,
    average: dict[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
) -> dict[str, object]:
    """Restore in place what `save_gan_state` wrote; returns the meta data."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    names = {parameter: name for name, parameter in networks.named_parameters()}
    for parameter, name in names.items():
        parameter.data.copy_(tensors[f"raw/{name}"])
    for name, value in average.items():
        value.copy_(tensors[f"ema/{name}"])
    for optimiser in optimisers:
        for parameter in (p for group in optimiser.param_groups for p in group["params"]):
            name = names[parameter]
            if f"square/{name}" in tensors:
                optimiser.state[parameter] = {
                    "step": tensors[f"count/{name}"],
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter).copy_(tensors[f"square/{name}"]),
                }
    return json.loads((folder / "state.json").read_text())
