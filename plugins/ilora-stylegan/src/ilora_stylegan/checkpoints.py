"""Checkpoints of StyleGAN2, StyleGAN3 and StyleGAN-XL: every published format in, our own format in and out.

    NVIDIA's .pkl (stylegan2-ada-pytorch, stylegan3, stylegan-xl), their older TensorFlow .pkl, rosinality's .pt,
    and a folder of config.json and model.safetensors

The format is told by the content, not by the file's name. Pickles are read as data; nothing in them is executed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import DataError, WeightsError
from ilora_core.files import atomic_path, read_json, write_json
from ilora_stylegan.checkpoint_nvidia import read_nvidia
from ilora_stylegan.checkpoint_rosinality import is_rosinality, read_rosinality
from ilora_stylegan.checkpoint_tf import is_tf, read_tf
from ilora_stylegan.configs import Config, from_json, to_json
from ilora_stylegan.layout import check_shapes, check_values
from ilora_stylegan.official import Official
from ilora_stylegan.pickle_nodes import Broken, describe
from ilora_stylegan.pickles import read_pickle

__all__ = ["Checkpoint", "read_checkpoint", "save_checkpoint"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_FORMAT, _VERSION = "ilora-stylegan", 1
_LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """config: the architecture. state: the network's keys -> float32 tensors on the CPU, gains folded in.

    about: plain facts: "format", "file", "sha256", "class", "cur_nimg" where known; "needs_w_avg" is true when the file holds
    no mean w, so that `mapping.w_avg` is zero until somebody takes the mean over 10,000 mapped z.
    """

    config: Config
    state: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """A checkpoint of any of the formats. Raises WeightsError that says what is wrong with the file and what to do."""
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path)
        official = _recognised(read_pickle(path))
        state = official.folded(path.stat().st_size)
    except WeightsError:
        raise
    except Exception as error:  # contents of the wrong type show in many ways; each means the same
        cause = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {str(error)[:200]}"
        raise WeightsError(
            f"{path} is no usable checkpoint: {cause}. Give a .pkl of stylegan2-ada-pytorch, stylegan3, stylegan-xl or of "
            "NVIDIA's TensorFlow code, a .pt of rosinality's, or a folder that `ilora convert` wrote."
        ) from error
    about = {**official.about, "file": path.name, "sha256": _sha256(path)}
    return Checkpoint(official.config, state, about)


def save_checkpoint(checkpoint: Checkpoint, folder: Path | str) -> None:
    """Write config.json and model.safetensors; the folder appears whole or not at all, and replaces one of that name.

    Raises WeightsError when the state does not fit the configuration, DataError when the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        check_shapes(checkpoint.config, {key: tuple(value.shape) for key, value in checkpoint.state.items()})
    except Broken as error:
        raise WeightsError(f"this checkpoint cannot be written to {folder}: {error}.") from error
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "config": to_json(checkpoint.config),
        "about": checkpoint.about,
    }
    with atomic_path(Path(folder)) as temporary:
        temporary.mkdir()
        try:
            save_file({key: value.contiguous() for key, value in checkpoint.state.items()}, temporary / _WEIGHTS)
        except SafetensorError as error:
            raise DataError(f"cannot write {folder}: {error}. Free some space or choose another folder.") from error
        write_json(temporary / _CONFIG, content)


def _recognised(root: Any) -> Official:
    if isinstance(root, dict) and "G_ema" in root:
        return read_nvidia(root)
    if is_rosinality(root):
        return read_rosinality(root)
    if is_tf(root):
        return read_tf(root)
    if isinstance(root, dict):
        names = ", ".join(map(describe, list(root)[:8]))
        raise Broken(f"it is a dict of {names or 'nothing'}, without a generator ('G_ema', or 'g_ema' of rosinality's)")
    raise Broken(f"its content is {describe(root)}")


def _read_folder(folder: Path) -> Checkpoint:
    """Our own format. Keys, shapes and types are compared before a weight is read."""
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}. Write the folder with `ilora convert`, or give a .pkl or .pt.")
    if (folder / _CONFIG).stat().st_size > _LARGEST_CONFIG:
        raise Broken(f"{_CONFIG} is absurdly large")
    try:
        content = read_json(folder / _CONFIG)
    except DataError as error:
        raise Broken(str(error)) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("version") != _VERSION:
        raise Broken(f"{_CONFIG} is not of format {_FORMAT}, version {_VERSION}")
    config, about = from_json(content["config"]), content.get("about")
    return Checkpoint(config, _read_weights(folder / _WEIGHTS, config), about if isinstance(about, dict) else {})


def _read_weights(path: Path, config: Config) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        odd = [key for key, part in parts.items() if part.get_dtype() != "F32"]
        if odd:
            raise Broken(f"{_WEIGHTS} holds {odd[0][:120]} in {parts[odd[0]].get_dtype()}, not in F32")
        check_shapes(config, {key: tuple(part.get_shape()) for key, part in parts.items()})
        state = {key: file.get_tensor(key) for key in parts}
    check_values(state)
    return {key: value.to(torch.float32) for key, value in state.items()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
