"""Hands a step's figures to bench/record.py and prints where they went; a child of bench/gpu/run.py."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from record import RESULTS, record

__all__ = ["keep"]


def keep(name: str, device: str, step: str, data: dict, folder: Path = RESULTS) -> Path:
    """Record and correct the command: what a person types is run.py."""
    path = record(name, torch.device(device), settings=data["settings"], results=data["results"], folder=folder)
    written = json.loads(path.read_text(encoding="utf-8"))
    written["command"] = f"python bench/gpu/run.py --only {step}"
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("name")
    parser.add_argument("package", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--step", required=True)
    args = parser.parse_args()
    path = keep(args.name, args.device, args.step, json.loads(args.package.read_text(encoding="utf-8")))
    print(path.resolve().relative_to(Path(__file__).resolve().parents[2]))


if __name__ == "__main__":
    main()
