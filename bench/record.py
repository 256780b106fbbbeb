"""How a benchmark's result is kept: one JSON per benchmark and device, the newest replacing the older one.

bench/results/<benchmark>-<device>.json
{"benchmark", "date", "command", "device", "versions", "settings", "results"}
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ilora_core.files import write_json
from ilora_core.machine import describe_device

__all__ = ["RESULTS", "describe_device", "record", "synchronize"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def record(
    benchmark: str,
    device: torch.device,
    *,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    folder: Path = RESULTS,
) -> Path:
    """Write a result and return its path. No path of this machine goes into it."""
    described = describe_device(device)
    stem = re.sub(r"[^a-z0-9]+", "-", f"{benchmark}-{described['name']}".lower()).strip("-")
    path = folder / f"{stem}.json"
    data = {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(_portable, sys.argv[1:])]),
        "device": described,
        "versions": {"python": platform.python_version(), **_versions()},
        "settings": {k: _portable(v) if isinstance(v, str) else v for k, v in settings.items()},
        "results": dict(results),
    }
    write_json(path, data)
    return path


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _portable(argument: str) -> str:
    """An absolute path belongs to one machine: its last part stands for it."""
    return Path(argument).name if Path(argument).is_absolute() else argument
