"""The loop around a trainer: steps until the visits, the minutes or a signal end it, with states and a log."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

import torch

__all__ = ["steps"]


def steps(trainer: Any, out: Path, args: argparse.Namespace, facts: dict[str, object]) -> None:
    """Steps until the visits, the minutes or a signal end it; states and a JSON-lines log."""
    stop: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda got, _: stop.append(got)) for number in signals]
    start = saved = time.monotonic()
    losses, begun = [], trainer.visits
    while trainer.visits < args.visits and time.monotonic() - start < 60 * args.minutes and not stop:
        losses.append(trainer.step())
        if trainer.step_number % args.log_every == 0:
            seconds = time.monotonic() - start
            row = {"visits": trainer.visits, "loss": round(float(torch.stack(losses).mean()), 5)}
            row |= {"seconds": round(seconds, 1), "visits_per_s": round((trainer.visits - begun) / seconds, 2)}
            losses = []
            with open(out / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
            trainer.refresh()
        if time.monotonic() - saved > 60 * args.save_minutes:
            trainer.save(out, facts, compact=args.compact)
            saved = time.monotonic()
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
    path = trainer.save(out, facts, compact=args.compact)
    print(f"stopped at {trainer.visits} visits, state in {path}", flush=True)
