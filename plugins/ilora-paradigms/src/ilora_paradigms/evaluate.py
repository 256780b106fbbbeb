"""Judges every method on pictures that nothing here was trained on or chosen by, and says whether the gate is passed.

    python -m ilora_paradigms.evaluate --out results.json --sheet sheet.png

Sets: `path-traced` (48 pictures, see `path_traced`) and `rooms` (100 of the test split of ilora-rooms, where installed).
The gate, on the path-traced set: `paradigms` beats `retinex-blend` on ord-err and S rms with its whole 95 % interval,
and is worse by more than 0.003 on no other figure of albedo and shading.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import MissingDependency
from ilora_core.files import write_json
from ilora_core.intrinsics import ALBEDO, SHADING
from ilora_core.report import grid_png, versions
from ilora_paradigms.dev import Truth, rooms
from ilora_paradigms.judge import FIGURES
from ilora_paradigms.labeller import SplitLabeler, blend_labeler, paradigms_labeler, retinex_labeler, sqrt_labeler
from ilora_paradigms.path_traced import path_traced
from ilora_paradigms.scores import Difference, Method, Scores, constant, difference, from_labeler, score
from ilora_paradigms.split import rescale

__all__ = ["Gate", "gate", "main", "table"]

MUST_WIN = ("ord-err", "S rms")
TOLERANCE = 0.003
SHOWN = (2, 12, 25, 40)

Gate = dict[str, Any]


def gate(net: Scores, blend: Scores) -> Gate:
    """Differences network - blend of every figure, which conditions fail, and whether it passes."""
    found = {figure: difference(net, blend, figure) for figure in FIGURES}
    failed = [figure for figure in MUST_WIN if not found[figure].high < 0]
    failed += [figure for figure in FIGURES if figure not in MUST_WIN and found[figure].value > TOLERANCE]
    return {"passed": not failed, "failed": failed, "differences": _told(found)}


def table(scores: Mapping[str, Scores]) -> str:
    """Means over scenes with intervals, a method a line, for every figure that exists."""
    lines = []
    some = next(iter(scores.values()))
    for figure in some.rows:
        if math.isnan(some.mean(figure)[0]):
            continue
        lines.append(f"{figure} ({len(some.scenes)} scenes)")
        for name, found in scores.items():
            value, low, high = found.mean(figure)
            lines.append(f"  {name:16s} {value:.4f} [{low:.4f}, {high:.4f}]")
    return "\n".join(lines)


def methods(net: SplitLabeler, alone: SplitLabeler | None) -> dict[str, Method]:
    """Every method by name; `alone`: the network without any share of the blend."""
    labelers = {"sqrt-split": sqrt_labeler(), "retinex": retinex_labeler(), "retinex-blend": blend_labeler()}
    labelers |= {"network alone": alone} if alone else {}
    labelers["paradigms"] = net
    return {"constant": constant, **{name: from_labeler(labeler) for name, labeler in labelers.items()}}


def draw_sheet(path: Path, chosen: Mapping[str, Method], truth: Truth, indices: Sequence[int]) -> None:
    """For each picture a row of albedos and a row of shadings: truth, then every method."""
    names = [name for name in chosen if name != "constant"]
    rows = []
    for i in indices:
        one = slice(i, i + 1)
        picture = truth.pictures[one]
        maps = [rescale(truth.albedo[one], truth.shading[one], truth.valid[one])]
        maps += [chosen[name](picture) for name in names]
        rows.append([picture[0], *(ALBEDO.to_picture(m.albedo)[0] for m in maps)])
        rows.append([None, *(SHADING.to_picture(m.shading)[0] for m in maps)])
    grid_png(path, rows, ("picture", "truth", *names))


def _sets(n: int) -> dict[str, Truth]:
    found = {"path-traced": path_traced()}
    try:
        return found | ({"rooms": rooms("test", n)} if n else {})
    except MissingDependency as error:
        print(f"no rooms: {error}")
        return found


def _plain(scores: Mapping[str, Scores]) -> dict[str, Any]:
    return {
        name: {f: dict(zip(("value", "low", "high"), map(_finite, found.mean(f)), strict=True)) for f in found.rows}
        for name, found in scores.items()
    }


def _told(differences: Mapping[str, Difference]) -> dict[str, dict[str, float | None]]:
    return {figure: {key: _finite(x) for key, x in vars(d).items()} for figure, d in differences.items()}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=100, help="test rooms; 0 = none")
    parser.add_argument("--weights", default="", help="a folder written by pretrain --export; default: the shipped")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write every figure there")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw four path-traced pictures there")
    args = parser.parse_args(argv)
    net = paradigms_labeler(weights=args.weights)
    share = net.provenance["settings"]["blend"]
    chosen = methods(net, paradigms_labeler(weights=args.weights, blend=0.0) if share else None)
    results: dict[str, Any] = {}
    for name, truth in _sets(args.rooms).items():
        scores = {method: score(run, truth) for method, run in chosen.items()}
        verdict = gate(scores["paradigms"], scores["retinex-blend"])
        print(f"== {name}, {len(truth.keys)} pictures\n{table(scores)}")
        print(f"gate: {'passed' if verdict['passed'] else 'failed on ' + ', '.join(verdict['failed'])}")
        results[name] = {"pictures": len(truth.keys), "methods": _plain(scores), "paradigms - retinex-blend": verdict}
        results[name] |= {
            f"paradigms - {other}": _told({f: difference(scores["paradigms"], scores[other], f) for f in FIGURES})
            for other in ("sqrt-split", "retinex")
        }
    if args.out:
        write_json(args.out, {**_circumstances(net, args.rooms), "results": results})
    if args.sheet:
        draw_sheet(args.sheet, chosen, path_traced(), SHOWN)


def _circumstances(net: SplitLabeler, n: int) -> dict[str, Any]:
    return {
        "benchmark": "paradigms",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": f"python -m ilora_paradigms.evaluate --rooms {n}",
        "device": {"name": f"cpu {platform.machine()}", "type": "cpu", "threads": torch.get_num_threads()},
        "versions": versions(),
        "settings": {"rooms": n, "labeler": net.provenance["settings"], "weights_hash": net.weights_hash},
    }


if __name__ == "__main__":
    main()
