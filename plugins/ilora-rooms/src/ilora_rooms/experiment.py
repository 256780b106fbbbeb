"""The demonstration on rooms: adapters beside the predictors they must beat, on rooms that nothing has seen.

Every method is scored on the first n rooms of the test split against exact maps:

    mean map        looks at no picture
    linear probe    one matrix on the frozen UNet's features, in closed form, from the same labels
    adapter         what `ilora fit` trained
    random init     the same adapter, steps and learning rate on a UNet that never saw a room (the longer run)
    codec ceiling   the true map through encoder and decoder: the limit of everything above
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.controls import LinearProbe, ceiling, mean_map
from ilora_core.evaluate import Evaluation, evaluate
from ilora_core.intrinsics import Intrinsic, get_intrinsic
from ilora_core.plugins import PluginHost
from ilora_core.predict import Predictor
from ilora_core.protocols import Batch, Source
from ilora_sd.model import StableDiffusion

__all__ = ["Rows", "Scores", "fit_config", "score_adapters", "score_controls"]

Maps = Mapping[str, tuple[Tensor, Tensor]]


@dataclass
class Rows:
    """Pictures and maps of a whole source, in memory: keys, pictures (N,3,H,W), name -> (Map, Valid)."""

    keys: tuple[str, ...]
    pictures: Tensor
    maps: Maps

    @classmethod
    def of(cls, source: Source) -> Rows:
        """Read a source to its end."""
        batches: list[Batch] = list(source)
        maps = {
            name: tuple(torch.cat([batch.maps[name][part] for batch in batches]) for part in (0, 1))
            for name in batches[0].maps
        }
        keys = tuple(key for batch in batches for key in batch.keys)
        return cls(keys, torch.cat([batch.pictures for batch in batches]), maps)  # pyright: ignore[reportArgumentType]


@dataclass
class Scores:
    """One intrinsic: method -> Evaluation, and method -> maps (N,C,H,W) of the test rooms."""

    intrinsic: Intrinsic
    evaluations: dict[str, Evaluation]
    maps: dict[str, Tensor]

    def add(self, method: str, value: Tensor, test: Rows) -> None:
        """Score a method's maps against the truth."""
        truth, valid = test.maps[self.intrinsic.name]
        pairs = zip(test.keys, value, truth, valid, strict=True)
        self.evaluations[method] = evaluate(pairs, self.intrinsic)
        self.maps[method] = value

    def picture(self, method: str, row: int) -> Tensor:
        """A method's map of one test room as a picture; relative depth is drawn as it is, not stretched again."""
        value = self.maps[method][row : row + 1]
        if self.intrinsic.encoding == "relative_depth":
            return (1 - value[0]).clamp(0, 1).expand(3, -1, -1)
        return self.intrinsic.to_picture(value)[0]


def fit_config(
    intrinsics: Sequence[str],
    *,
    labels: int = 250,
    held_out: int = 24,
    model: str = "rooms",
    adapter: str = "lora",
    generator: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    runtime: Mapping[str, Any] | None = None,
) -> FitConfig:
    """The fit of `model`, a generator's name: `labels` rooms to train on and a few more to choose the adapter by."""
    return FitConfig(
        model,
        tuple(get_intrinsic(name) for name in intrinsics),
        source="rooms",
        validation=held_out,
        adapter=adapter,
        settings={
            "generator": dict(generator or {}),
            "source": {"split": "labels", "n": labels + held_out},
            "train": dict(train or {}),
            "runtime": dict(runtime or {}),
        },
    )


def score_controls(model: StableDiffusion, labels: Rows, test: Rows, names: Sequence[str]) -> dict[str, Scores]:
    """Mean map, linear probe and codec ceiling, from the same labels, for each intrinsic."""
    scores = {}
    for name in names:
        intrinsic = get_intrinsic(name)
        found = scores[name] = Scores(intrinsic, {}, {})
        truth, valid = test.maps[name]
        found.add("mean map", mean_map(intrinsic, *labels.maps[name]).expand(len(truth), -1, -1, -1), test)
        found.add("linear probe", _probe(model, intrinsic, labels, test), test)
        found.add("codec ceiling", ceiling(model, intrinsic, truth, valid), test)
    return scores


def score_adapters(folder: Path, test: Rows, scores: dict[str, Scores], host: PluginHost, method: str) -> None:
    """Draw the test rooms with every adapter in `folder` and score them as `method`."""
    artefacts = find_artefacts(folder)
    drawer = Predictor(artefacts, runtime=RuntimeConfig(device="cpu"), host=host)
    drawn: dict[str, list[Tensor]] = {}
    for part in _chunks(test.pictures):
        for name, value in drawer(part).items():
            drawn.setdefault(name, []).append(value)
    for name, values in drawn.items():
        scores[name].add(method, torch.cat(values), test)


@torch.no_grad()
def _probe(model: StableDiffusion, intrinsic: Intrinsic, labels: Rows, test: Rows) -> Tensor:
    """The probe's maps of the test rooms."""
    value, valid = labels.maps[intrinsic.name]
    features = _features(model, labels.pictures, intrinsic)
    empty = {"latent": model.encode(labels.pictures)["latent"]}
    prepared = model.prepare(empty, intrinsic, intrinsic.to_picture(value, valid), valid)
    probe = LinearProbe.fit(features, prepared["target"], prepared["weight"])
    latents = probe(_features(model, test.pictures, intrinsic))
    return intrinsic.from_picture(model.picture({"latent": latents}))


def _features(model: StableDiffusion, pictures: Tensor, intrinsic: Intrinsic) -> Tensor:
    return torch.cat([model.features(model.encode(part), intrinsic) for part in _chunks(pictures)])


def _chunks(pictures: Tensor, size: int = 25) -> Iterator[Tensor]:
    return iter(pictures.split(size))
