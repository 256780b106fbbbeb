"""Rooms rendered per second, with all maps, at 64² and 128².

python bench/gpu/render_rooms.py --device cuda
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from keep import keep

from ilora_rooms.render import render
from ilora_rooms.splits import seeds

__all__ = ["main", "throughput"]


def throughput(size: int, count: int, device: str) -> float:
    """Rooms per second after a first small call that warms up."""
    render(seeds("pretrain", min(8, count)), size=size, device=device)
    _wait(device)
    started = time.perf_counter()
    render(seeds("pretrain", count), size=size, device=device)
    _wait(device)
    return count / (time.perf_counter() - started)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=0, help="rooms per size; 0 = 1024 on a GPU, 16 on a CPU")
    args = parser.parse_args()
    count = args.count or (1024 if args.device.startswith("cuda") else 16)
    results = {f"rooms_per_second_{size}": round(throughput(size, count, args.device), 2) for size in (64, 128)}
    path = keep("rooms-renderer", args.device, "renderer", {"settings": {"count": count}, "results": results})
    print(results, path.name)


if __name__ == "__main__":
    main()
