"""The tensors of a checkpoint, read without running anything that it holds.

A .ckpt, .pt or .pth is a pickle. torch's restricted unpickler reads it; the classes that training tools left beside the
weights become empty stand-ins, so that nothing of their names is imported, called or built. A file that asks for anything
else is refused, by name.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import WeightsError, first_line

__all__ = ["LEFTOVERS", "read_checkpoint", "read_tensors"]

LEFTOVERS = (
    *("pytorch_lightning.", "lightning.", "lightning_fabric.", "lightning_utilities.", "omegaconf."),
    *("typing.Any", "collections.defaultdict"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "list", "int", "float")),
)
"""What Lightning and OmegaConf leave in a checkpoint: names, and packages, which end with a dot."""
_HARMLESS = frozenset({"dict", "list", "tuple", "set", "frozenset", "int", "float", "complex", "bool", "str", "slice"})
_RUNS_CODE = frozenset(
    {
        *("asyncio", "code", "codeop", "commands", "ctypes", "imp", "importlib", "marshal", "multiprocessing", "nt"),
        *("operator", "os", "pickle", "platform", "posix", "pty", "runpy", "shutil", "signal", "socket", "subprocess"),
        *("sys", "threading", "timeit", "types", "webbrowser"),
    }
)
_USUAL = (  # for files from before the zip format, whose names cannot be listed without reading them
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "argparse.Namespace",
)


class _StandIn(dict):
    """An object of a class that is not here; takes any arguments, items and state and keeps none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_tensors(
    path: Path, *, under: str = "state_dict", leftovers: Collection[str] = LEFTOVERS, strangers: bool = False
) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .ckpt, .pt or .pth by name, on the CPU; none where it holds something else.

    under  where a dictionary may keep them; without that entry it is taken for the tensors themselves
    The others are those of `read_checkpoint`, as are the errors.
    """
    data = read_checkpoint(path, leftovers=leftovers, strangers=strangers)
    tensors = data.get(under, data) if isinstance(data, Mapping) else {}
    tensors = tensors if isinstance(tensors, Mapping) else {}
    return {name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, Tensor)}


def read_checkpoint(path: Path, *, leftovers: Collection[str] = LEFTOVERS, strangers: bool = False) -> Any:
    """All that a checkpoint holds: tensors on the CPU, plain data, and stand-ins.

    leftovers  classes that become stand-ins: names, and packages that end with a dot
    strangers  so does every other class, unless the only use of its module is to run code
    Raises WeightsError for a file that is missing, incomplete, or asks for more.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}. Check the path of the weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _unpickle(path, lambda name: not _runs_code(name) and (strangers or _is_among(name, leftovers)))
    except WeightsError:
        raise
    except Exception as error:  # UnpicklingError, SafetensorError, RuntimeError, EOFError …, by format and version
        if isinstance(error, pickle.UnpicklingError) and (asked := _refused(error)):
            raise _distrust(path, asked) from error
        raise WeightsError(
            f"{path} cannot be read: {_cause(error)}. It is probably incomplete: compare its size, download it again."
        ) from error


def _unpickle(path: Path, inert: Callable[[str], bool]) -> Any:
    mapped = zipfile.is_zipfile(path)  # older files are plain pickles and cannot be mapped
    listed = torch.serialization.get_unsafe_globals_in_checkpoint(path) if mapped else []
    if strange := sorted(name for name in listed if not inert(name)):
        raise _distrust(path, ", ".join(strange[:3]))
    names = listed if mapped else [name for name in _USUAL if inert(name)]
    # One class each: Lightning keys a dictionary by them.
    stand_ins: list[Any] = [(type("_StandIn", (_StandIn,), {}), name) for name in names]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # what it cannot read, it refuses
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _is_among(name: str, known: Collection[str]) -> bool:
    return any(name == entry or (entry.endswith(".") and name.startswith(entry)) for entry in known)


def _runs_code(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return attribute not in _HARMLESS
    return module.partition(".")[0] in _RUNS_CODE


def _distrust(path: Path, asked: str) -> WeightsError:
    return WeightsError(
        f"{path} holds more than weights and was not loaded: its pickle asks to run {asked}. Do not trust this file."
    )


def _cause(error: Exception) -> str:
    """What went wrong, in one line; of torch's page about `weights_only` only the cause."""
    cause = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return first_line(WeightsError(cause)) if cause else type(error).__name__


def _refused(error: Exception) -> str:
    """The function or class that a pickle wanted and torch refused; "" when the pickle is merely broken."""
    found = re.search(r"GLOBAL [`'\"]?([\w.]+)|(?:global:?|callable|class) [`'\"]?([\w.]+\.\w+)", str(error))
    return found.group(1) or found.group(2) if found else ""
