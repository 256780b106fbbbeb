"""Checkpoints of one pre-training, from random weights on: the generators behind a curve of map quality against picture quality.

    OUT/visits-000000/  visits-001000/  …     diffusers folders as `weights/ldm`: --set generator.weights=FOLDER
    OUT/state-…/  log.jsonl  cache/           what a run needs to go on, the loss, rendered pictures

Data, loss and plan are those of the shipped model (`pretrain`, `weights/ldm/weights.json`), and so is the codec, copied: what is
compared is the network. Every folder holds the average of the weights, whose horizon grows with the steps and so never reaches
back to the random start. After a kill the same command with --resume goes on; on a CPU, and with the same rendered pictures, the
folders are those of the unbroken run.

    python -m ilora_rooms.trajectory --out OUT --visits 0,500,2000,8000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch

from .checkpoint import latest_state
from .codec import PatchCodec
from .data import Pictures
from .export import export_folder
from .generator import SHIPPED
from .pretrain import Plan, Trainer, versions
from .pretrain_loop import steps
from .pretrain_options import refuse_or_resume, rendered

__all__ = ["checkpoint_folder", "main", "shipped_plan", "trajectory"]


def shipped_plan(seed: int = 0) -> Plan:
    """What the shipped model was trained with in the end."""
    told = json.loads((SHIPPED / "weights.json").read_text(encoding="utf-8"))["plan"]
    return Plan(**{**{f.name: told[f.name] for f in fields(Plan)}, "widths": tuple(told["widths"]), "seed": seed})


def checkpoint_folder(out: Path, visits: int) -> Path:
    """Where the checkpoint of this many visits lies."""
    return out / f"visits-{visits:06d}"


def trajectory(trainer: Trainer, out: Path, visits: Sequence[int], args: argparse.Namespace) -> bool:
    """Train on to each number of visits and export there; False if a signal ended it before the last.

    args: of `main`; what `pretrain_loop.steps` reads.
    """
    facts: dict[str, object] = {**versions(args.device), "pictures": len(trainer.data)}
    _check(out, trainer, visits)
    for mark in sorted(visits):
        folder = checkpoint_folder(out, mark)
        if folder.exists():
            continue
        steps(
            trainer, out, argparse.Namespace(**{**vars(args), "visits": mark, "minutes": 1e9, "compact": False}), facts
        )
        if trainer.visits < mark:
            return False
        plan = asdict(trainer.plan)
        export_folder(
            trainer.averaged(), folder, {**facts, "visits": trainer.visits, "weights": "average", "plan": plan}
        )
        print(f"wrote {folder}", flush=True)
    return True


def _check(out: Path, trainer: Trainer, visits: Sequence[int]) -> None:
    """A run goes on only as itself, and only forwards."""
    state = latest_state(out)
    if state is not None:
        meta = json.loads((state / "state.json").read_text(encoding="utf-8"))
        now = json.loads(json.dumps({"plan": asdict(trainer.plan), "pictures": len(trainer.data)}))
        other = [name for name in now if meta[name] != now[name]]
        if other:
            raise SystemExit(
                f"{out} was begun with another {' and '.join(other)}: give the same options or another --out"
            )
    passed = [v for v in visits if v <= trainer.visits - trainer.plan.batch and not checkpoint_folder(out, v).exists()]
    if passed:
        raise SystemExit(f"{out} is at {trainer.visits} visits, past {passed[0]}: choose later ones or another --out")


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 0 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"numbers of visits, different and not below 0, not {text}")
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--visits", type=_numbers, default=[0, 1000, 4000, 16000], help="pictures seen, with commas")
    parser.add_argument("--shards", type=int, default=6, help="render this many shards of 500 pictures before starting")
    parser.add_argument("--cache", type=Path, help="rendered shards (default OUT/cache)")
    parser.add_argument("--resume", action="store_true", help="continue from OUT's latest state, if there is one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one is best on a busy machine")
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--log-every", type=int, default=50)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    data = Pictures(rendered(args))
    data.rescan()
    trainer = Trainer(shipped_plan(args.seed), PatchCodec.from_pretrained(SHIPPED, subfolder="vae"), data, args.device)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    if not trajectory(trainer, args.out, args.visits, args):
        raise SystemExit(f"stopped at {trainer.visits} visits: go on with --resume")


if __name__ == "__main__":
    main()
