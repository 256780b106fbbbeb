"""Networks of transformers and diffusers from a folder: whole or not at all, quietly, and known by a fingerprint."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import WeightsError, first_line

__all__ = ["fingerprint", "load_pretrained", "misfits", "no_progress_bars"]

_DRAWS_BARS = ("diffusers.utils.logging", "transformers.utils.logging")


def load_pretrained(kind: Any, folder: Path, *, exact: bool = False, options: Mapping[str, Any] | None = None) -> Any:
    """`kind.from_pretrained(folder)` in float32, on the CPU, in eval mode, from local files alone.

    The libraries draw missing tensors at random and say so in their log only. Here they are refused.

    exact    refuse tensors that the network does not know, too
    options  further arguments of `from_pretrained`
    Raises WeightsError that names the folder and what is wrong with it.
    """
    given = {_precision(kind): torch.float32, "output_loading_info": True, "local_files_only": True, **(options or {})}
    with no_progress_bars():
        try:
            model, report = kind.from_pretrained(folder, **given)
        except Exception as error:  # OSError, ValueError, SafetensorError, KeyError …, by library and version
            raise WeightsError(
                f"cannot load {folder}: {first_line(error)}. The files may be incomplete: download or convert them again."
            ) from error
    surplus = "unexpected_keys" if exact else ""
    for what, key in (("lacks {} tensors", "missing_keys"), ("has {} tensors too many", surplus)):
        if names := sorted(report.get(key) or ()):
            raise WeightsError(
                f"{folder} {what.format(len(names))}, {names[0]} among them. Download or convert it again."
            )
    return model.eval()


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch transformers' and diffusers' bars off in the block: the command line draws one, and two do not share a terminal.

    A library that is not imported before the block is left alone.
    """
    modules: list[Any] = [sys.modules[name] for name in _DRAWS_BARS if name in sys.modules]
    switched = [module for module in modules if module.is_progress_bar_enabled()]
    for module in switched:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in switched:
            module.enable_progress_bar()


def misfits(network: nn.Module, tensors: Mapping[str, Tensor], *, unknown: Iterable[str] = ()) -> list[str]:
    """What keeps `tensors` from being all of the network's: "lacks a, b, c and 5 more", …; empty where they fit.

    unknown  names that found no place in it before, to be told with the others
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    odd = [f"{n} {tuple(t.shape)}" for n, t in tensors.items() if n in wanted and tuple(t.shape) != wanted[n]]
    found = (
        ("lacks", sorted(set(wanted) - set(tensors))),
        ("has the unknown", sorted([*unknown, *(set(tensors) - set(wanted))])),
        ("has another shape of", odd),
    )
    return [
        f"{what} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for what, names in found
        if names
    ]


def fingerprint(*networks: nn.Module, beside: Any = None) -> str:
    """sha256 of the networks' tensors and of plain data beside them: what decides their answers."""
    digest = hashlib.sha256(json.dumps(beside, sort_keys=True, default=str).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _precision(kind: type) -> str:
    """The name that the library of this class has for the type of the weights."""
    of_transformers = any(base.__module__.startswith("transformers.") for base in kind.__mro__)
    return "dtype" if of_transformers else "torch_dtype"
