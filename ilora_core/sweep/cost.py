"""What a cell costs: wall and CPU seconds, and the peak of memory while it was worked on.

CPU seconds are the process's own, over all of its threads. Peak memory is resident memory on the host (Linux sets its high-water
mark back when asked; elsewhere it is the highest since the process began) and allocated memory on a CUDA device.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["Meter"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MIB = 2**20


class Meter:
    """Starts when it is made; `read` is what has come up since, on top of `before`."""

    def __init__(self, before: dict[str, float] | None = None):
        self._before = before or {}
        self._own_peak = _reset_peak()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """wall_s, cpu_s, peak_mib and, where there is one, device_peak_mib."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        found = {
            "wall_s": round(self._before.get("wall_s", 0.0) + wall, 3),
            "cpu_s": round(self._before.get("cpu_s", 0.0) + cpu, 3),
            "peak_mib": max(self._before.get("peak_mib", 0.0), _peak_mib(own=self._own_peak)),
        }
        if torch.cuda.is_available():
            device = round(torch.cuda.max_memory_allocated() / _MIB, 1)
            found["device_peak_mib"] = max(self._before.get("device_peak_mib", 0.0), device)
        return found


def _reset_peak() -> bool:
    """Set the high-water marks back; whether the host's could be."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")  # proc(5)
        return True
    return False


def _peak_mib(*, own: bool) -> float:
    if own:
        with suppress(OSError, StopIteration):
            line = next(line for line in _STATUS.read_text("ascii").splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB, 1)
