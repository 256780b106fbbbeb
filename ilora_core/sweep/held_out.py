"""The held-out pictures with true maps that every cell is scored on.

rooms:test:100                a source card; a word is its `split`, a number the first N pictures
diode:split=val:indoors=true  its other settings, by name
./held_out:50                 a folder of pairs (with a slash in it), at the pictures' own sizes; frame=… and scales as there
samples:200:labeler=rooms     the cell's own generator's samples, drawn with seed 1000 and labelled: no truth, but agreement
(nothing)                     the fit's own validation pictures, which also chose the adapter that was kept
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ilora_core.config import FitConfig
from ilora_core.data import Prepared, open_source, split_keys
from ilora_core.errors import ConfigError, UnknownName
from ilora_core.factories import options_of
from ilora_core.labelling import labeler_names
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Source
from ilora_core.sources import PairsSource, Subset
from ilora_core.values import read_value

__all__ = ["HeldOut", "check_held_out", "open_held_out", "parse_held_out"]

_SAMPLES_SEED = 1000  # training draws with small seeds
_NOT_WHICH = ("n", "size", "batch_size", "device")  # settings of a source that do not say which pictures they are


@dataclass(frozen=True)
class HeldOut:
    """kind: "source", "pairs", "samples" or "validation"; name: the card or the folder; first: of the pictures, 0 = all."""

    kind: str
    name: str = ""
    first: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "settings": dict(self.settings)}

    def __str__(self) -> str:
        if self.kind == "validation":
            return "each fit's own validation pictures"
        more = [str(v) if k == "split" else f"{k}={v}" for k, v in self.settings.items()]
        return ":".join([self.name, *more, *([str(self.first)] if self.first else [])])


def parse_held_out(text: str) -> HeldOut:
    """The held-out set that `text` names; see the module."""
    if not text:
        return HeldOut("validation")
    head, *parts = text.split(":")
    kind = "pairs" if "/" in head else "samples" if head == "samples" else "source"
    first, settings = 0, {}
    for part in parts:
        key, equals, value = part.partition("=")
        if part.isdecimal():
            first = int(part)
        elif equals and key:
            settings[key] = read_value(value)
        elif part and kind == "source":
            settings["split"] = part
        else:
            raise ConfigError(f"--test {text}: {part!r} is neither a number of pictures nor key=value.")
    if kind == "samples":
        first = first or 100
        if unknown := sorted(set(settings) - {"seed", "labeler"}):
            raise ConfigError(f"--test {text}: samples take seed=… and labeler=…, not {unknown[0]}.")
    name = str(Path(head).expanduser().resolve()) if kind == "pairs" else head
    return HeldOut(kind, name, first, settings)


def check_held_out(held_out: HeldOut, config: FitConfig, host: PluginHost) -> None:
    """What is wrong with scoring a fit on these, before anything is loaded: ConfigError, DataError for a folder."""
    if held_out.kind == "validation" and config.validation == 0:
        raise ConfigError("there is nothing to score on: give --test, or hold pictures out with --validation.")
    if held_out.kind == "source":
        _check_card(held_out, config, host)
    elif held_out.kind == "pairs":
        if config.pairs and Path(config.pairs).resolve() == Path(held_out.name):
            raise ConfigError(
                "--test is the very folder that is learnt from: keep some pairs apart, or leave --test out."
            )
        _pairs(held_out, config)
    elif held_out.kind == "samples":
        _check_samples(held_out, config, host)


def open_held_out(
    held_out: HeldOut, config: FitConfig, *, size: int, host: PluginHost, device: torch.device
) -> Yields[Prepared, None, Source]:
    """The source itself, with maps. size: of the generator's pictures. Yields progress while a labeler works."""
    if held_out.kind == "pairs":
        return _first(_pairs(held_out, config), held_out.first)
    if held_out.kind == "source":
        taken = _taken(host, held_out.name)
        given = {"size": size, **_asked(held_out, config, taken), "n": held_out.first}
        settings = {
            name: value for name, value in given.items() if name not in ("size", "n") or (name in taken and value)
        }
        return _first(host.make("sources", held_out.name, **settings), held_out.first)
    generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
    if held_out.kind == "validation":
        source = yield from open_source(config, generator, host, device)
        return Subset(source, split_keys(source.keys, config.validation, seed=config.train.seed))
    return (yield from open_source(_sampled(held_out, config), generator, host, device))


def _sampled(held_out: HeldOut, config: FitConfig) -> FitConfig:
    """The fit whose own samples are the test."""
    labeler = held_out.settings.get("labeler", config.labeler)
    groups = {**config.settings, "train": {"seed": held_out.settings.get("seed", _SAMPLES_SEED)}, "source": {}}
    if labeler != config.labeler:
        groups["labeler"] = {}
    places = {"source": "", "pairs": "", "pictures": "", "samples": held_out.first}
    return replace(config, **places, labeler=labeler, limit=0, settings=groups)


def _check_card(held_out: HeldOut, config: FitConfig, host: PluginHost) -> None:
    try:
        card = host.card("sources", held_out.name)
    except UnknownName as error:
        hint = f" For the folder write ./{held_out.name}." if Path(held_out.name).is_dir() else ""
        raise UnknownName(f"--test: {error}{hint}") from error
    taken = _taken(host, held_out.name)
    host.check_settings("sources", held_out.name, held_out.settings)
    for intrinsic in config.intrinsics:
        if card.intrinsics and intrinsic.name not in card.intrinsics:
            raise ConfigError(f"--test {held_out.name} has no {intrinsic.name}; it has {', '.join(card.intrinsics)}.")
    if config.source.rpartition("/")[2] == held_out.name.rpartition("/")[2]:
        which = {name: value for name, value in taken.items() if name not in _NOT_WHICH}
        one = {**which, **config.settings.get("source", {})}
        other = {**which, **_asked(held_out, config, taken)}
        if all(one[name] == other[name] for name in which):
            raise ConfigError(f"--test {held_out} are the very pictures that are learnt from: choose another split.")


def _check_samples(held_out: HeldOut, config: FitConfig, host: PluginHost) -> None:
    if not (held_out.settings.get("labeler") or config.labeler):
        raise ConfigError("--test samples: nobody says what their maps are; add :labeler=NAME.")
    if config.samples and held_out.settings.get("seed", _SAMPLES_SEED) == config.train.seed:
        raise ConfigError("--test samples: these are the very samples that are learnt from; add another :seed=N.")
    for name in labeler_names(held_out.settings.get("labeler", "")):
        host.card("labelers", name)
    if any(key.startswith("random_") and value is True for key, value in config.settings.get("generator", {}).items()):
        raise ConfigError(
            "--test samples: a network of random weights draws other pictures than the trained one. Score on a source "
            "that brings codes with their maps."
        )


def _asked(held_out: HeldOut, config: FitConfig, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The source's settings; codes belong to one generator, by default the one that was fitted."""
    return {**({"generator": config.generator} if "generator" in taken else {}), **held_out.settings}


def _taken(host: PluginHost, name: str) -> dict[str, Any]:
    """A source's settings with their defaults."""
    owner, card = host.find("sources", name)
    options = options_of(card.factory, what=f"source {name!r}", plugin=owner)
    return {option.name: card.options.get(option.name, option.default) for option in options}


def _pairs(held_out: HeldOut, config: FitConfig) -> PairsSource:
    try:
        return PairsSource(held_out.name, config.intrinsics, **held_out.settings)
    except TypeError as error:
        raise ConfigError(f"--test {held_out}: {error}.") from error


def _first(source: Source, n: int) -> Source:
    return Subset(source, source.keys[:n]) if 0 < n < len(source.keys) else source
