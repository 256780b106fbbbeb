"""Do tiles help, and can they be seen? Rooms 4 and 16 times as wide as the generator draws.

    native            the map at the generator's own 64², enlarged
    half              tiles at half the picture's size, enlarged: what the last step of the pyramid starts from
    half, blurred     the same, blurred as where the tiles take their coarse structure from it: what blurring alone does
    tiles             `ilora predict --process tile`
    tiles, one step   the last tiles brought to the native map at once, without the sizes in between
    tiles, as drawn   the last tiles blended without bringing them to anything

    python bench/tiled_rooms.py [--sizes 256,1024] [--rooms 24,5] [--overlap 0.66] [--grid docs/tiles.png]    # fits its adapters
    ilora quickstart && python bench/tiled_rooms.py --adapters quickstart/adapters                            # or takes these

Scored against exact maps of rooms that neither generator nor adapters have seen, with paired differences over rooms.
`passes` counts what is drawn for one room: the native map and all tiles.

Seam energy is the mean of |(v[b] - v[b-1]) - ½ (v[b-1] - v[b-2]) - ½ (v[b+1] - v[b])| across lines b.

    seam_ratio   across lines where tiles begin or end / across all other lines of the same map. What lies at the lines differs;
                 the ratios of the true map and of the native one, which has no tiles, say by how much
    seam_paired  across lines where tiles begin or end / across the same lines when the last tiles are moved by about half a step,
                 and the other way about. They are moved by whole patches of the generator, whose own lines are the strongest

1 = a border cannot be told from other lines.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import torch.nn.functional as F
from record import record
from torch import Tensor

from ilora_core.artefact import Artefact, find_artefacts
from ilora_core.bootstrap import draw_weights, interval
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ConfigError
from ilora_core.evaluate import compare
from ilora_core.fit import fit
from ilora_core.intrinsics import get_intrinsic
from ilora_core.predict import Predictor
from ilora_core.report import grid_png
from ilora_core.tiling import OVERLAP, corners, levels, low_pass, pyramid, resize_maps, tile_maps
from ilora_rooms.experiment import Rows, Scores, fit_config
from ilora_rooms.source import RoomsSource

RATES = {"normals": 5e-3, "depth": 3e-3, "albedo": 3e-3, "shading": 3e-3}
NATIVE, HALF, BLURRED, TILES = "native", "half", "half, blurred", "tiles"
ONE_STEP, DRAWN, MOVED = "tiles, one step", "tiles, as drawn", "tiles, moved"
PAIRS = ((HALF, NATIVE), (TILES, NATIVE), (TILES, HALF), (TILES, BLURRED), (TILES, ONE_STEP), (TILES, DRAWN))

Maps = dict[str, Tensor]


def main() -> None:
    args = _options()
    torch.set_num_threads(args.threads)
    names = args.intrinsics.split(",")
    with tempfile.TemporaryDirectory() as folder:
        artefacts = [a for name in names for a in fitted(Path(args.adapters or folder) / name, name, args)]
        drawer = Predictor(artefacts, runtime=RuntimeConfig(device=args.device))
    recipe = {artefact.intrinsic.name: artefact.record["config"]["settings"]["train"] for artefact in artefacts}
    table: dict[str, Any] = {}
    for size, n in zip(numbers(args.sizes), numbers(args.rooms), strict=True):
        grid = Grid(size, drawer.generator.resolution[0], drawer.generator.stride // 2, args.overlap)
        rooms = Rows.of(RoomsSource(split="test", n=n, size=size, device=args.device))
        drawn = [draw_all(drawer, room, grid, args) for room in rooms.pictures.split(1)]
        maps = {
            name: {method: torch.cat([room[method][name] for room in drawn]) for method in drawn[0]} for name in names
        }
        table[str(size)] = {
            "passes": grid.passes(),
            **{name: scored(name, maps[name], rooms, grid, args) for name in names},
        }
        for name in names:
            for method, told in table[str(size)][name].items():
                print(size, name, method, told, flush=True)
        if args.grid and size == numbers(args.sizes)[-1]:
            show(Path(args.grid), rooms, maps, args)
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


class Grid:
    """Where the last tiles of a square picture lie, and where they lie once more, moved down and right by `shift`.

    patch: they are moved by a multiple of it
    """

    def __init__(self, size: int, side: int, patch: int, overlap: float):
        self.size, self.side, self.overlap = size, side, overlap
        starts = {top for top, _ in corners(size, size, side, overlap)}
        self.borders = {b for start in starts for b in (start, start + side)} - {0, size}
        steps = len(starts) - 1
        self.shift = patch * max(1, round((size - side) / steps / 2 / patch))
        # A picture that is smaller by whole steps has the same tiles but for the last.
        self.length = size - (size - side) // math.gcd(size - side, steps)
        again = {top for top, _ in corners(self.length, self.length, side, overlap)}
        if not again < starts or self.shift > size - self.length:
            raise ConfigError(f"tiles of {size} pixels at overlap {overlap} cannot be moved: choose others.")

    def moved(self, value: Tensor) -> Tensor:
        """The part of a map (N,C,size,size) that the moved tiles cover."""
        part = slice(self.shift, self.shift + self.length)
        return value[..., part, part]

    def pairs(self) -> tuple[list[int], list[int]]:
        """Lines of that part where only a tile's border lies, and where only a moved one's; its margin is left out."""
        inside = set(range(self.side, self.length - self.side + 1))
        ours, theirs = {b - self.shift for b in self.borders} & inside, self.borders & inside
        return sorted(ours - theirs), sorted(theirs - ours)

    def passes(self) -> int:
        """Of the network for one picture."""
        sizes = levels(self.size, self.size, self.side)
        return 1 + sum(len(corners(h, w, self.side, self.overlap)) for h, w in sizes)


@torch.inference_mode()
def draw_all(drawer: Predictor, picture: Tensor, grid: Grid, args: argparse.Namespace) -> dict[str, Maps]:
    """Method -> intrinsic -> map (1,C,H,W); of the moved tiles the part that `grid.moved` cuts out."""
    kept: list[Mapping[str, Tensor]] = []

    def draw(tiles: Tensor) -> Mapping[str, Tensor]:
        kept.append(drawer.from_codes(drawer.generator.encode(tiles)))
        return kept[-1]

    def again() -> Callable[[Tensor], Mapping[str, Tensor]]:
        rest = iter(kept)
        return lambda tiles: next(rest)

    known, size = drawer.intrinsics, (grid.size, grid.size)
    tiling = {"side": grid.side, "overlap": grid.overlap, "batch": args.batch}
    native = tiles = half = drawer(F.interpolate(picture, (grid.side,) * 2, mode="bilinear", antialias=True))
    for finer in pyramid(draw, picture, native, known, **tiling):
        half, tiles = tiles, finer
        if next(iter(finer.values())).shape[-2:] != size:
            kept.clear()
    pixel = grid.size / next(iter(half.values())).shape[-1]
    native, half = (resize_maps(maps, known, size) for maps in (native, half))
    found = {NATIVE: native, HALF: half, TILES: tiles}
    found[BLURRED] = {name: low_pass(value, pixel) for name, value in half.items()}
    found[ONE_STEP] = tile_maps(again(), picture, native, known, pixel=grid.size / grid.side, **tiling)
    found[DRAWN] = tile_maps(again(), picture, {}, known, pixel=pixel, **tiling)
    kept.clear()
    coarse = {name: grid.moved(value) for name, value in half.items()}
    found[MOVED] = tile_maps(draw, grid.moved(picture), coarse, known, pixel=pixel, **tiling)
    return found


def scored(name: str, maps: Mapping[str, Tensor], rooms: Rows, grid: Grid, args: argparse.Namespace) -> dict[str, Any]:
    """Figures, paired differences, and seam energies of one intrinsic."""
    found, borders = Scores(get_intrinsic(name), {}, {}), grid.borders
    others = set(range(2, grid.size - 1)) - borders
    results: dict[str, Any] = {}
    for method, value in {**maps, "truth": rooms.maps[name][0]}.items():
        if method == MOVED:
            continue
        results[method] = {"seam_ratio": ratio(energy(value, borders), energy(value, others), args.seed)}
        if method != "truth":
            found.add(method, value, rooms)
            evaluation = found.evaluations[method]
            figure, told = next(iter(evaluation.figures.items()))
            results[method] |= {"protocol": evaluation.protocol, figure: told.value, "ci95": [told.low, told.high]}
    ours, theirs = grid.pairs()
    here, there = grid.moved(maps[TILES]), maps[MOVED]
    at = len(ours) * energy(here, ours) + len(theirs) * energy(there, theirs)
    off = len(ours) * energy(there, ours) + len(theirs) * energy(here, theirs)
    results[TILES]["seam_paired"] = ratio(at, off, args.seed)
    for a, b in PAIRS:
        results[f"{a} minus {b}"] = compare(found.evaluations[a], found.evaluations[b]).to_json()
    return results


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


def show(path: Path, rooms: Rows, maps: Mapping[str, Mapping[str, Tensor]], args: argparse.Namespace) -> None:
    """A part of one room at its full size: the picture, the map enlarged from both sizes, tiles, truth."""
    row, top, left, side = numbers(args.shown)
    part = (..., slice(top, top + side), slice(left, left + side))
    lines = []
    for name, by in maps.items():
        scores = Scores(get_intrinsic(name), {}, dict(by))
        drawn = [scores.picture(method, row)[part] for method in (NATIVE, HALF, TILES)]
        truth = scores.intrinsic.to_picture(*(value[row : row + 1] for value in rooms.maps[name]))[0]
        lines.append([rooms.pictures[row][part], *drawn, truth[part]])
    grid_png(path, lines, ["picture", NATIVE, HALF, TILES, "truth"], row_titles=list(maps))


def numbers(text: str) -> list[int]:
    """Of an option with commas."""
    return [int(number) for number in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intrinsics", default="normals,depth")
    parser.add_argument("--adapters", default="", help="what a quickstart fitted, instead of fitting here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", default="256,1024")
    parser.add_argument("--rooms", default="24,5", help="so many of each size")
    parser.add_argument("--overlap", type=float, default=OVERLAP)
    parser.add_argument("--grid", default="", help="a PNG to write, of the last size")
    parser.add_argument("--shown", default="0,384,384,256", help="room, top, left and side of the part in the PNG")
    counts = {"steps": 300, "labels": 250, "timestep": 300, "batch": 32, "seed": 0, "threads": 1}
    for name, value in counts.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
