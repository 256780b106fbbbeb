"""Maps of rooms in many steps (AUG): how many steps, how much guidance, and does the picture's latent matter?

    python bench/rooms_aug.py [--labels 250] [--train-steps 1500] [--test 60]
    python bench/rooms_aug.py --table bench/results/rooms-aug-DEVICE.json      # an earlier run's figures as Markdown

Adapters for normals and depth on `rooms-aug` (the picture's latent beside the noise) and on `rooms-sdedit` (the same network and
recipe, blind: the picture only sets where the trajectory starts). Both are drawn with DPM-Solver++: AUG for every number of
steps and every guidance weight, SDEdit for several strengths at 25 steps, unguided. Scored on test rooms against exact maps, with
95 % intervals, and by edge agreement with the input picture (`ilora_core.metrics.edges`), beside the mean map, the true map's own
agreement, and the agreement of the same maps with other rooms' pictures (chance).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from record import record
from torch import Tensor

from ilora_core.artefact import find_artefacts
from ilora_core.bootstrap import draw_weights, interval
from ilora_core.config import RuntimeConfig
from ilora_core.controls import mean_map
from ilora_core.evaluate import compare
from ilora_core.fit import Validated, fit
from ilora_core.intrinsics import get_intrinsic
from ilora_core.metrics.edges import edge_agreement
from ilora_core.predict import Predictor
from ilora_core.report import grid_png
from ilora_rooms.experiment import Rows, Scores, fit_config
from ilora_rooms.source import RoomsSource

STEPS, WEIGHTS, STRENGTHS = (1, 2, 5, 10, 25), (1.0, 2.0, 3.0, 5.0, 7.0), (0.3, 0.5, 0.7, 0.9)
RATE, CLIP = 2e-3, 1.0
"""At 1e-2 without clipping the loss of normals rises again after 300 steps."""
SHOWN = 4


def main() -> None:
    args = _options()
    if args.table:
        return print(markdown(json.loads(args.table.read_text(encoding="utf-8"))["results"]))
    torch.set_num_threads(args.threads)
    labels, test = Rows.of(RoomsSource(n=args.labels)), Rows.of(RoomsSource(split="test", n=args.test))
    table: dict[str, Any] = {}
    for name in args.intrinsics.split(","):
        found = Scores(get_intrinsic(name), {}, {})
        truth = test.maps[name][0]
        found.add("mean map", mean_map(found.intrinsic, *labels.maps[name]).expand(args.test, -1, -1, -1), test)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(args.keep or scratch)
            for model in ("rooms-aug", "rooms-sdedit"):
                draw_cells(model, fitted(folder, model, name, args), found, test, args)
        table[name] = results(found, test, truth)
        pictures(found, test, args.pictures)
    settings = {name: value for name, value in vars(args).items() if name not in ("keep", "pictures", "table")}
    print(record("rooms-aug", torch.device(args.device), settings=settings, results=table).name)
    return None


def fitted(folder: Path, model: str, name: str, args: argparse.Namespace) -> Predictor:
    """The adapter of this recipe below `folder`, fitted there unless an earlier run with --keep left it."""
    recipe = f"{args.labels}-labels-{args.train_steps}-steps-batch-{args.batch}-lr-{args.lr:g}-seed-{args.seed}"
    folder = folder / model / f"{name}-{recipe}"
    if not (folder / name / "adapter_model.safetensors").is_file():
        train = {"steps": args.train_steps, "batch": args.batch, "lr": args.lr, "clip": CLIP, "warmup": 20}
        config = fit_config(
            [name],
            model=model,
            labels=args.labels,
            generator={"steps": 10},  # for the few held-out rooms that the adapter is chosen by
            train={**train, "schedule": "cosine", "seed": args.seed, "keep_every": -(-args.train_steps // 2)},
            runtime={"device": args.device},
        )
        for event in fit(config, folder, resume=(folder / "run.json").is_file()):
            if isinstance(event, Validated):
                print(f"{model}: {event.metric} {event.value} after {event.step} steps", flush=True)
    return Predictor(find_artefacts(folder), runtime=RuntimeConfig(device=args.device))


def draw_cells(model: str, drawer: Predictor, found: Scores, test: Rows, args: argparse.Namespace) -> None:
    """Draw and score the test rooms with every setting of this model."""
    generator: Any = drawer.generator
    if model == "rooms-aug":
        cells = {aug(steps, cfg): {"steps": steps, "cfg": cfg} for steps in STEPS for cfg in WEIGHTS}
    else:
        cells = {sdedit(strength): {"steps": 25, "cfg": 1.0, "strength": strength} for strength in STRENGTHS}
    for method, settings in cells.items():
        generator.sampling = replace(generator.sampling, **{"strength": 1.0, **settings})
        drawn = [drawer(part)[found.intrinsic.name] for part in test.pictures.split(args.chunk)]
        found.add(method, torch.cat(drawn), test)
        first, figure = next(iter(found.evaluations[method].figures.items()))
        print(f"{found.intrinsic.name:8s} {method:28s} {first} {figure.value:8.4f}", flush=True)


def aug(steps: int, cfg: float) -> str:
    return f"aug, {steps} steps, cfg {cfg:g}"


def sdedit(strength: float) -> str:
    return f"sdedit, strength {strength:g}"


def results(found: Scores, test: Rows, truth: Tensor) -> dict[str, Any]:
    """Method -> figure and edge agreement, each with its interval; and AUG beside SDEdit at the best of each."""
    told: dict[str, Any] = {}
    for method, value in found.maps.items():
        evaluation = found.evaluations[method]
        name, figure = next(iter(evaluation.figures.items()))
        told[method] = {"protocol": evaluation.protocol, name: figure.value, "low": figure.low, "high": figure.high}
        if method != "mean map":
            told[method]["edges"] = mean_of(edge_agreement(value, test.pictures))
            told[method]["edges by chance"] = mean_of(edge_agreement(value, test.pictures.roll(1, 0)))
    told["truth"] = {
        "edges": mean_of(edge_agreement(truth, test.pictures)),
        "edges by chance": mean_of(edge_agreement(truth, test.pictures.roll(1, 0))),
    }
    best_aug, best_sdedit = (best(found, kind) for kind in ("aug", "sdedit"))
    apart = edge_agreement(found.maps[best_aug], test.pictures) - edge_agreement(found.maps[best_sdedit], test.pictures)
    told["best"] = {
        "aug": best_aug,
        "sdedit": best_sdedit,
        "aug minus sdedit": compare(found.evaluations[best_aug], found.evaluations[best_sdedit]).to_json(),
        "edges, aug minus sdedit": mean_of(apart),
        "aug minus mean map": compare(found.evaluations[best_aug], found.evaluations["mean map"]).to_json(),
    }
    return told


def best(found: Scores, kind: str) -> str:
    """The method of this kind with the smallest error."""
    methods = [method for method in found.maps if method.startswith(f"{kind},")]
    return min(methods, key=lambda method: next(iter(found.evaluations[method].figures.values())).value)


def mean_of(values: Tensor) -> dict[str, float]:
    """Mean over pictures with its 95 % interval."""
    numbers = values[values.isfinite()].double().numpy()
    draws = torch.cat(
        [torch.from_numpy(w @ numbers / w.sum(1)) for w in draw_weights(len(numbers), resamples=1000, seed=0)]
    )
    low, high = interval(draws.numpy())
    return {"value": float(numbers.mean()), "low": low, "high": high}


def pictures(found: Scores, test: Rows, folder: Path) -> None:
    """One room for every setting, and several rooms beside SDEdit, as two PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    name, truth = found.intrinsic.name, _truth(found, test)
    columns = ("input", *(f"guidance {w:g}" for w in WEIGHTS), "truth")
    rows = [[test.pictures[0], *(found.picture(aug(steps, w), 0) for w in WEIGHTS), truth[0]] for steps in STEPS]
    titles = [f"{steps} step{'s' * (steps > 1)}" for steps in STEPS]
    grid_png(folder / f"rooms-aug-{name}-settings.png", rows, columns, row_titles=titles)
    methods = {"AUG": best(found, "aug")} | {f"SDEdit {s:g}": sdedit(s) for s in STRENGTHS}
    shown = range(min(SHOWN, len(test.keys)))
    rows = [[test.pictures[i], *(found.picture(m, i) for m in methods.values()), truth[i]] for i in shown]
    grid_png(folder / f"rooms-aug-{name}.png", rows, ("input", *methods, "truth"))


def markdown(results: Mapping[str, Any]) -> str:
    """Two tables for each map: steps by guidance, and SDEdit by strength, errors and edge agreement with their intervals."""
    lines = []
    for name, told in results.items():
        figure = next(key for key in told["mean map"] if key not in ("protocol", "low", "high"))
        lines += ["", f"{name}, {told['mean map']['protocol']} {figure}", ""]
        lines += ["| steps | " + " | ".join(f"guidance {w:g}" for w in WEIGHTS) + " | edges, guidance 1 |"]
        lines += ["|---:" * (len(WEIGHTS) + 2) + "|"]
        for steps in STEPS:
            cells = [told[aug(steps, w)] for w in WEIGHTS]
            shown = [_interval(cell[figure], cell) for cell in cells] + [_edges(cells[0])]
            lines.append(f"| {steps} | " + " | ".join(shown) + " |")
        lines += ["", "| SDEdit, 25 steps, guidance 1 | error | edges | by chance |", "|---|---:|---:|---:|"]
        for strength in STRENGTHS:
            cell = told[sdedit(strength)]
            shown = (_interval(cell[figure], cell), _edges(cell), _edges(cell, "edges by chance"))
            lines.append(f"| strength {strength:g} | " + " | ".join(shown) + " |")
        mean = told["mean map"]
        lines.append(f"| mean map | {_interval(mean[figure], mean)} | | |")
        lines.append(f"| truth | | {_edges(told['truth'])} | {_edges(told['truth'], 'edges by chance')} |")
        lines += ["", str(told["best"])]
    return "\n".join(lines)


def _interval(value: float, around: Mapping[str, float]) -> str:
    digits = 1 if value > 2 else 3
    return f"{value:.{digits}f} [{around['low']:.{digits}f}, {around['high']:.{digits}f}]"


def _edges(cell: Mapping[str, Any], name: str = "edges") -> str:
    return _interval(cell[name]["value"], cell[name])


def _truth(found: Scores, test: Rows) -> Sequence[Tensor]:
    truth, valid = test.maps[found.intrinsic.name]
    return [found.intrinsic.to_picture(truth[i : i + 1], valid[i : i + 1])[0] for i in range(min(SHOWN, len(truth)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intrinsics", default="normals,depth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lr", type=float, default=RATE)
    parser.add_argument("--keep", default="", help="folder for the adapters, to be used again by the next run")
    parser.add_argument("--pictures", type=Path, default=Path("docs"), help="where the PNGs go")
    parser.add_argument("--table", type=Path, help="print the tables of this record and do nothing else")
    numbers: Mapping[str, int] = {
        "labels": 250, "train-steps": 1500, "batch": 8, "test": 60, "seed": 0, "chunk": 50, "threads": 1,
    }  # fmt: skip
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
