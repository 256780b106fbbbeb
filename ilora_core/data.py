"""From a fit's settings to prepared samples: open the source, label it if it needs labels, encode it once.

Codes of the pictures are computed once and shared by all intrinsics of a run. Generator and labelers are never on the device
together, unless `runtime.keep_both` asks for it: the generator draws its samples and leaves, each labeler comes and leaves, and
then the generator is back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator as Yields
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.config import FitConfig, TrainConfig
from ilora_core.errors import ConfigError, DataError
from ilora_core.factories import options_of
from ilora_core.intrinsics import BUILT_IN, CHOICES, Intrinsic
from ilora_core.mixes import disagreement_name, disagreement_of, pixel_weights
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Batch, Codes, Generator, Source
from ilora_core.samples import SampledSource, draw_samples, take_rows, to_cpu
from ilora_core.trainer import PreparedSet

__all__ = [
    "Prepared",
    "SampledSource",
    "Task",
    "ValidationSet",
    "check_size",
    "open_source",
    "prepare",
    "split_keys",
    "trained_as",
]

MOST_VALIDATION = 64
"""A share of held-out pictures never grows beyond this: validation must stay cheap beside training."""


@dataclass(frozen=True)
class Prepared:
    """Progress before training: `done` of `total` pictures. what: "sample", "label" or "encode"; by: which labeler."""

    what: str
    done: int
    total: int
    by: str = ""


@dataclass(frozen=True)
class ValidationSet:
    """Held-out samples with their true maps, on the CPU. codes: what `Generator.render` needs."""

    keys: tuple[str, ...]
    codes: Codes
    truth: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Task:
    """What training one intrinsic needs."""

    intrinsic: Intrinsic
    train: PreparedSet
    validation: ValidationSet


def open_source(
    config: FitConfig, generator: Generator, host: PluginHost, device: torch.device
) -> Yields[Prepared, None, Source]:
    """The source that `config` names, with the maps it asks for. Yields progress while a labeler works."""
    _check_weighting(config, generator)
    source = _bare_source(config, generator, host)
    if config.limit and config.limit < len(source):
        from ilora_core.sources import Subset

        source = Subset(source, source.keys[: config.limit])
    if config.labeler:
        source = yield from _labelled(source, config, generator, host, device)
    if len(source) == 0:
        raise DataError("the source has no pictures.")
    _check_offered(config, source.intrinsics)
    return source


def split_keys(keys: Sequence[str], validation: float, *, seed: int) -> frozenset[str]:
    """The held-out keys: a share (< 1, at most 64 pictures) or a number, by the hash of each key.

    Adding pictures to a folder moves few others between the two sides.
    """
    wanted = min(MOST_VALIDATION, max(1, round(validation * len(keys)))) if validation < 1 else int(validation)
    if validation == 0:
        return frozenset()
    if wanted >= len(keys):
        raise ConfigError(f"--validation asks for {wanted} of {len(keys)} pictures; none would be left to train on.")
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    return frozenset(ranked[:wanted])


def prepare(
    source: Source, generator: Generator, config: FitConfig, held_out: frozenset[str]
) -> Yields[Prepared, None, list[Task]]:
    """Encode every picture and prepare every target, once. Yields progress; returns one Task per intrinsic."""
    collected = [_Collector(trained_as(intrinsic, source), held_out, config.train) for intrinsic in config.intrinsics]
    done = 0
    for batch in source:
        check_size(batch, generator)
        codes = batch.codes or generator.encode(batch.pictures)
        for collector in collected:
            collector.add(batch, codes, generator)
        done += len(batch.keys)
        yield Prepared("encode", done, len(source))
    device = _cache_device(config, collected)
    return [collector.finish(device) for collector in collected]


class _Collector:
    """Gathers one intrinsic's samples batch by batch."""

    def __init__(self, intrinsic: Intrinsic, held_out: frozenset[str], train: TrainConfig):
        self.intrinsic, self.held_out, self.train = intrinsic, held_out, train
        self.keys: dict[bool, list[str]] = {False: [], True: []}
        self.codes: list[Codes] = []
        self.held_codes: list[Codes] = []
        self.truth: list[Tensor] = []
        self.valid: list[Tensor] = []

    def add(self, batch: Batch, codes: Codes, generator: Generator) -> None:
        """Prepare the batch's training samples, and keep its held-out maps as they are."""
        value, valid = batch.maps[self.intrinsic.name]
        held = torch.tensor([key in self.held_out for key in batch.keys])
        for side, rows in ((False, (~held).nonzero()[:, 0]), (True, held.nonzero()[:, 0])):
            self.keys[side] += [batch.keys[row] for row in rows.tolist()]
            if not len(rows):
                continue
            own = {name: take_rows(tensor, rows) for name, tensor in codes.items()}
            if side:
                self.held_codes.append(to_cpu(own))
                self.truth.append(value[rows].float().cpu())
                self.valid.append(valid[rows].cpu())
            else:
                picture = self.intrinsic.to_picture(value[rows], valid[rows])
                prepared = generator.prepare(own, self.intrinsic, picture, self._weights(batch, rows))
                self.codes.append(to_cpu({**own, **prepared}))

    def finish(self, device: torch.device) -> Task:
        """Join the batches."""
        train = PreparedSet(self.keys[False], PreparedSet.stack(self.codes, device))
        held = PreparedSet.stack(self.held_codes, "cpu") if self.held_codes else {}
        truth = torch.cat(self.truth) if self.truth else torch.empty(0)
        valid = torch.cat(self.valid) if self.valid else torch.empty(0)
        return Task(self.intrinsic, train, ValidationSet(tuple(self.keys[True]), held, truth, valid))

    def _weights(self, batch: Batch, rows: Tensor) -> Tensor:
        """Valid as it is, or as weights that fall with the labelers' disagreement."""
        valid = batch.maps[self.intrinsic.name][1][rows]
        if self.train.weighting == "even":
            return valid
        apart, known = (part[rows] for part in batch.maps[disagreement_name(self.intrinsic.name)])
        return pixel_weights(apart, known, valid, scale=self.train.disagreement_scale)

    def size(self) -> int:
        """Bytes of the training samples."""
        return sum(t.numel() * t.element_size() for codes in self.codes for t in codes.values())


def _bare_source(config: FitConfig, generator: Generator, host: PluginHost) -> Source:
    size, settings = generator.resolution[0], dict(config.settings.get("source", {}))
    if config.samples:
        n = min(config.samples, config.limit or config.samples)
        return SampledSource(generator, n, seed=config.train.seed)
    if config.source:
        if "size" in {option.name for option in options_of(host.card("sources", config.source).factory)}:
            settings.setdefault("size", size)
        return host.make("sources", config.source, **settings)
    from ilora_core.sources import FolderSource, PairsSource

    settings.setdefault("size", size)
    if config.pairs:
        weighted = config.train.weighting != "even"
        extra = [disagreement_of(i) for i in config.intrinsics] if weighted else []
        return _make_local(PairsSource, Path(config.pairs), (*config.intrinsics, *extra), **settings)
    return _make_local(FolderSource, Path(config.pictures), **settings)


def _make_local(kind: Any, *arguments: Any, **settings: Any) -> Source:
    try:
        return kind(*arguments, **settings)
    except TypeError as error:
        raise ConfigError(f"--set source.…: {error}.") from error


def _labelled(
    source: Source, config: FitConfig, generator: Generator, host: PluginHost, device: torch.device
) -> Yields[Prepared, None, Source]:
    from ilora_core.labelling import open_labelers, run_labelers
    from ilora_core.labels import LabelledSource

    labelers = open_labelers(host, config.labeler, config.settings.get("labeler", {}))
    _check_offered(config, labelers.intrinsics)
    if isinstance(source, SampledSource):
        for drawn in draw_samples(source, device, keep=config.runtime.keep_both):
            yield Prepared("sample", drawn, len(source))
    else:
        generator.to("cpu")
    for progress in run_labelers(labelers, source, device=device):
        yield Prepared("label", progress.done, progress.total, progress.labeler)
    return LabelledSource(source, labelers.cache)


def _check_weighting(config: FitConfig, generator: Generator) -> None:
    if config.train.weighting != "even" and not getattr(generator, "takes_weights", False):
        raise ConfigError(
            f"generator {config.generator!r} knows valid pixels and others, but no weights between them: leave "
            "train.weighting out."
        )


def _check_offered(config: FitConfig, intrinsics: Sequence[Intrinsic]) -> None:
    offered = [intrinsic.name for intrinsic in intrinsics]
    for intrinsic in config.intrinsics:
        if intrinsic.name not in offered:
            raise DataError(
                f"the source has no {intrinsic.name} maps; it has {', '.join(offered) or 'none'}. "
                "Choose another --intrinsic, or a --labeler that gives it."
            )
        if config.train.weighting != "even" and disagreement_name(intrinsic.name) not in offered:
            raise ConfigError(
                f"train.weighting={config.train.weighting}: nothing says where two labelers disagree about "
                f"{intrinsic.name}. Give a mix in which two draw it (--labeler first+second), or leave the setting out."
            )


def trained_as(wanted: Intrinsic, source: Source) -> Intrinsic:
    """The source's own version of an intrinsic: a disparity labeler's depth is not a metric one's.

    What is not the usual loss, prompt, metric or rule for the limits of depth was asked for by someone and counts.
    """
    offered = next(i for i in source.intrinsics if i.name == wanted.name)
    usual = BUILT_IN.get(wanted.name, offered)
    asked = {name: getattr(wanted, name) for name in CHOICES if getattr(wanted, name) != getattr(usual, name)}
    return replace(offered, **asked)


def check_size(batch: Batch, generator: Generator) -> None:
    """Raises DataError for pictures that the generator cannot encode."""
    height, width = batch.pictures.shape[-2:]
    if height % generator.stride or width % generator.stride:
        raise DataError(
            f"picture {batch.keys[0]} is {width}×{height}, but this generator needs multiples of {generator.stride}. "
            "Give another size with --set source.size=…"
        )


def _cache_device(config: FitConfig, collected: Sequence[_Collector]) -> torch.device:
    from ilora_core.runtime import pick_device

    device = pick_device(config.runtime.device)
    if config.runtime.cache == "cpu" or device.type != "cuda":
        return torch.device("cpu")
    needed, (free, _) = sum(collector.size() for collector in collected), torch.cuda.mem_get_info(device)
    return device if config.runtime.cache == "device" or needed < free / 2 else torch.device("cpu")
