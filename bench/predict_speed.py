"""Seconds per picture of `ilora predict`: one map and all maps, one picture at a time and several, in one run.

    shared    all maps from one encoding of each picture, as `Predictor` draws them
    apart     a predictor per map, each encoding the picture anew

All draw the same pictures (that both give the same maps is checked in the run) and take turns, so that other work on the machine
slows them alike; medians are reported. Speed does not depend on what adapters have learnt: without --adapters they are fitted for
one step.

    python bench/predict_speed.py                                                   # the rooms generator, any machine
    python bench/predict_speed.py --adapters runs/mine --size 512 --device cuda --precision bf16 [--compile]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from record import record, synchronize
from torch import Tensor

from ilora_core.artefact import Artefact, find_artefacts
from ilora_core.config import RuntimeConfig
from ilora_core.fit import fit
from ilora_core.predict import Predictor
from ilora_core.runtime import pick_device

NAMES = ("normals", "depth", "albedo", "shading")
Draw = Callable[[Tensor], dict[str, Tensor]]


def main() -> None:
    """Measure and write bench/results/."""
    args = _options()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    runtime = RuntimeConfig(device=args.device, precision=args.precision, compile=args.compile)
    with tempfile.TemporaryDirectory() as folder:
        artefacts = find_artefacts(args.adapters) if args.adapters else fitted_for_a_step(Path(folder) / "run")
        together = Predictor(artefacts, runtime=runtime)
        alone = [Predictor([artefact], runtime=runtime) for artefact in artefacts]

    def apart(pictures: Tensor) -> dict[str, Tensor]:
        return {name: value for drawer in alone for name, value in drawer(pictures).items()}

    every = f"{len(artefacts)} maps"
    ways = {"1 map": alone[0], f"{every}, shared": together, f"{every}, apart": apart}
    pictures = torch.rand(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    seconds = measure(ways, pictures, device, rounds=args.rounds)
    first, shared = together(pictures), f"{every}, shared"
    results = {
        "seconds_per_picture": {f"{way}, batch {batch}": told for (way, batch), told in seconds.items()},
        "apart_over_shared": {b: seconds[f"{every}, apart", b] / seconds[shared, b] for b in (1, args.batch)},
        "all_maps_over_one": {b: seconds[shared, b] / seconds["1 map", b] for b in (1, args.batch)},
        "batch_1_over_batch": {way: seconds[way, 1] / seconds[way, args.batch] for way in ways},
        "largest_difference_apart_shared": max(
            float((first[name] - value).abs().max()) for name, value in apart(pictures).items()
        ),
    }
    generator = artefacts[0].generator
    path = record(
        f"predict-speed-{generator}", device, settings={**vars(args), "generator": generator}, results=results
    )
    for key, value in results.items():
        print(key, value)
    print(path.name)


def fitted_for_a_step(folder: Path) -> Sequence[Artefact]:
    """Adapters for four maps of the rooms generator."""
    from ilora_rooms.experiment import fit_config

    train = {"steps": 1, "batch": 1, "keep_every": 1}
    config = fit_config(NAMES, labels=2, held_out=1, train=train, runtime={"device": "cpu"})
    for _ in fit(config, folder):
        pass
    return find_artefacts(folder)


def measure(
    ways: dict[str, Draw], pictures: Tensor, device: torch.device, *, rounds: int, warmup: int = 1
) -> dict[tuple[str, int], float]:
    """(way, pictures at once) -> median seconds per picture, for one at once and for all."""
    times: dict[tuple[str, int], list[float]] = {(way, batch): [] for way in ways for batch in (1, len(pictures))}
    for number in range(warmup + rounds):
        for (way, batch), taken in times.items():
            synchronize(device)
            started = time.perf_counter()
            for part in pictures.split(batch):
                ways[way](part)
            synchronize(device)
            if number >= warmup:
                taken.append((time.perf_counter() - started) / len(pictures))
    return {key: statistics.median(taken) for key, taken in times.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--adapters", default="", help="what a fit wrote; without it, of the rooms generator")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    for name, value in (("size", 64), ("batch", 8), ("rounds", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
