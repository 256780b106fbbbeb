"""Official checkpoints -> the network, strictly; and `convert`, which rewrites one as safetensors.

.ckpt          of Lightning: {"state_dict": {"model.scratch…": tensor}, …} with classes of Lightning's in it
.pth, .pt      of torch: the same names with "module." in front, or with nothing
.safetensors   the same names
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.checkpoints import read_tensors
from ilora_core.errors import WeightsError
from ilora_core.files import atomic_path, file_sha256, write_json
from ilora_core.hub import find_weights, snapshot
from ilora_core.pretrained import misfits
from ilora_omnidata.network import FULL, DPTHybrid, Widths
from ilora_omnidata.pictures import TASKS, Task

__all__ = [
    "convert",
    "convert_depth",
    "convert_normal",
    "empty_network",
    "find_file",
    "find_network",
    "load_network",
    "network_state",
]

_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt")
_FETCH = snapshot("*.safetensors", "*.pth", "*.ckpt", "config.json")
_LAST = "scratch.output_conv.4.weight"


def load_network(path: Path, task: Task, widths: Widths = FULL) -> tuple[DPTHybrid, str]:
    """The network of a checkpoint, float32 on the CPU, and the SHA-256 of its file.

    path  a file, or a folder with one
    Raises WeightsError for a file that is missing, damaged, hostile, or not this task's network.
    """
    file, state = _read(path, task)
    net = empty_network(task, widths)
    _require_fit(net, state, file)
    net.load_state_dict({name: t.to(torch.float32, copy=True).contiguous() for name, t in state.items()}, assign=True)
    return net.eval(), file_sha256(file)


def empty_network(task: Task, widths: Widths = FULL) -> DPTHybrid:
    """The network without weights, on the meta device."""
    with torch.device("meta"):
        return DPTHybrid(task.channels, widths)


def convert(source: Path, out: Path, *, task: Task) -> dict[str, Any]:
    """Write a checkpoint as a folder with model.safetensors and config.json; facts about it.

    The folder appears whole or not at all. Nothing that the checkpoint holds is executed.
    """
    from safetensors.torch import save_file

    file, state = _read(Path(source), task)
    _require_fit(empty_network(task), state, file)
    facts = {"task": task.name, "source sha256": file_sha256(file)}
    with atomic_path(out) as draft:
        draft.mkdir()
        tensors = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in state.items()}
        save_file(tensors, draft / "model.safetensors")
        write_json(draft / "config.json", facts)
        for written in draft.iterdir():
            written.chmod(0o644)  # safetensors writes for its owner alone
    return {**facts, "parameters": sum(t.numel() for t in state.values())}


def convert_normal(source: Path, out: Path) -> dict[str, Any]:
    """`convert` for the normals network."""
    return convert(source, out, task=TASKS["normal"])


def convert_depth(source: Path, out: Path) -> dict[str, Any]:
    """`convert` for the depth network."""
    return convert(source, out, task=TASKS["depth"])


def find_network(
    weights: str, task: str, *, revision: str | None = None, local_only: bool = False
) -> tuple[Path, dict[str, Any]]:
    """A local file or folder, and its provenance. Raises WeightsError that lists every place that was tried.

    weights  a path, a hub id, a name in registry.toml, or "" for `omnidata-<task>` there
    """
    directions = (
        f"Download omnidata_dpt_{task}_v2.ckpt from https://zenodo.org/records/10447888 and give it with "
        "--set labeler.weights=FILE, or a hub id; the licence allows non-commercial research only."
    )
    name = weights or f"omnidata-{task}"
    return find_weights(name, _FETCH, directions=directions, revision=revision, local_only=local_only)


def find_file(path: Path, task: str) -> Path:
    """The weights that a path means: itself, or the one in a folder, by preference safetensors.

    task  of several files in a folder, those count whose name has this word
    Raises WeightsError when there is none, or when there are several and no telling which.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"there is no file or folder {path}. Check --set labeler.weights=…")
    found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if len(found) > 1:
        found = [p for p in found if task and task in p.name] or found
    best = [p for p in found if p.suffix == ".safetensors"] or found
    if len(best) == 1:
        return best[0]
    what = f"several weights ({', '.join(p.name for p in best)})" if best else f"no {', '.join(_SUFFIXES)} file"
    raise WeightsError(f"{path} holds {what}. Name the file with --set labeler.weights=FILE.")


def network_state(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The network's own tensors under their official names, whatever wrapped it."""
    last = next((name for name in tensors if name == _LAST or name.endswith(f".{_LAST}")), None)
    if last is None or tensors[last].ndim != 4:
        raise WeightsError(
            f"{file} is no DPT-hybrid of Omnidata: it lacks {_LAST}. The U-Nets of version 1 cannot be used; take "
            "omnidata_dpt_normal_v2.ckpt or omnidata_dpt_depth_v2.ckpt."
        )
    prefix = last.removesuffix(_LAST)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _read(path: Path, task: Task) -> tuple[Path, dict[str, Tensor]]:
    """The file that a path means and the network's tensors in it. Raises WeightsError when they are the other task's."""
    file = find_file(path, task.name)
    state = network_state(read_tensors(file, strangers=True), file)
    if (found := state[_LAST].shape[0]) != task.channels:
        other = next((t for t in TASKS.values() if t.channels == found), None)
        hint = f" It is a {other.name} network: use --labeler omnidata-{other.name}." if other else ""
        raise WeightsError(f"{file} answers with {found} channel(s), {task.name} needs {task.channels}.{hint}")
    return file, state


def _require_fit(net: DPTHybrid, state: Mapping[str, Tensor], file: Path) -> None:
    """Raise one WeightsError that names what is missing, unknown or of another shape."""
    if complaints := misfits(net, state):
        raise WeightsError(f"{file} does not fit the network: it {'; it '.join(complaints)}. Download it again.")
