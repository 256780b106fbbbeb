"""LoRA against full fine-tuning of the same network, by number of labels, on rooms that neither has seen.

    python bench/full_finetuning.py [--labels 16,64,250] [--steps 400] [--test 100] [--timestep 300]

Normals only. Both see the same labels, steps and batches; each has its own learning rate, since one suits neither.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from record import record

from ilora_core.fit import fit
from ilora_core.plugins import load_plugins
from ilora_rooms.experiment import Rows, Scores, fit_config, score_adapters, score_controls
from ilora_rooms.generator import rooms
from ilora_rooms.source import RoomsSource

RATES = {"lora": 5e-3, "full": 5e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", default="16,64,250")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--timestep", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    test = Rows.of(RoomsSource(split="test", n=args.test))
    table = {}
    for labels in (int(text) for text in args.labels.split(",")):
        scores = score_controls(
            rooms(timestep=args.timestep), Rows.of(RoomsSource(split="labels", n=labels)), test, ["normals"]
        )
        for adapter in RATES:
            fit_and_score(adapter, labels, args, test, scores)
        table[labels] = scores["normals"].evaluations
        for method, evaluation in table[labels].items():
            figure = evaluation.figures["mean_deg"]
            print(
                f"{labels:5d} labels  {method:14s} {figure.value:6.2f}° [{figure.low:.2f}, {figure.high:.2f}]",
                flush=True,
            )
    figures = {
        str(labels): {
            method: {
                "mean_deg": e.figures["mean_deg"].value,
                "ci95": [e.figures["mean_deg"].low, e.figures["mean_deg"].high],
            }
            for method, e in evaluations.items()
        }
        for labels, evaluations in table.items()
    }
    settings = {"steps": args.steps, "test": args.test, "timestep": args.timestep, "seed": args.seed, "lr": RATES}
    results = {"protocol": "normals-pooled", "labels": figures}
    print(record("full-finetuning", torch.device("cpu"), settings=settings, results=results))


def fit_and_score(adapter: str, labels: int, args: argparse.Namespace, test: Rows, scores: dict[str, Scores]) -> None:
    train = {
        "steps": args.steps,
        "batch": 4,
        "lr": RATES[adapter],
        "schedule": "cosine",
        "warmup": 20,
        "seed": args.seed,
        "keep_every": args.steps,
    }
    config = fit_config(
        ["normals"], labels=labels, held_out=8, adapter=adapter, generator={"timestep": args.timestep}, train=train
    )
    host = load_plugins()
    with tempfile.TemporaryDirectory() as folder:
        for _ in fit(config, Path(folder) / "out", host=host):
            pass
        score_adapters(Path(folder) / "out", test, scores, host, adapter)


if __name__ == "__main__":
    main()
