"""Do tiles help? Rooms four times as wide as the generator draws: tiles that agree with the native map against that map alone.

    native            the map at the generator's own 64², enlarged
    native, blurred   the same, blurred as where the tiles take their coarse structure from it: what blurring alone does
    tiles, as drawn   overlapping tiles blended without bringing them to the native map
    tiles             `ilora predict --process tile`

    ilora quickstart && python bench/tiled_rooms.py --adapters quickstart/adapters [--size 256] [--rooms 24] [--overlap 0.25]
    python bench/tiled_rooms.py [--intrinsics normals,depth,albedo,shading] [--steps 300] [--labels 250]    # fits its own

Scored against exact maps of rooms that neither generator nor adapters have seen, with paired differences over rooms.

Seam energy is the mean of |(v[b] - v[b-1]) - ½ (v[b-1] - v[b-2]) - ½ (v[b+1] - v[b])| across lines b.

    seam_ratio   across tile borders / across the other lines where the generator's patches meet. What lies at the lines differs;
                 the ratios of the true map and of the native one, which has no tiles, say by how much
    seam_paired  the same lines in two tilings with other overlaps: where they are borders / where they are none

1 = a border cannot be told from other lines.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from record import record
from torch import Tensor

from ilora_core.artefact import Artefact, find_artefacts
from ilora_core.bootstrap import draw_weights, interval
from ilora_core.config import RuntimeConfig
from ilora_core.evaluate import compare
from ilora_core.fit import fit
from ilora_core.intrinsics import get_intrinsic
from ilora_core.predict import Predictor
from ilora_core.tiling import corners, low_pass, tile_maps
from ilora_rooms.experiment import Rows, Scores, fit_config
from ilora_rooms.source import RoomsSource

RATES = {"normals": 5e-3, "depth": 3e-3, "albedo": 3e-3, "shading": 3e-3}
NATIVE, BLURRED, DRAWN, TILES = "native", "native, blurred", "tiles, as drawn", "tiles"


def main() -> None:
    args = _options()
    torch.set_num_threads(args.threads)
    names = args.intrinsics.split(",")
    with tempfile.TemporaryDirectory() as folder:
        artefacts = [a for name in names for a in fitted(Path(args.adapters or folder) / name, name, args)]
        drawer = Predictor(artefacts, runtime=RuntimeConfig(device=args.device))
    recipe = {artefact.intrinsic.name: artefact.record["config"]["settings"]["train"] for artefact in artefacts}
    rooms = Rows.of(RoomsSource(split="test", n=args.rooms, size=args.size, device=args.device))
    drawn, again = (draw_all(drawer, rooms.pictures, overlap, args) for overlap in overlaps(args))
    table = {}
    for name in names:
        maps, others = ({m: each[name] for m, each in by.items()} for by in (drawn, again))
        table[name] = scored(name, maps, others, rooms, drawer, args)
    for name, found in table.items():
        for method, told in found.items():
            print(name, method, told, flush=True)
    settings = {**vars(args), "recipe": recipe}
    print(record("tiled-rooms", torch.device(args.device), settings=settings, results=table).name)


def fitted(folder: Path, name: str, args: argparse.Namespace) -> Sequence[Artefact]:
    """The adapter for a map in `folder`, fitted there unless --adapters brought it."""
    if not args.adapters:
        train = {"steps": args.steps, "batch": 4, "lr": RATES[name], "schedule": "cosine", "warmup": 20}
        config = fit_config(
            [name],
            labels=args.labels,
            generator={"timestep": args.timestep},
            train={**train, "seed": args.seed, "keep_every": max(1, args.steps // 2)},
            runtime={"device": args.device},
        )
        for _ in fit(config, folder):
            pass
    return find_artefacts(folder)


@torch.inference_mode()
def draw_all(
    drawer: Predictor, pictures: Tensor, overlap: float, args: argparse.Namespace
) -> dict[str, dict[str, Tensor]]:
    """Method -> intrinsic -> maps (N,C,H,W)."""
    drawn: dict[str, list[Mapping[str, Tensor]]] = {NATIVE: [], BLURRED: [], DRAWN: [], TILES: []}
    for part in pictures.split(args.batch):
        tiles = {"side": drawer.generator.resolution[0], "overlap": overlap, "batch": args.batch}
        native, pixel = drawer(part), args.size / tiles["side"]
        drawn[NATIVE].append(native)
        drawn[BLURRED].append({name: low_pass(value, pixel) for name, value in native.items()})
        bare = tile_maps(
            lambda crops: drawer.from_codes(drawer.generator.encode(crops)), part, {}, drawer.intrinsics, **tiles
        )
        drawn[DRAWN].append(bare)
        drawn[TILES].append(drawer(part, process="tile", overlap=overlap, batch=args.batch))
    return {m: {name: torch.cat([p[name] for p in parts]) for name in parts[0]} for m, parts in drawn.items()}


def scored(
    name: str,
    maps: Mapping[str, Tensor],
    again: Mapping[str, Tensor],
    rooms: Rows,
    drawer: Predictor,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Figures, paired differences, and seam energies of one intrinsic. again: the maps of the other tiling."""
    found, stride = Scores(get_intrinsic(name), {}, {}), drawer.generator.stride
    ours, theirs = (borders(args.size, drawer.generator.resolution[0], overlap) for overlap in overlaps(args))
    others = [b for b in range(stride, args.size, stride) if b not in ours]
    results: dict[str, Any] = {}
    for method, value in {**maps, "truth": rooms.maps[name][0]}.items():
        results[method] = {"seam_ratio": ratio(energy(value, ours), energy(value, others), args.seed)}
        if method in (DRAWN, TILES):
            first, second = sorted(ours - theirs), sorted(theirs - ours)
            at = len(first) * energy(value, first) + len(second) * energy(again[method], second)
            off = len(first) * energy(again[method], first) + len(second) * energy(value, second)
            results[method]["seam_paired"] = ratio(at, off, args.seed)
        if method != "truth":
            found.add(method, value, rooms)
            evaluation = found.evaluations[method]
            figure, told = next(iter(evaluation.figures.items()))
            results[method] |= {"protocol": evaluation.protocol, figure: told.value, "ci95": [told.low, told.high]}
    for a, b in ((BLURRED, NATIVE), (DRAWN, NATIVE), (TILES, NATIVE), (TILES, BLURRED)):
        results[f"{a} minus {b}"] = compare(found.evaluations[a], found.evaluations[b]).to_json()
    return results


def overlaps(args: argparse.Namespace) -> tuple[float, float]:
    """Of the tiling that is scored, and of another one with other borders."""
    return args.overlap, args.other_overlap


def borders(size: int, side: int, overlap: float) -> set[int]:
    """Inner lines where tiles begin or end."""
    starts = {top for top, _ in corners(size, size, side, overlap)}
    return {b for start in starts for b in (start, start + side)} - {0, size}


def ratio(above: np.ndarray, below: np.ndarray, seed: int) -> dict[str, float]:
    """Σ above / Σ below over pictures (N,), with its interval."""
    draws = [(w @ above) / (w @ below) for w in draw_weights(len(above), resamples=1000, seed=seed)]
    low, high = interval(np.concatenate(draws))
    return {"value": float(above.sum() / below.sum()), "low": low, "high": high}


def energy(value: Tensor, lines: Iterable[int]) -> np.ndarray:
    """(N,): how far steps across these rows and columns stand out from the steps beside them."""
    at, total = torch.tensor(sorted(lines)), torch.zeros(len(value), dtype=torch.float64)
    for v in (value.double(), value.double().mT):
        step = v.diff(dim=-1)  # step[b-1] = v[b] - v[b-1]
        total += (step[..., at - 1] - (step[..., at - 2] + step[..., at]) / 2).abs().mean((1, 2, 3))
    return total.numpy()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intrinsics", default="normals,depth")
    parser.add_argument("--adapters", default="", help="what a quickstart fitted, instead of fitting here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--other-overlap", type=float, default=0.4, help="of a second tiling, for seam_paired")
    numbers = {
        "size": 256,
        "rooms": 24,
        "steps": 300,
        "labels": 250,
        "timestep": 300,
        "batch": 8,
        "seed": 0,
        "threads": 1,
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
