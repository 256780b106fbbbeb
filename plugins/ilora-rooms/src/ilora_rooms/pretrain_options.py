"""The command line that all pre-training scripts share: where a run lives, how long it goes on, what an export writes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checkpoint import latest_state
from .data import write_shard

__all__ = ["options", "parsed", "refuse_or_resume", "rendered"]


def options(
    doc: str | None, *, shipped: Path, holds: str, exports: str, shards: bool = True
) -> argparse.ArgumentParser:
    """A parser with the shared options; a script adds what decides its weights.

    holds    what the run folder holds beside states and log
    exports  what --export writes
    shards   whether the script learns from rendered shards
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--out", type=Path, help=f"run folder: states, log{holds}")
    if shards:
        add("--cache", type=Path, help="rendered shards (default OUT/cache)")
        add("--shards", type=int, default=4, help="render up to this many shards of 500 before starting")
        add("--compact", action="store_true", help="smaller states; resuming is close, not exact")
    add("--device", default="cpu")
    add("--minutes", type=float, default=1e9, help="stop earlier, to be resumed")
    add("--resume", action="store_true", help="continue from OUT's latest state, if there is one")
    add("--threads", type=int, default=1, help="CPU threads; one is best on a busy machine")
    add("--save-minutes", type=float, default=3)
    add("--log-every", type=int, default=50)
    add("--export", type=Path, metavar="OUT", help=f"{exports} and exit")
    add("--to", type=Path, default=shipped, help="where --export writes")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; a run has --out, an export --export."""
    args = parser.parse_args(argv)
    if (args.out is None) == (args.export is None):
        parser.error("give --out to train or --export to ship")
    return args


def rendered(args: argparse.Namespace, *, styles: int = 1) -> Path:
    """The folder of shards, with as many as were asked for; the run folder exists afterwards."""
    args.out.mkdir(parents=True, exist_ok=True)
    cache = args.cache or args.out / "cache"
    for shard in range(args.shards):
        write_shard(cache, shard, device=args.device, styles=styles)
    return cache


def refuse_or_resume(trainer: Any, out: Path, *, wanted: bool) -> None:
    """Load the latest state of `out`, if there is one; refuse to run over one that was not asked for."""
    state = latest_state(out)
    if state is not None and not wanted:
        raise SystemExit(f"{out} holds a run already ({state.name}): add --resume or choose another folder")
    if state is not None:
        trainer.load(state)
