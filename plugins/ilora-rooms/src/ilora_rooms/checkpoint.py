"""Resumable training state in small files: atomic, exact by default, `compact` for narrow channels.

A state is a folder `state-<visits>` of safetensors shards of at most 14 MB plus `state.json`; it is written beside its
final name and renamed, then the older one goes. Compact keeps the weights in float32 but stores the average in float16
and Adam's moments in bfloat16 (51 MB instead of 83 for the shipped model): resuming is then close, not bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["latest_state", "load_state", "save_state"]

SHARD_BYTES = 14_000_000


def _flat(networks: nn.Module, average: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, compact: bool):
    """One flat name -> tensor map of everything that training needs."""
    names = [name for name, _ in networks.named_parameters()]
    tensors = {f"raw/{k}": v.detach() for k, v in networks.named_parameters()}
    tensors |= {f"ema/{k}": v.to(torch.float16) if compact else v for k, v in average.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        for key, value in moments.items():
            small = compact and value.ndim > 0
            tensors[f"opt/{key}/{names[index]}"] = value.to(torch.bfloat16) if small else value
    return {k: v.cpu().contiguous() for k, v in tensors.items()}


def save_state(
    out: Path,
    meta: Mapping[str, object],
    networks: nn.Module,
    average: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    compact: bool = False,
) -> Path:
    """Write `state-<visits>` under `out` and drop older states."""
    final = out / f"state-{int(str(meta['visits'])):09d}"
    draft = out / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    shard: dict[str, Tensor] = {}
    count = size = 0
    for name, tensor in _flat(networks, average, optimiser, compact).items():
        if shard and size + tensor.nbytes > SHARD_BYTES:
            save_file(shard, draft / f"{count:02d}.safetensors")
            shard, size, count = {}, 0, count + 1
        shard[name] = tensor
        size += tensor.nbytes
    save_file(shard, draft / f"{count:02d}.safetensors")
    (draft / "state.json").write_text(json.dumps(meta, indent=1))
    older = [p for p in out.glob("state-*") if p != final]
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
    return final


def latest_state(out: Path) -> Path | None:
    states = sorted(out.glob("state-*"))
    return states[-1] if states else None


def load_state(
    folder: Path, networks: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> dict[str, object]:
    """Restore in place; returns the meta data."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    parameters = dict(networks.named_parameters())
    state = optimiser.state_dict()
    state["state"] = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        parameter.data.copy_(tensors[f"raw/{name}"])
        average[name] = tensors[f"ema/{name}"].to(parameter)
        keys = [k.split("/")[1] for k in tensors if k.startswith("opt/") and k.split("/", 2)[2] == name]
        if keys:
            state["state"][index] = {k: tensors[f"opt/{k}/{name}"].float() for k in keys}
    optimiser.load_state_dict(state)
    return json.loads((folder / "state.json").read_text())
