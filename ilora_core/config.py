"""Settings: defaults < preset < what the user sets, resolved once into frozen dataclasses and stored as plain JSON."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.registry import Preset, load_registry

__all__ = [
    "GROUPS",
    "FitConfig",
    "RuntimeConfig",
    "TrainConfig",
    "build",
    "cast_setting",
    "choose_preset",
    "merge_settings",
]

PRECISIONS = ("fp32", "bf16", "fp16")
OPTIMIZERS = ("adamw", "adamw8bit")
SCHEDULES = ("constant", "linear", "cosine")
GROUPS = ("generator", "labeler", "source", "adapter", "train", "runtime")

_WEIGHTING = re.compile(r"even|disagreement(@\d*\.?\d+)?")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe. Defaults are the reference's single-step ones (AdamW, constant 1e-4, batch 4, no clipping).

    steps        optimiser steps
    batch        samples per process and micro-step; a step sees batch × accumulate × processes
    warmup       steps of linear rise before `schedule`
    clip         largest gradient norm; 0 = none (the reference asks for 1.0, but its call never takes effect)
    keep_every   steps between validations, kept adapters and resume points; 0 = a tenth of `steps`
    weighting    of pixels: "even", or "disagreement": less where the labelers of a mix disagree (`ilora_core.mixes`), relative
                 to each picture's median; "disagreement@5": relative to 5 degrees of normals, or to that share of the range
    """

    steps: int = 4000
    batch: int = 4
    lr: float = 1e-4
    weight_decay: float = 1e-2
    schedule: str = "constant"
    warmup: int = 0
    clip: float = 0.0
    accumulate: int = 1
    optimizer: str = "adamw"
    keep_every: int = 0
    seed: int = 0
    weighting: str = "even"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("lr", "weight_decay", "warmup", "clip", "keep_every"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"train.{name} must be zero or more, not {getattr(self, name)}.")
        _one_of("train.schedule", self.schedule, SCHEDULES)
        _one_of("train.optimizer", self.optimizer, OPTIMIZERS)
        if not _WEIGHTING.fullmatch(self.weighting):
            raise ConfigError(f"train.weighting is even, disagreement or disagreement@NUMBER, not {self.weighting!r}.")

    @property
    def disagreement_scale(self) -> float:
        """The number after the @ of `weighting`; 0 = each picture's median."""
        return float(self.weighting.partition("@")[2] or 0)

    @property
    def interval(self) -> int:
        """Steps between resume points."""
        return self.keep_every or max(1, -(-self.steps // 10))


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how it runs; none of it changes what is computed beyond rounding.

    device         "auto", "cpu", "cuda", "cuda:1", "mps"
    checkpointing  recompute activations in the backward pass: less memory, about 1.3 times the work
    compile        torch.compile the network
    cache          where prepared samples live: "auto" (the device, unless it is short of memory), "device", "cpu"
    keep_both      leave the generator on the device while a labeler works on its samples
    """

    device: str = "auto"
    precision: str = "fp32"
    checkpointing: bool = False
    compile: bool = False
    cache: str = "auto"
    keep_both: bool = False

    def __post_init__(self) -> None:
        _one_of("runtime.precision", self.precision, PRECISIONS)
        _one_of("runtime.cache", self.cache, ("auto", "device", "cpu"))


@dataclass(frozen=True)
class FitConfig:
    """All that a fit depends on. `run.json` holds it, and `ilora fit --from run.json` repeats it.

    Exactly one of source (a plugin's name), pairs (a folder of pictures and maps), pictures (a folder to be labelled)
    and samples (a number of the generator's own pictures) says where pictures come from; the last two need a labeler.
    labeler is one name, or several joined by + that are mixed.
    limit caps how many pictures are used; validation is a share (< 1) or a number of pictures held out.
    settings holds plain values by group: generator, labeler, source, adapter, train, runtime.
    """

    generator: str
    intrinsics: tuple[Intrinsic, ...]
    source: str = ""
    pairs: str = ""
    pictures: str = ""
    samples: int = 0
    labeler: str = ""
    adapter: str = "lora"
    limit: int = 0
    validation: float = 0.1
    preset: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [name for name in ("source", "pairs", "pictures", "samples") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                "say where pictures come from with exactly one of --pairs DIR, --pictures DIR, --source NAME or "
                f"--samples N{' (given: ' + ', '.join(given) + ')' if given else ''}."
            )
        if given[0] in ("pictures", "samples") and not self.labeler:
            raise ConfigError(f"--{given[0]} brings no maps: say who draws them with --labeler NAME.")
        if self.labeler and given[0] == "pairs":
            raise ConfigError("--pairs brings its own maps: leave --labeler out, or use --pictures DIR.")
        if not self.intrinsics:
            raise ConfigError("say what to learn with --intrinsic NAME (several with commas).")
        if self.validation < 0 or self.limit < 0:
            raise ConfigError("--validation and --limit must be zero or more.")

    @property
    def train(self) -> TrainConfig:
        """The recipe, resolved."""
        return build(TrainConfig, "train", self.settings.get("train", {}))

    @property
    def runtime(self) -> RuntimeConfig:
        """Device and precision, resolved."""
        return build(RuntimeConfig, "runtime", self.settings.get("runtime", {}))

    def to_json(self) -> dict[str, Any]:
        """Plain data for run.json."""
        data = asdict(self)
        data["intrinsics"] = [intrinsic.to_json() for intrinsic in self.intrinsics]
        data["settings"] = {group: dict(values) for group, values in self.settings.items() if values}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FitConfig:
        """The inverse of `to_json`."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ConfigError(f"this run's config has an unknown entry {unknown[0]!r}: made by a newer ilora?")
        intrinsics = tuple(Intrinsic.from_json(entry) for entry in data["intrinsics"])
        return cls(**{**data, "intrinsics": intrinsics})


def choose_preset(generator: str, preset: str) -> Preset | None:
    """The preset of that name, the generator's first one for "", none for "none". Raises UnknownName."""
    registry = load_registry()
    stated = registry.presets_for(generator.rpartition("/")[2])
    return None if preset == "none" else registry.preset(preset) if preset else (stated or [None])[0]


def merge_settings(generator: str, preset: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Preset (its own name, or "" for the generator's first one, or "none"), overlaid by what the user gave."""
    chosen = choose_preset(generator, preset)
    merged: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, value in (chosen.settings if chosen else {}).items():
        group, _, name = key.partition(".")
        merged[group][name] = value
    for group, values in given.items():
        if group not in GROUPS:
            raise ConfigError(f"no settings group {group!r}; --set takes {', '.join(f'{g}.…' for g in GROUPS)}.")
        merged[group].update(values)
    build(TrainConfig, "train", merged["train"])
    build(RuntimeConfig, "runtime", merged["runtime"])
    return {group: values for group, values in merged.items() if values}


def build(kind: Any, group: str, values: Mapping[str, Any]) -> Any:
    """A settings dataclass from plain values. Raises ConfigError naming an unknown or ill-typed one."""
    known = {f.name: f for f in fields(kind)}
    made = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {group}.{near[0]}?" if near else ""
            raise ConfigError(f"there is no setting {group}.{name}.{hint} Known: {', '.join(known)}.")
        made[name] = cast_setting(f"{group}.{name}", value, type(known[name].default))
    return kind(**made)


def cast_setting(name: str, value: Any, kind: type) -> Any:
    """The value as a setting of that type. Raises ConfigError when it is of another."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{name} must be {kind.__name__}, not {value!r}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
