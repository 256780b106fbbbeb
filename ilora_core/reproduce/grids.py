"""The rows that studies are made of: a family's recipe as flat settings, axes over methods, labels and seeds.

Cells of different studies that are the same cell are computed once, so what is usual is spelt in one way, here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilora_core.reproduce.world import Family, World
from ilora_core.sweep import Axis, Choice, Sweep

__all__ = [
    "FIGURES",
    "FULL",
    "LORA",
    "MEAN",
    "NORMALS",
    "PROBE",
    "PROTOCOLS",
    "RANDOM",
    "RANK",
    "base_of",
    "controls_of",
    "count_of",
    "label_axis",
    "lora_of",
    "seed_axis",
    "single",
    "way_of",
    "ways_of",
]

RANK = 8
LORA, RANDOM, FULL, PROBE, MEAN = "LoRA", "random init", "full fine-tuning", "linear probe", "mean map"
NORMALS = ("mean_deg", "median_deg", "below_11_25")
PROTOCOLS = {"normals": "normals-pooled", "depth": "paper", "albedo": "raw", "shading": "raw"}
FIGURES = {"normals": ("mean_deg", "median_deg", "l1x100"), "depth": (), "albedo": (), "shading": ()}


def base_of(world: World, family: Family, intrinsic: str = "normals") -> dict[str, Any]:
    return {**family.of(intrinsic), "validation": world.validation, **count_of(world, family)}


def count_of(world: World, family: Family, labels: int = 0) -> dict[str, Any]:
    return {family.count: (labels or world.usual) + world.validation}


def lora_of(world: World, family: Family, intrinsic: str = "normals") -> dict[str, Any]:
    return {**base_of(world, family, intrinsic), "adapter": "lora", **family.rate("lora", intrinsic)}


def label_axis(world: World, family: Family) -> Axis:
    return Axis("labels", tuple(Choice(f"{n:,}", count_of(world, family, n)) for n in world.labels))


def seed_axis(world: World) -> Axis:
    return Axis.of("train.seed", world.seeds)


def ways_of(family: Family) -> list[Choice]:
    first, last = controls_of(family)[:-1], controls_of(family)[-1]
    return [way_of(kind, family) for kind in (LORA, *first, FULL, PROBE, last)]


def controls_of(family: Family) -> tuple[str, ...]:
    """What every adapter is held against, the mean map last."""
    return (RANDOM, MEAN) if family.has_random else (MEAN,)


def way_of(kind: str, family: Family, intrinsic: str = "") -> Choice:
    settings: dict[str, Any] = {
        LORA: {"adapter": "lora", **family.rate("lora", intrinsic)},
        RANDOM: {"method": "random-init", **family.rate("lora", intrinsic)},
        FULL: {"adapter": "full", **family.rate("full", intrinsic)},
        PROBE: {"method": "probe"},
        MEAN: {"method": "mean-map"},
    }[kind]
    return Choice(kind, settings)


def single(base: Mapping[str, Any], test: str, protocol: str, *, draw: Mapping[str, Any] | None = None) -> Sweep:
    return Sweep(base, (), test, protocol, dict(draw or {}))
