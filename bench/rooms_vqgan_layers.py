"""Does the decoder of a VQGAN need adapters outside its attention? Layers and ranks, on encoded rooms with exact maps.

    python bench/rooms_vqgan_layers.py [--labels 250] [--steps 400] [--test 100]

Every method sees the same labelled rooms, as the first stage's codes of them, the same steps, batches and rate (of 3e-3, 1e-2 and
3e-2 the best after 120 steps on held-out label rooms, for attention as for all convolutions). Scored on encoded test rooms
against exact maps. `random decoder` is the same on a decoder that never saw a picture: what the added parameters learn by
themselves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from record import record

from ilora_core.artefact import Artefact, find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.controls import mean_map
from ilora_core.evaluate import compare
from ilora_core.fit import fit
from ilora_core.intrinsics import get_intrinsic
from ilora_core.plugins import load_plugins
from ilora_core.predict import Predictor
from ilora_rooms.experiment import Rows, Scores
from ilora_rooms.source import RoomsSource

WAYS = (("attention", 8), ("attention", 32), ("convolutions", 8), ("convolutions", 32))
HELD_OUT = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intrinsics", default="normals,depth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="", help="another export than the shipped one")
    parser.add_argument("--lr", type=float, default=1e-2)
    for name, value in (("labels", 250), ("steps", 400), ("test", 100), ("batch", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    labels, test = Rows.of(RoomsSource(n=args.labels)), Rows.of(RoomsSource(split="test", n=args.test))
    table = {}
    for name in args.intrinsics.split(","):
        found = Scores(get_intrinsic(name), {}, {})
        found.add("mean map", mean_map(found.intrinsic, *labels.maps[name]).expand(args.test, -1, -1, -1), test)
        about = dict(methods(name, args, test, found))
        table[name] = {"methods": about, "convolutions minus attention, rank 8": difference(found)}
    path = record(
        "rooms-vqgan-layers",
        torch.device(args.device),
        settings={**vars(args), "held_out": HELD_OUT},
        results=table,
    )
    print(path.name)


def methods(name: str, args: argparse.Namespace, test: Rows, found: Scores) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fit and score every way on the trained and on a random decoder; method -> figures."""
    yield "mean map", told(found, "mean map")
    for adapt, rank in WAYS:
        for random in (False, True) if rank == WAYS[0][1] else (False,):
            method = f"{adapt}, rank {rank}{', random decoder' if random else ''}"
            with tempfile.TemporaryDirectory() as folder:
                artefacts = fit_one(Path(folder) / "run", name, adapt, rank, random, args)
                drawer = Predictor(artefacts, runtime=RuntimeConfig(device=args.device), host=load_plugins())
                found.add(method, torch.cat([drawer(part)[name] for part in test.pictures.split(25)]), test)
                parameters = sum(value.numel() for value in artefacts[0].tensors().values())
            yield method, {**told(found, method), "parameters": parameters}


def fit_one(
    folder: Path, name: str, adapt: str, rank: int, random: bool, args: argparse.Namespace
) -> Sequence[Artefact]:
    """Fit one adapter; the best by the held-out label rooms is kept."""
    train = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "schedule": "cosine", "warmup": 20}
    config = FitConfig(
        "rooms-vqgan",
        (get_intrinsic(name),),
        source="rooms",
        validation=HELD_OUT,
        settings={
            "generator": {"adapt": adapt, "weights": args.weights, "random_decoder": random},
            "source": {"split": "labels", "n": args.labels + HELD_OUT},
            "adapter": {"rank": rank},
            "train": {**train, "seed": args.seed, "keep_every": max(1, args.steps // 2)},
            "runtime": {"device": args.device},
        },
    )
    for _ in fit(config, folder):
        pass
    return find_artefacts(folder)


def told(found: Scores, method: str) -> dict[str, Any]:
    """The first figure of the protocol with its interval, printed too."""
    evaluation = found.evaluations[method]
    name, figure = next(iter(evaluation.figures.items()))
    print(
        f"{found.intrinsic.name:8s} {method:42s} {figure.value:8.4f} [{figure.low:.4f}, {figure.high:.4f}]", flush=True
    )
    return {"protocol": evaluation.protocol, name: figure.value, "low": figure.low, "high": figure.high}


def difference(found: Scores) -> dict[str, Any]:
    """Paired over the test rooms."""
    return compare(found.evaluations["convolutions, rank 8"], found.evaluations["attention, rank 8"]).to_json()


if __name__ == "__main__":
    main()
