"""From a fit's settings to prepared samples: open the source, label it if it needs labels, encode it once.

Codes of the pictures are computed once and shared by all intrinsics of a run; a labeler runs before the generator takes the
device, and leaves it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator as Yields
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.config import FitConfig
from ilora_core.errors import ConfigError, DataError
from ilora_core.factories import options_of
from ilora_core.intrinsics import Intrinsic
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Batch, Codes, Generator, Source
from ilora_core.trainer import PreparedSet

__all__ = ["Prepared", "SampledSource", "Task", "ValidationSet", "open_source", "prepare", "split_keys"]

MOST_VALIDATION = 64
"""A share of held-out pictures never grows beyond this: validation must stay cheap beside training."""


@dataclass(frozen=True)
class Prepared:
    """Progress before training: `done` of `total` pictures. what: "label" or "encode"."""

    what: str
    done: int
    total: int


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


class SampledSource:
    """A generator's own samples: pictures with their codes, keys `sample-SEED-INDEX`.

    Pictures are drawn once and rounded to 8 bits, as those of a file: a label belongs to its picture's very numbers, and a
    second drawing in another precision or on another device would not repeat them.
    """

    intrinsics: tuple[Intrinsic, ...] = ()

    def __init__(self, generator: Generator, n: int, *, seed: int = 0, batch_size: int = 8):
        self.generator, self.seed, self.batch_size = generator, seed, batch_size
        self.keys = tuple(f"sample-{seed}-{index:06d}" for index in range(n))
        self._codes: dict[str, Tensor] = {}
        self._pictures: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        if not self._codes:  # labelling and training both go through the source; sampling is the costly part
            self._codes = _to_cpu(self.generator.sample(len(self), seed=self.seed))
        for start in range(0, len(self), self.batch_size):
            rows = torch.arange(start, min(start + self.batch_size, len(self)))
            part = {name: _rows(value, rows) for name, value in self._codes.items()}
            if start not in self._pictures:
                self._pictures[start] = (self.generator.picture(part).float().cpu() * 255).round().to(torch.uint8)
            keys = self.keys[start : start + self.batch_size]
            yield Batch(keys, self._pictures[start].float() / 255, {}, part)


def open_source(
    config: FitConfig, generator: Generator, host: PluginHost, device: torch.device
) -> Yields[Prepared, None, Source]:
    """The source that `config` names, with the maps it asks for. Yields progress while a labeler works."""
    source = _bare_source(config, generator, host)
    if config.labeler:
        source = yield from _labelled(source, config, generator, host, device)
    if config.limit:
        from ilora_core.sources import Subset

        source = Subset(source, source.keys[: config.limit])
    if len(source) == 0:
        raise DataError("the source has no pictures.")
    offered = [intrinsic.name for intrinsic in source.intrinsics]
    for intrinsic in config.intrinsics:
        if intrinsic.name not in offered:
            raise DataError(
                f"the source has no {intrinsic.name} maps; it has {', '.join(offered) or 'none'}. "
                "Choose another --intrinsic, or a --labeler that gives it."
            )
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
    collected = [_Collector(_trained_as(intrinsic, source), held_out) for intrinsic in config.intrinsics]
    done = 0
    for batch in source:
        _check_size(batch, generator)
        codes = batch.codes or generator.encode(batch.pictures)
        for collector in collected:
            collector.add(batch, codes, generator)
        done += len(batch.keys)
        yield Prepared("encode", done, len(source))
    device = _cache_device(config, collected)
    return [collector.finish(device) for collector in collected]


class _Collector:
    """Gathers one intrinsic's samples batch by batch."""

    def __init__(self, intrinsic: Intrinsic, held_out: frozenset[str]):
        self.intrinsic, self.held_out = intrinsic, held_out
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
            own = {name: _rows(tensor, rows) for name, tensor in codes.items()}
            if side:
                self.held_codes.append(_to_cpu(own))
                self.truth.append(value[rows].float().cpu())
                self.valid.append(valid[rows].cpu())
            else:
                picture = self.intrinsic.to_picture(value[rows], valid[rows])
                self.codes.append(_to_cpu({**own, **generator.prepare(own, self.intrinsic, picture, valid[rows])}))

    def finish(self, device: torch.device) -> Task:
        """Join the batches."""
        train = PreparedSet(self.keys[False], PreparedSet.stack(self.codes, device))
        held = PreparedSet.stack(self.held_codes, "cpu") if self.held_codes else {}
        truth = torch.cat(self.truth) if self.truth else torch.empty(0)
        valid = torch.cat(self.valid) if self.valid else torch.empty(0)
        return Task(self.intrinsic, train, ValidationSet(tuple(self.keys[True]), held, truth, valid))

    def size(self) -> int:
        """Bytes of the training samples."""
        return sum(t.numel() * t.element_size() for codes in self.codes for t in codes.values())


def _bare_source(config: FitConfig, generator: Generator, host: PluginHost) -> Source:
    size, settings = generator.resolution[0], dict(config.settings.get("source", {}))
    if config.samples:
        return SampledSource(generator, config.samples, seed=config.train.seed)
    if config.source:
        if "size" in {option.name for option in options_of(host.card("sources", config.source).factory)}:
            settings.setdefault("size", size)
        return host.make("sources", config.source, **settings)
    from ilora_core.sources import FolderSource, PairsSource

    settings.setdefault("size", size)
    if config.pairs:
        return _make_local(PairsSource, Path(config.pairs), config.intrinsics, **settings)
    return _make_local(FolderSource, Path(config.pictures), **settings)


def _make_local(kind: Any, *arguments: Any, **settings: Any) -> Source:
    try:
        return kind(*arguments, **settings)
    except TypeError as error:
        raise ConfigError(f"--set source.…: {error}.") from error


def _labelled(
    source: Source, config: FitConfig, generator: Generator, host: PluginHost, device: torch.device
) -> Yields[Prepared, None, Source]:
    from ilora_core.labels import LabelledSource, cache_for, label_source

    generator.to(device if config.samples else "cpu")
    labeler = host.make("labelers", config.labeler, **config.settings.get("labeler", {}))
    cache = cache_for(labeler, config.labeler, dict(config.settings.get("labeler", {})))
    for done in label_source(labeler, source, cache, device=device):
        yield Prepared("label", done.done, done.total)
    return LabelledSource(source, cache, labeler.intrinsics)


def _trained_as(wanted: Intrinsic, source: Source) -> Intrinsic:
    """The source's own version of an intrinsic: a disparity labeler's depth is not a metric one's."""
    offered = next(i for i in source.intrinsics if i.name == wanted.name)
    return (
        offered if offered.encoding != "relative_depth" else type(offered)(**{**offered.to_json(), "rule": wanted.rule})
    )


def _check_size(batch: Batch, generator: Generator) -> None:
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


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows of a code; a single row that the whole batch shares stays as it is."""
    return tensor if tensor.shape[0] == 1 and len(rows) != 1 else tensor[rows.to(tensor.device)]


def _to_cpu(codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in codes.items()}
