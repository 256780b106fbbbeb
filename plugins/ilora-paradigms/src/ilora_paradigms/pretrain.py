"""Trains the paradigm network from nothing but authored paradigms, in pieces that resume.

    python -m ilora_paradigms.pretrain --preset cpu --out DIR --resume       # --preset gpu --device cuda
    python -m ilora_paradigms.pretrain --export DIR                          # ships DIR's best average

Every `--dev-every` steps the running average takes apart 50 rendered rooms that nothing was trained on; the average
with the least mean of A si, S si and ord-err (see `judge`) is kept as the best and is what an export ships. The loss on
paradigms does not choose: it keeps falling when answers on rooms no longer improve. Without the plugin ilora-rooms the
last average is shipped. States and a JSON-lines log are in DIR; SIGTERM and SIGINT end a run with a state.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import MissingDependency
from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms.dev import Truth, rooms
from ilora_paradigms.judge import FIGURES, choose_by, judge
from ilora_paradigms.net import ParadigmNet
from ilora_paradigms.pretrain_trainer import PRESETS, Plan, Trainer
from ilora_paradigms.split import divide, rescale, unclipped
from ilora_paradigms.states import latest_state

__all__ = ["dev_figures", "main", "run"]


def dev_figures(net: ParadigmNet, truth: Truth) -> dict[str, float]:
    """Mean figures of a network on development pictures, with "dev", the one to choose by."""
    rows = []
    with torch.inference_mode():
        for first in range(0, len(truth.keys), 10):
            part = slice(first, first + 10)
            linear = srgb_to_linear(truth.pictures[part])
            guess = rescale(*divide(linear, net(linear)[0]), unclipped(truth.pictures[part]))
            rows += judge(guess, truth.albedo[part], truth.shading[part], truth.valid[part])
    means = {name: sum(row[name] for row in rows) / len(rows) for name in FIGURES}
    return {"dev": choose_by(rows), **means}


def run(trainer: Trainer, out: Path, args: argparse.Namespace, truth: Truth | None) -> Path:
    """Steps until the plan, the minutes or a signal end it; returns the last state."""
    stop: list[int] = []
    before = {n: signal.signal(n, lambda got, _: stop.append(got)) for n in (signal.SIGTERM, signal.SIGINT)}
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{platform.machine()} CPU"
    facts: dict[str, Any] = {"device": name, "torch": torch.__version__, "chosen_on": _chosen_on(truth)}
    start = saved = time.monotonic()
    seen = []
    while trainer.step_number < trainer.plan.steps and time.monotonic() - start < 60 * args.minutes and not stop:
        seen.append(trainer.step())
        if trainer.step_number % args.log_every == 0:
            loss = torch.stack(seen).mean(0).tolist()
            _log(out, {"step": trainer.step_number, "loss": loss, "seconds": time.monotonic() - start})
            seen = []
        if truth is not None and trainer.step_number % args.dev_every == 0:
            _look(trainer, out, truth)
        if time.monotonic() - saved > 60 * args.save_minutes:
            trainer.save(out, facts)
            saved = time.monotonic()
    if truth is not None and not stop:
        _look(trainer, out, truth)
    for number, handler in before.items():
        signal.signal(number, handler)
    state = trainer.save(out, facts)
    print(f"stopped at step {trainer.step_number}, state in {state}", flush=True)
    return state


def _look(trainer: Trainer, out: Path, truth: Truth) -> None:
    found = {key: round(value, 4) for key, value in dev_figures(trainer.network(), truth).items()}
    best = trainer.keep_if_best(found["dev"], {key: value for key, value in found.items() if key != "dev"})
    _log(out, {"step": trainer.step_number, **found, "best": best})


def _log(out: Path, row: dict[str, Any]) -> None:
    row = {k: [round(x, 4) for x in v] if isinstance(v, list) else v for k, v in row.items()}
    if "seconds" in row:
        row["seconds"] = round(row["seconds"], 1)
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    print(row, flush=True)


def _chosen_on(truth: Truth | None) -> str:
    return "nothing: the last average" if truth is None else f"{len(truth.keys)} rooms of the split 'labeller'"


def _development(n: int, size: int) -> Truth | None:
    if n == 0:
        return None
    try:
        return rooms("labeller", n, size)
    except MissingDependency as error:
        print(f"no checkpoint can be chosen: {error}", flush=True)
        return None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--out", type=Path, help="run folder: states, log")
    parser.add_argument("--steps", type=int, help="another length than the preset's; the cosine ends there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop earlier, to be resumed")
    parser.add_argument("--resume", action="store_true", help="continue from OUT's latest state, if there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one is best on a busy machine")
    parser.add_argument("--dev", type=int, default=50, help="development rooms; 0 = choose nothing, ship the last")
    parser.add_argument("--dev-every", type=int, default=500)
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--export", type=Path, metavar="OUT", help="write OUT's best average as a labeler and exit")
    parser.add_argument("--to", type=Path, help="where --export writes; default: into this package")
    args = parser.parse_args(argv)
    if (args.out is None) == (args.export is None):
        parser.error("give --out to train or --export to ship")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return _ship(args.export, args.to)
    args.out.mkdir(parents=True, exist_ok=True)
    state = latest_state(args.out)
    if state is not None and not args.resume:
        raise SystemExit(f"{args.out} holds a run already ({state.name}): add --resume or choose another folder")
    plan = replace(PRESETS[args.preset], seed=args.seed)
    trainer = Trainer(plan if args.steps is None else replace(plan, steps=args.steps), args.device)
    if state is not None:
        trainer.load(state)
    run(trainer, args.out, args, _development(args.dev, plan.size))
    return None


def _ship(out: Path, target: Path | None) -> None:
    from ilora_paradigms.export import SHIPPED, export_network

    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run ilora_paradigms.pretrain --out first")
    facts = json.loads((state / "state.json").read_text(encoding="utf-8"))
    plan = Plan(**{**facts["plan"], "widths": tuple(facts["plan"]["widths"])})
    trainer = Trainer(plan)
    trainer.load(state)
    told = {key: facts[key] for key in ("device", "torch", "chosen_on", "plan", "best", "step")}
    folder = export_network(trainer.network("best"), target or SHIPPED, told)
    print(f"exported step {trainer.best_facts.get('step', trainer.step_number)} to {folder}")


if __name__ == "__main__":
    main()
