"""Is a loss behind the decoder worth its work? Latent MSE against the task losses of `ilora_sd.decoded`, on rooms.

    latent                       generator.loss=latent: the squared error of latents
    decoded                      generator.loss=decoded, as many steps: the mean angle, or depth up to scale and shift
    decoded, equal time          as many steps as take the latent fit's time on this generator
    decoded, Stable Diffusion    as many steps as take the latent fit's FLOPs on SD1.5 at 512², batch 4, where the decoder costs
                                 more than the network

    python bench/rooms_losses.py [--steps 300] [--seeds 0,1,2] [--keep FOLDER] [--grid rooms-losses.png]

The quickstart's recipe, but the adapter after the last step is scored. Each loss, at each number of steps, has the best of a few
multiples of the quickstart's rate, or of more while the best is the least or the largest: by the first seed, on label rooms that
are neither fitted to nor held out; equal time takes the rate of equal steps. Intervals draw test rooms and seeds; differences are
paired over both. Depth is scored up to scale and shift, as the decoded loss leaves them free; by `relative01` as it comes out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from cached_vs_uncached import measure
from record import record
from torch import Tensor

from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import find_artefacts
from ilora_core.bootstrap import draw_crossed_weights, interval, statistic
from ilora_core.config import RuntimeConfig, TrainConfig, merge_settings
from ilora_core.evaluate import Evaluation, compare, evaluate_all
from ilora_core.fit import fit
from ilora_core.intrinsics import NORMALS, get_intrinsic
from ilora_core.plan import make_plan
from ilora_core.plugins import load_plugins
from ilora_core.predict import Predictor
from ilora_core.report import grid_png
from ilora_core.runtime import make_accelerator, place
from ilora_core.trainer import PreparedSet, Trainer
from ilora_rooms.experiment import Rows, Scores, fit_config
from ilora_rooms.generator import rooms
from ilora_rooms.quickstart import RATES
from ilora_rooms.source import RoomsSource

FIGURES = {
    "normals": (("normals-pooled", "mean_deg"), ("normals-pooled", "median_deg"), ("normals-pooled", "below_11_25")),
    "depth": (("marigold-lsq", "abs_rel"), ("marigold-lsq", "delta1"), ("relative01", "rms01")),
}
"""Protocol and figure; rates are chosen by the first."""
LATENT, DECODED, EQUAL, SD = "latent", "decoded", "decoded, equal time", "decoded, Stable Diffusion"
HELD_OUT = 24


def main() -> None:
    args = _options()
    torch.set_num_threads(args.threads)
    work = sd_work()
    seconds = step_seconds(args)
    ratio = {EQUAL: seconds["decoded"] / seconds["latent"], SD: work["decoded"]["step"] / work["latent"]["step"]}
    steps = {LATENT: args.steps, DECODED: args.steps} | {name: round(args.steps / r) for name, r in ratio.items()}
    print({"seconds a step": seconds, "steps": steps}, flush=True)
    rows = Rows.of(RoomsSource(n=args.labels + HELD_OUT + args.choose))
    choose, test = last(rows, args.choose), Rows.of(RoomsSource(split="test", n=args.test))
    results: dict[str, Any] = {"seconds_a_step": seconds, "sd15_flops": work, "ratio": ratio, "steps": steps}
    drawn: dict[str, Mapping[str, Tensor]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.intrinsics.split(","):
            bench = Bench(name, Path(args.keep or scratch), args)
            rates = {method: bench.rate(method, steps[method], choose) for method in (LATENT, DECODED, SD)}
            rates[EQUAL] = rates[DECODED]
            maps = {m: [bench.maps(m, steps[m], rates[m]["lr"], seed, test) for seed in seeds(args)] for m in steps}
            results[name] = {"rates": rates, **scored(name, maps, test)}
            drawn[name] = {method: each[0] for method, each in maps.items()}
    if args.grid:
        grid(Path(args.grid), drawn, test)
    given = {name: value for name, value in vars(args).items() if name not in ("keep", "grid")}
    settings = {**given, "held_out": HELD_OUT, "preset": merge_settings("rooms", "rooms", {})}
    print(record("rooms-losses", torch.device(args.device), settings=settings, results=results).name)


class Bench:
    """Fits of one map, kept in a folder: what is there already is not fitted again, and a fit that was cut off goes on."""

    def __init__(self, name: str, folder: Path, args: argparse.Namespace):
        self.name, self.folder, self.args = name, folder, args
        self.host = load_plugins()

    def rate(self, method: str, steps: int, choose: Rows) -> dict[str, Any]:
        """The best rate, and the first figure under each of them, on rooms to choose by."""
        (protocol, figure), *_ = FIGURES[self.name]
        found: dict[float, float] = {}
        waiting = [float(each) * RATES[self.name] for each in self.args.rates.split(",")]
        while waiting:
            for lr in waiting:
                drawn = self.maps(method, steps, lr, seeds(self.args)[0], choose)
                found[lr] = judged(self.name, drawn, choose)[protocol].figures[figure].value
                print(f"{self.name} {method}, {steps} steps at {lr:g}: {figure} {found[lr]:.4f}", flush=True)
            best = min(found, key=lambda lr: found[lr])
            beyond = {min(found): best / 2, max(found): best * 2}
            waiting = [beyond[best]] if best in beyond and len(found) > 1 else []
        return {"lr": best, "tried": found}

    def maps(self, method: str, steps: int, lr: float, seed: int, on: Rows) -> Tensor:
        """Maps (N,C,H,W) of the rooms by an adapter that was fitted so."""
        config = fit_config(
            [self.name],
            labels=self.args.labels,
            held_out=HELD_OUT,
            generator={"timestep": self.args.timestep, "loss": "latent" if method == LATENT else "decoded"},
            train={**merge_settings("rooms", "rooms", {})["train"], "steps": steps, "lr": lr, "seed": seed}
            | {"keep_every": steps, "batch": self.args.batch},
            runtime={"device": self.args.device},
        )
        loss = config.settings["generator"]["loss"]
        folder = self.folder / f"{self.name}-{loss}-{steps}-{lr:g}-{seed}"
        for _ in fit(config, folder, resume=(folder / "run.json").is_file(), host=self.host):
            pass
        drawer = Predictor(find_artefacts(folder), runtime=RuntimeConfig(device=self.args.device), host=self.host)
        return torch.cat([drawer(part)[self.name].cpu() for part in on.pictures.split(25)])


def scored(name: str, maps: Mapping[str, Sequence[Tensor]], test: Rows) -> dict[str, Any]:
    """Method -> figures over rooms and seeds; and the differences from the latent loss."""
    evaluations = {method: [judged(name, value, test) for value in each] for method, each in maps.items()}
    table: dict[str, Any] = {"methods": {}, "minus latent": {}}
    for method, each in evaluations.items():
        told = table["methods"][method] = {}
        less = table["minus latent"][method] = {}
        for protocol, figure in FIGURES[name]:
            ours, base = ([one[protocol] for one in side] for side in (each, evaluations[LATENT]))
            told[figure] = pooled(ours, None, figure)
            less[figure] = pooled(ours, base, figure)
            less[figure]["seeds"] = [compare(a, b, figure).to_json() for a, b in zip(ours, base, strict=True)]
            shown = [f"{x['value']:.4f} [{x['low']:.4f}, {x['high']:.4f}]" for x in (told[figure], less[figure])]
            print(f"{name:8s} {method:26s} {figure:12s} {shown[0]}  minus latent {shown[1]}", flush=True)
    del table["minus latent"][LATENT]
    return table


def judged(name: str, maps: Tensor, on: Rows) -> dict[str, Evaluation]:
    """Protocol -> figures of the rooms' maps."""
    pairs = zip(on.keys, maps, *on.maps[name], strict=True)
    return evaluate_all(pairs, get_intrinsic(name), protocols=list(dict.fromkeys(p for p, _ in FIGURES[name])))


def pooled(ours: Sequence[Evaluation], base: Sequence[Evaluation] | None, figure: str) -> dict[str, Any]:
    """A figure over rooms and seeds, less the base's if there is one, with an interval that draws both."""
    sides = [columns(side, figure) for side in (ours, base) if side]
    pool, rooms = ours[0].figures[figure].pool, len(ours[0].pictures)

    def value(weights: np.ndarray) -> np.ndarray:
        first, *second = (statistic(pool, weights, *side) for side in sides)
        return first - second[0] if second else first

    draws = draw_crossed_weights(len(ours), rooms, resamples=2000, seed=0)
    low, high = interval(np.concatenate([value(weights) for weights in draws]))
    return {"value": float(value(np.ones((1, len(ours) * rooms)))[0]), "low": low, "high": high}


def columns(seeds: Sequence[Evaluation], figure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Figures, pixels and histograms of every room under every seed, seed by seed."""
    rows = [row for evaluation in seeds for row in evaluation.pictures.values()]
    found = [evaluation.histograms for evaluation in seeds if evaluation.histograms is not None]
    figures, pixels = (np.array([row[name] for row in rows]) for name in (figure, "pixels"))
    return figures, pixels, np.concatenate(found) if found else None


def step_seconds(args: argparse.Namespace) -> dict[str, float]:
    """Loss -> median seconds of a step, taken in turns; of the CPU's own time where it is the device."""
    device = torch.device(args.device)
    labels = Rows.of(RoomsSource(n=4 * args.batch))
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    calls = {loss: stepper(loss, labels, args) for loss in ("latent", "decoded")}
    return measure(calls, device, rounds=args.rounds, warmup=3, clock=clock)


def stepper(loss: str, labels: Rows, args: argparse.Namespace) -> Any:
    """What takes one training step of normals."""
    runtime = RuntimeConfig(device=args.device)
    accelerator, generator = make_accelerator(runtime), rooms(timestep=args.timestep, loss=loss)
    place(generator, runtime, accelerator)
    adapter = LoraAdapter(rank=8)
    adapter.attach(generator.net, generator.targets)
    value, valid = labels.maps["normals"]
    codes = dict(generator.encode(labels.pictures))
    codes |= generator.prepare(codes, NORMALS, NORMALS.to_picture(value, valid), valid)
    config = TrainConfig(steps=10**6, batch=args.batch, lr=RATES["normals"], keep_every=10**6)
    steps = iter(Trainer(generator, adapter, NORMALS, PreparedSet(labels.keys, codes), config, accelerator))
    return lambda: next(steps)


def sd_work() -> dict[str, dict[str, int]]:
    """Loss -> FLOPs of SD1.5's parts at 512², batch 4."""
    given = {"train": {"batch": 4}}
    plans = {
        loss: make_plan(load_plugins(), "sd15", settings={**given, "generator": {"loss": loss}})
        for loss in ("latent", "decoded")
    }
    return {loss: {part: plan.flops[part] for part in ("forward", "backward", "step")} for loss, plan in plans.items()}


def last(rows: Rows, n: int) -> Rows:
    """The last n rooms."""
    maps = {name: (value[-n:], valid[-n:]) for name, (value, valid) in rows.maps.items()}
    return Rows(rows.keys[-n:], rows.pictures[-n:], maps)


def grid(path: Path, drawn: Mapping[str, Mapping[str, Tensor]], test: Rows, shown: int = 4) -> None:
    """Input, and for each map: latent, decoded, truth; of the first rooms, with the first seed."""
    titles, lines = ["input"], [[test.pictures[i]] for i in range(shown)]
    for name, maps in drawn.items():
        found = Scores(get_intrinsic(name), {}, dict(maps))
        truth = found.intrinsic.to_picture(*(part[:shown] for part in test.maps[name]))
        titles += [f"{name}: latent", "decoded", "truth"]
        for i, line in enumerate(lines):
            line += [found.picture(LATENT, i), found.picture(DECODED, i), truth[i]]
    grid_png(path, lines, titles)


def seeds(args: argparse.Namespace) -> list[int]:
    return [int(seed) for seed in args.seeds.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intrinsics", default="normals,depth")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rates", default="0.5,1,2", help="multiples of the quickstart's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", default="", help="keep adapters here, and go on from what is here already")
    parser.add_argument("--grid", default="", help="write a grid of maps to this PNG")
    numbers = {"steps": 300, "labels": 250, "choose": 100, "test": 100, "timestep": 300, "batch": 4, "rounds": 40}
    for name, value in {**numbers, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
