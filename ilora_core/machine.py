"""What a figure's reader must know of the machine it was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_device"]


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, and what else a reader needs to compare: threads of a CPU, memory of a GPU."""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        name = facts.name
        return {
            "name": name,
            "type": "cuda",
            "memory_gb": round(facts.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
        }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "name": f"cpu {platform.machine()}",
        "type": "cpu",
        "model": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": load and round(load, 1),  # other work on the machine: absolute times suffer, ratios hardly
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
