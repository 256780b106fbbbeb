"""Lightning checkpoints of taming-transformers, and the yaml beside them, read without running anything they hold.

A .ckpt is a pickle. torch's restricted unpickler reads it; the classes that Lightning and OmegaConf left in it beside the
weights (`callbacks` is keyed by one) become empty stand-ins. Whatever else the pickle asks for is refused, by name.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import WeightsError

__all__ = ["find_checkpoint", "find_config", "read_checkpoint", "read_config"]

_INERT = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "lightning_utilities.", "omegaconf.", "taming.")
_INERT_NAMES = frozenset(
    {
        "typing.Any",
        "collections.defaultdict",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "list", "int", "float")),
    }
)
_USUAL = (  # for files from before the zip format, whose names cannot be listed without reading them
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)


class _Stub(dict):
    """Stands in for an object of a class that is not here; takes any arguments, items and state and keeps none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the one in a project's folder. Raises WeightsError when there is none."""
    if path.is_file():
        return path
    last = [p for p in (path / "checkpoints" / "last.ckpt", path / "last.ckpt") if p.is_file()]
    others = [*sorted(path.glob("checkpoints/*.ckpt")), *sorted(path.glob("*.ckpt"))]
    if not last and len(others) > 1:
        names = ", ".join(p.name for p in others)
        raise WeightsError(f"{path} holds several checkpoints ({names}) and no last.ckpt. Name the file you mean.")
    if not last and not others:
        raise WeightsError(
            f"{path} holds neither first_stage/ (a converted VQGAN), nor a VQModel of diffusers, nor a .ckpt of "
            "taming-transformers. Check the path."
        )
    return (last or others)[0]


def find_config(checkpoint: Path) -> Path | None:
    """The project's yaml where taming-transformers leaves it, or None. Of several runs' the last one counts."""
    near = (checkpoint.parent, checkpoint.parent.parent)
    for pattern in ("configs/*-project.yaml", "*-project.yaml", "configs/model.yaml", "model.yaml"):
        for folder in near:
            if found := sorted(folder.glob(pattern)):
                return found[-1]
    own = checkpoint.with_suffix(".yaml")
    return own if own.is_file() else None


def read_config(path: Path) -> Any:
    """A yaml as plain data. Raises WeightsError for a broken one, and for one that asks to run something."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} cannot be read as a yaml: {line}. Download it again.") from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Its tensors by name. Raises WeightsError for a file that is missing, incomplete or holds more than weights."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}. Check --set generator.weights=…")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        data = _unpickle(path)
    except WeightsError:
        raise
    except Exception as error:  # UnpicklingError, SafetensorError, RuntimeError, EOFError …, by format and version
        if isinstance(error, pickle.UnpicklingError) and (asked := _refused(error)):
            raise _distrust(path, asked) from error
        raise WeightsError(
            f"{path} cannot be read: {_line(error)} It is probably incomplete: compare its size, download it again."
        ) from error
    tensors = data.get("state_dict", data) if isinstance(data, dict) else {}
    tensors = tensors if isinstance(tensors, Mapping) else {}
    return {k: v for k, v in tensors.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _unpickle(path: Path) -> Any:
    mapped = zipfile.is_zipfile(path)  # older files are plain pickles and cannot be mapped
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if mapped else _USUAL
    if strange := [name for name in names if name not in _INERT_NAMES and not name.startswith(_INERT)]:
        raise _distrust(path, ", ".join(sorted(strange)[:3]))
    stubs: list[Any] = [
        (type("_Stub", (_Stub,), {}), name) for name in names
    ]  # one class each: they are keys of dictionaries
    with warnings.catch_warnings(), torch.serialization.safe_globals(stubs):
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # what it cannot read, it refuses
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _distrust(path: Path, asked: str) -> WeightsError:
    return WeightsError(
        f"{path} holds more than weights and was not loaded: its pickle asks to run {asked}. Do not trust this file."
    )


def _line(error: Exception) -> str:
    """What went wrong, in one line; of torch's page about `weights_only` only the cause."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return (text.splitlines() or [type(error).__name__])[0][:200]


def _refused(error: Exception) -> str:
    """The function or class that a pickle wanted and torch refused; "" when the pickle is merely broken."""
    found = re.search(r"(?:GLOBAL|global:?|callable|class) [`'\"]?([\w.]+\.\w+)", str(error))
    return found.group(1) if found else ""
