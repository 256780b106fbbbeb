"""How wrong the labeller is: its maps of test rooms against the exact ones, beside a map that looks at no picture.

Every method is scored on the first n rooms of a split that neither the labeller nor an adapter has seen:

    mean map     the per-pixel mean of 250 rooms of the `labels` split
    labeller     its answer to the picture
    rough        its answer to the picture blurred by a 3×3 binomial filter, with noise of deviation 0.03: nearer to what
                 a generator draws

    python -m ilora_rooms.labeller_report --n 100 --sheet labels.png --out labeller.json
"""

from __future__ import annotations

import argparse
import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.controls import mean_map
from ilora_core.evaluate import Evaluation, evaluate
from ilora_core.files import write_json
from ilora_core.intrinsics import Intrinsic, get_intrinsic
from ilora_core.report import versions
from ilora_rooms.experiment import Rows
from ilora_rooms.labeller import RoomsLabeler, labeler
from ilora_rooms.sheet import grid, save
from ilora_rooms.source import RoomsSource

__all__ = [
    "JUDGED_BY",
    "blurred",
    "contact_sheet",
    "headline",
    "label_rows",
    "main",
    "rough",
    "score_labeller",
    "table",
]

JUDGED_BY = (
    ("normals", "normals-pooled"),
    ("depth", "relative01"),
    ("depth", "metric"),
    ("albedo", "raw"),
    ("shading", "scale-invariant"),
)
"""Intrinsic and protocol. Depth twice: relative, as an adapter draws it, and in metres ("metric" aligns nothing)."""
_SHOWN = {"normals-pooled": 2, "relative01": 1, "metric": 1, "raw": 1, "scale-invariant": 1}

Scores = dict[str, dict[str, Evaluation]]
"""Protocol's "intrinsic / protocol" -> method -> Evaluation."""


def score_labeller(model: RoomsLabeler, test: Rows, labels: Rows | None = None) -> Scores:
    """Score the methods of this module on `test`; the mean map comes from `labels` and is left out without them."""
    answers = {"labeller": label_rows(model, test.pictures), "rough": label_rows(model, rough(test.pictures))}
    scores: Scores = {}
    for name, protocol in JUDGED_BY:
        intrinsic, (truth, valid) = get_intrinsic(name), test.maps[name]
        drawn: dict[str, Tensor] = {}
        if labels is not None:
            drawn["mean map"] = _mean(intrinsic, protocol, labels).expand(len(test.keys), -1, -1, -1)
        drawn |= {method: _as_judged(intrinsic, protocol, *maps[name]) for method, maps in answers.items()}
        said: dict[str, Any] = {"protocol": protocol, "predicts": "metric" if protocol == "metric" else None}
        scores[f"{name} / {protocol}"] = {
            method: evaluate(zip(test.keys, value, truth, valid, strict=True), intrinsic, **said)
            for method, value in drawn.items()
        }
    return scores


def label_rows(model: RoomsLabeler, pictures: Tensor, *, batch: int = 25) -> dict[str, tuple[Tensor, Tensor]]:
    """All labels of pictures (N,3,H,W), on the CPU."""
    parts = [model.label(part) for part in pictures.split(batch)]
    return {
        name: (torch.cat([p[name][0].cpu() for p in parts]), torch.cat([p[name][1].cpu() for p in parts]))
        for name in parts[0]
    }


def rough(pictures: Tensor, *, deviation: float = 0.03, seed: int = 0) -> Tensor:
    """Pictures (N,3,H,W), blurred and with noise, always the same."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(pictures.shape, generator=rng).to(pictures.device)
    return (blurred(pictures) + deviation * noise).clamp(0, 1)


def blurred(pictures: Tensor) -> Tensor:
    """(N,3,H,W) under a 3×3 binomial filter; edges repeat."""
    row = torch.tensor([0.25, 0.5, 0.25], device=pictures.device)
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def headline(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """Plain data: "intrinsic / protocol" -> method -> leading figures, without their intervals."""
    return {
        title: {
            method: {name: round(figure.value, 4) for name, figure in _leading(found).items()}
            for method, found in methods.items()
        }
        for title, methods in scores.items()
    }


def table(scores: Scores) -> str:
    """The leading figures with their 95 % intervals, as text."""
    lines = []
    for title, methods in scores.items():
        lines.append(f"{title}, {next(iter(methods.values())).n} rooms")
        for method, found in methods.items():
            cells = [
                f"{name} {f.value:.3f} [{f.low:.3f}, {f.high:.3f}] {f.unit}".rstrip()
                for name, f in _leading(found).items()
            ]
            lines.append(f"  {method:9s} " + "   ".join(cells))
    return "\n".join(lines)


def contact_sheet(model: RoomsLabeler, test: Rows, *, rooms: int = 4) -> Tensor:
    """One room a row: picture, then truth and label of normals, depth, albedo and shading; (3, rows·H, 9·W)."""
    maps = label_rows(model, test.pictures[:rooms])
    views = [test.pictures[:rooms]]
    for name in maps:
        intrinsic, (truth, valid) = get_intrinsic(name), test.maps[name]
        views.append(intrinsic.to_picture(truth[:rooms], valid[:rooms]))
        views.append(intrinsic.to_picture(*maps[name]))
    return grid(torch.stack(views, 1).flatten(0, 1), len(views))


def _leading(found: Evaluation) -> dict[str, Any]:
    return dict(list(found.figures.items())[: _SHOWN[found.protocol]])


def _mean(intrinsic: Intrinsic, protocol: str, labels: Rows) -> Tensor:
    """The map (1,C,H,W) that looks at no picture. In metres it is the mean of log depth."""
    value, valid = labels.maps[intrinsic.name]
    if protocol != "metric":
        return mean_map(intrinsic, value, valid)
    weight = valid.float()
    return ((value.clamp(min=1e-3).log() * weight).sum(0, True) / weight.sum(0, True).clamp(min=1)).exp()


def _as_judged(intrinsic: Intrinsic, protocol: str, value: Tensor, valid: Tensor) -> Tensor:
    """Relative depth is judged in [0,1], as it would be drawn."""
    if protocol != "relative01":
        return value
    return intrinsic.from_picture(intrinsic.to_picture(value, torch.ones_like(valid)))


def _record(path: Path, scores: Scores, settings: Mapping[str, Any], model: RoomsLabeler) -> None:
    facts = {key: model.provenance[key] for key in ("name", "date", "visits", "device") if key in model.provenance}
    told = " ".join(f"--{name} {value}" for name, value in settings.items())  # no path of this machine
    data = {
        "benchmark": "rooms-labeller",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": f"python -m ilora_rooms.labeller_report {told}",
        "device": {"name": f"cpu {platform.machine()}", "type": "cpu", "threads": torch.get_num_threads()},
        "versions": versions(),
        "settings": {**settings, "labeller": {**facts, "weights_hash": model.weights_hash}},
        "results": {title: {m: e.to_json() for m, e in methods.items()} for title, methods in scores.items()},
    }
    write_json(path, data)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="rooms to be judged on")
    parser.add_argument("--split", choices=("test", "shifted"), default="test")
    parser.add_argument("--labels", type=int, default=250, help="rooms behind the mean map")
    parser.add_argument(
        "--weights", default="", help="a folder written by pretrain_labeller --export; default: the shipped"
    )
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write every figure there")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the first four rooms there")
    args = parser.parse_args(argv)
    model = labeler(weights=args.weights)
    test = Rows.of(RoomsSource(split=args.split, n=args.n, size=args.size))
    labels = Rows.of(RoomsSource(split="labels", n=args.labels, size=args.size))
    scores = score_labeller(model, test, labels)
    print(table(scores))
    if args.out:
        settings = {"n": args.n, "split": args.split, "labels": args.labels, "size": args.size}
        _record(args.out, scores, settings, model)
    if args.sheet:
        save(contact_sheet(model, test), args.sheet)


if __name__ == "__main__":
    main()
