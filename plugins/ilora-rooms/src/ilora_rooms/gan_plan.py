"""What decides the weights of the rooms StyleGAN2: widths, stages and the numbers of its training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Plan", "plan_of", "stages_of"]


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here.

    stages      (resolution, pictures shown at it), growing; the last resolution is the network's
    gamma       R1's weight at 64²; at R² it is gamma (R/64)²
    ema_images  half-life of the average, in pictures shown
    mixing      part of the samples that take their styles from two codes
    base, widest  channels(r) = min(base / r, widest), of the generator and the critic
    """

    stages: tuple[tuple[int, int], ...] = ((64, 2_000_000),)
    batch: int = 32
    lr: float = 2e-3
    gamma: float = 0.5
    ema_images: float = 10_000
    mixing: float = 0.5
    augment: tuple[str, ...] = ()
    base: int = 1024
    widest: int = 128
    mapping_layers: int = 4
    latent: int = 128
    seed: int = 0


def stages_of(text: str) -> tuple[tuple[int, int], ...]:
    """ "16:1000,64:500" -> ((16, 1000), (64, 500)). Raises ValueError unless the resolutions grow."""
    stages = tuple((int(part.split(":")[0]), int(part.split(":")[1])) for part in text.split(","))
    if any(a >= b for (a, _), (b, _) in itertools.pairwise(stages)):
        raise ValueError(f"stages grow: each resolution must be larger than the one before, not {text}")
    return stages


def plan_of(stored: Mapping[str, Any]) -> Plan:
    """A plan from its JSON."""
    tuples = {"stages": tuple(tuple(s) for s in stored["stages"]), "augment": tuple(stored["augment"])}
    return Plan(**{**stored, **tuples})
