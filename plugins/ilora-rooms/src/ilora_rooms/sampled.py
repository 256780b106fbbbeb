"""The demonstration on generators that draw rooms of their own, whose true maps nobody knows: adapters against the labeller.

Every method is scored on samples that no adapter was fitted to, against the rooms labeller's maps of them:

    mean map     looks at no code: the mean of the training samples' maps
    picture      albedo and shading: the sample itself
    random init  the same adapter, steps, codes and target maps on a network of random weights
    adapter      what `ilora fit` trained

The labeller's own error, on rooms whose truth is known, stands beside every figure (`labeller_report`).

    python -m ilora_rooms.sampled --generator rooms-stylegan2 --out runs/stylegan2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.controls import mean_map
from ilora_core.evaluate import compare
from ilora_core.files import write_json
from ilora_core.fit import Fitted, Validated, fit
from ilora_core.intrinsics import get_intrinsic
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.predict import Predictor
from ilora_core.protocols import Batch, Codes
from ilora_core.report import grid_png
from ilora_rooms.experiment import Rows, Scores
from ilora_rooms.samples import rooms_samples

__all__ = ["CONTROLS", "Settings", "run", "score_real"]

NAMES = ("normals", "depth", "albedo", "shading")
CONTROLS = {"rooms-stylegan2": {"random_weights": True}, "rooms-vqgan": {"random_decoder": True}}
"""The setting that gives each generator random weights behind the same codes."""
_INVERTED = frozenset({"rooms-stylegan2"})  # no encoder: real pictures are inverted
_TEST_SEED = 1_000  # of the samples that methods are judged on; training takes smaller ones


@dataclass(frozen=True)
class Settings:
    """What the demonstration depends on. `generator_settings` go to the card, for the adapter and the control alike."""

    generator: str = "rooms-stylegan2"
    samples: int = 250
    held_out: int = 24
    test: int = 200
    steps: int = 600
    batch: int = 4
    lr: float = 1e-2
    rank: int = 8
    seed: int = 0
    device: str = "cpu"
    intrinsics: tuple[str, ...] = NAMES
    generator_settings: Mapping[str, Any] = field(default_factory=dict)
    targets: str = ""


def run(folder: Path, settings: Settings, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit, draw and score everything into `folder`; figures as plain data."""
    host = load_plugins()
    control = CONTROLS[settings.generator]
    for method, changed in (("adapter", {}), ("random init", control)):
        for name in settings.intrinsics:
            _fit(folder / method.replace(" ", "-") / name, name, settings, changed, host, say)
    say(f"Scoring on {settings.test} samples …")
    weights = str(settings.generator_settings.get("weights", ""))
    train = _read(rooms_samples(generator=settings.generator, n=settings.samples, seed=settings.seed, weights=weights))
    source = rooms_samples(generator=settings.generator, n=settings.test, seed=_TEST_SEED, weights=weights)
    test, codes = _read(source), _codes(list(source))
    scores = {}
    for name in settings.intrinsics:
        scores[name] = found = Scores(get_intrinsic(name), {}, {})
        found.add("mean map", mean_map(found.intrinsic, *train.maps[name]).expand(len(test.keys), -1, -1, -1), test)
        if name in ("albedo", "shading"):
            found.add("picture", found.intrinsic.from_picture(test.pictures), test)
        for method in ("random init", "adapter"):
            found.add(method, _draw(folder / method.replace(" ", "-") / name, codes, name, settings, host), test)
        say(summary(found))
        columns, rows = grid(found, test)
        grid_png(folder / f"{name}.png", rows, columns)
    results = {name: figures(found) for name, found in scores.items()}
    write_json(folder / "results.json", {"settings": asdict(settings), "results": results})
    return results


@torch.inference_mode()
def score_real(folder: Path, settings: Settings, *, n: int, steps: int = 300) -> dict[str, Any]:
    """The adapters of a run on n real test rooms against their exact maps, by way of the generator's own codes of them.

    An encoder gives the codes where there is one; a GAN inverts each room by `steps` steps of Adam, without its control,
    whose network could not. How near the generator's own picture of the room comes, in dB, stands beside the figures.
    """
    from ilora_rooms.source import RoomsSource

    labels, test = Rows.of(RoomsSource(n=250)), Rows.of(RoomsSource(split="test", n=n))
    inverts = settings.generator in _INVERTED
    table: dict[str, Any] = {"rooms": n, **({"steps": steps} if inverts else {})}
    scores = {name: Scores(get_intrinsic(name), {}, {}) for name in settings.intrinsics}
    for name, found in scores.items():
        found.add("mean map", mean_map(found.intrinsic, *labels.maps[name]).expand(n, -1, -1, -1), test)
        if name in ("albedo", "shading"):
            found.add("picture", found.intrinsic.from_picture(test.pictures), test)
    for method in ("adapter",) if inverts else ("random init", "adapter"):
        artefacts = [
            a for name in settings.intrinsics for a in find_artefacts(folder / method.replace(" ", "-") / name)
        ]
        runtime, extra = RuntimeConfig(device=settings.device), {"projection": steps} if inverts else {}
        drawer = Predictor(artefacts, runtime=runtime, settings=extra, host=load_plugins())
        codes = drawer.generator.encode(test.pictures)
        for name, value in drawer.from_codes(codes).items():
            scores[name].add(method, value, test)
        error = (drawer.generator.picture(codes).cpu() - test.pictures).square().mean((1, 2, 3))
        table["psnr_db"] = float(-10 * error.log10().mean())
    for name, found in scores.items():
        columns, rows = grid(found, test, columns=("picture", "truth"))
        grid_png(folder / f"{name}-real.png", rows, columns)
    return table | {name: figures(found) for name, found in scores.items()}


def _fit(
    out: Path,
    name: str,
    settings: Settings,
    changed: Mapping[str, Any],
    host: PluginHost,
    say: Callable[[str], None],
) -> None:
    """Fit one adapter to the labelled samples of the trained generator, on the trained or on a random network."""
    source = {"generator": settings.generator, "n": settings.samples + settings.held_out, "seed": settings.seed}
    source |= {key: value for key, value in settings.generator_settings.items() if key == "weights"}
    train = {"steps": settings.steps, "batch": settings.batch, "lr": settings.lr, "schedule": "cosine", "warmup": 20}
    adapter = {"rank": settings.rank, **({"targets": settings.targets} if settings.targets else {})}
    config = FitConfig(
        settings.generator,
        (get_intrinsic(name),),
        source="rooms-samples",
        validation=settings.held_out,
        settings={
            "generator": {**settings.generator_settings, **changed},
            "source": source,
            "adapter": adapter,
            "train": {**train, "seed": settings.seed, "keep_every": max(1, -(-settings.steps // 4))},
            "runtime": {"device": settings.device},
        },
    )
    for event in fit(config, out, host=host):
        if isinstance(event, Validated) and event.value is not None:
            say(
                f"  {out.parent.name} {name}: step {event.step} of {settings.steps}, {event.metric} = {event.value:.3g}"
            )
        elif isinstance(event, Fitted):
            say(f"  {out.parent.name} {name}: adapter in {event.folder}")


@torch.inference_mode()
def _draw(folder: Path, codes: Codes, name: str, settings: Settings, host: PluginHost) -> Tensor:
    """The adapter's maps of the test samples, (N,C,H,W)."""
    drawer = Predictor(find_artefacts(folder), runtime=RuntimeConfig(device=settings.device), host=host)
    count = max(value.shape[0] for value in codes.values())
    parts = []
    for start in range(0, count, 20):
        parts.append(drawer.from_codes({key: value[start : start + 20] for key, value in codes.items()})[name])
    return torch.cat(parts)


def _read(source: Any) -> Rows:
    return Rows.of(source)


def _codes(batches: list[Batch]) -> Codes:
    """The codes of all samples, joined."""
    given = [batch.codes or {} for batch in batches]
    return {name: torch.cat([codes[name] for codes in given]) for name in given[0]}


def figures(found: Scores) -> dict[str, Any]:
    """Method -> protocol and figures with intervals, and the adapter's paired difference to the others."""
    table: dict[str, Any] = {
        method: {
            "protocol": e.protocol,
            **{k: {"value": f.value, "low": f.low, "high": f.high} for k, f in e.figures.items()},
        }
        for method, e in found.evaluations.items()
    }
    adapter = found.evaluations["adapter"]
    others = [method for method in found.evaluations if method != "adapter"]
    table["adapter minus"] = {method: compare(adapter, found.evaluations[method]).to_json() for method in others}
    return table


def summary(found: Scores) -> str:
    """One line per method."""
    first = next(iter(found.evaluations["adapter"].figures))
    lines = [f"{found.intrinsic.name} ({found.evaluations['adapter'].protocol}, {first}):"]
    for method, evaluation in found.evaluations.items():
        figure = evaluation.figures[first]
        lines.append(f"  {method:14s} {figure.value:8.4f}   [{figure.low:.4f}, {figure.high:.4f}]")
    return "\n".join(lines)


def grid(
    found: Scores, test: Rows, *, shown: int = 6, columns: tuple[str, str] = ("sample", "labeler")
) -> tuple[tuple[str, ...], list[list[Tensor]]]:
    """The picture, every method's map and the target's, for the first test pictures; `columns`: what the ends are called."""
    truth, valid = test.maps[found.intrinsic.name]
    rows = []
    for i in range(min(shown, len(test.keys))):
        drawn = [found.picture(method, i) for method in found.maps]
        target = found.intrinsic.to_picture(truth[i : i + 1], valid[i : i + 1])[0]
        rows.append([test.pictures[i], *drawn, target])
    return (columns[0], *found.maps, columns[1]), rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generator", choices=sorted(CONTROLS), default="rooms-stylegan2")
    parser.add_argument("--out", type=Path, required=True)
    for name in ("samples", "test", "steps", "batch", "rank", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    parser.add_argument("--lr", type=float, default=Settings.lr)
    parser.add_argument("--intrinsics", default=",".join(NAMES))
    parser.add_argument("--device", default="cpu")
    args = vars(parser.parse_args(argv))
    out, names = args.pop("out"), tuple(args.pop("intrinsics").split(","))
    run(out, Settings(**args, intrinsics=names), say=lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
