"""Training states on disk: `state-<step>/` with state.safetensors (weights, average, best, moments) and state.json.

A state is written beside its final name and renamed, then older ones go, so that a killed run always leaves a whole one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ilora_core.files import atomic_path, write_json

__all__ = ["latest_state", "load_state", "save_state"]

_FILE = "state.safetensors"


def save_state(
    out: Path,
    facts: Mapping[str, Any],
    net: nn.Module,
    extra: Mapping[str, Mapping[str, Tensor]],
    optimiser: torch.optim.Optimizer,
) -> Path:
    """Write a state under `out`; facts["step"] numbers it. extra: more named sets of tensors (average, best)."""
    final = out / f"state-{int(facts['step']):07d}"
    names = [name for name, _ in net.named_parameters()]
    tensors = {f"raw/{name}": value.detach() for name, value in net.named_parameters()}
    for group, values in extra.items():
        tensors |= {f"{group}/{name}": value for name, value in values.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"opt/{key}/{names[index]}": value for key, value in moments.items()}
    with atomic_path(final) as draft:
        draft.mkdir(parents=True)
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, draft / _FILE)
        write_json(draft / "state.json", dict(facts))
    for older in out.glob("state-*"):
        if older != final:
            shutil.rmtree(older, ignore_errors=True)
    return final


def latest_state(out: Path) -> Path | None:
    """The newest state under `out`, or None."""
    states = sorted(out.glob("state-*"))
    return states[-1] if states else None


def load_state(
    folder: Path, net: nn.Module, extra: Mapping[str, dict[str, Tensor]], optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore all in place; returns the facts. A set of `extra` that the state lacks is emptied."""
    tensors = load_file(folder / _FILE)
    state = optimiser.state_dict()
    state["state"] = {}
    for index, (name, parameter) in enumerate(net.named_parameters()):
        parameter.data.copy_(tensors[f"raw/{name}"])
        keys = {k.split("/")[1] for k in tensors if k.startswith("opt/") and k.split("/", 2)[2] == name}
        if keys:
            state["state"][index] = {key: tensors[f"opt/{key}/{name}"] for key in keys}
    optimiser.load_state_dict(state)
    device = next(net.parameters()).device
    for group, values in extra.items():
        values.clear()
        values.update(
            {k.removeprefix(f"{group}/"): v.to(device) for k, v in tensors.items() if k.startswith(f"{group}/")}
        )
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))
