"""Figures of whole sets with 95 % bootstrap intervals over scenes, and paired differences between methods.

A scene's figure is the mean over its pictures (two lights of one scene are not independent); scenes are drawn with
replacement, 1,000 times (`ilora_core.bootstrap`). `relight` compares the albedos that a method gives one scene under two
lights: RMS after the best single scale. An answer that ignores the picture does well there, so it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ilora_core.bootstrap import draw_weights, interval, statistic
from ilora_core.intrinsics import srgb_to_linear
from ilora_core.metrics.reflectance import scale_invariant_mse
from ilora_core.protocols import Labeler
from ilora_paradigms.dev import Truth
from ilora_paradigms.judge import FIGURES, judge
from ilora_paradigms.split import Split, rescale, unclipped

__all__ = ["Difference", "Scores", "constant", "difference", "from_labeler", "score"]

Method = Callable[[Tensor], Split]


@dataclass(frozen=True)
class Scores:
    """scenes: their names; rows: figure -> one value per scene, NaN where it does not exist."""

    scenes: tuple[str, ...]
    rows: Mapping[str, np.ndarray]

    def mean(self, figure: str) -> tuple[float, float, float]:
        """Mean over scenes with its interval."""
        return _with_interval(self.rows[figure])


@dataclass(frozen=True)
class Difference:
    """a - b of one figure with its interval; below 0 means that a errs less."""

    value: float
    low: float
    high: float


def score(method: Method, truth: Truth) -> Scores:
    """A method's figures on every scene."""
    found = [method(part) for part in truth.pictures.split(10)]
    albedo, shading = (torch.cat([getattr(f, name) for f in found]) for name in ("albedo", "shading"))
    guess = Split(albedo, shading, torch.ones(len(albedo), 1, 1, 1))
    rows = judge(guess, truth.albedo, truth.shading, truth.valid)
    scenes = tuple(dict.fromkeys(truth.scenes))
    members = {scene: [i for i, name in enumerate(truth.scenes) if name == scene] for scene in scenes}
    table = {f: np.array([np.mean([rows[i][f] for i in members[s]]) for s in scenes]) for f in FIGURES}
    table["relight"] = np.array([_relight(albedo, truth.valid, members[scene]) for scene in scenes])
    return Scores(scenes, table)


def difference(a: Scores, b: Scores, figure: str) -> Difference:
    """Paired over scenes."""
    if a.scenes != b.scenes:
        raise ValueError("both scores must hold the same scenes")
    return Difference(*_with_interval(a.rows[figure] - b.rows[figure]))


def constant(pictures: Tensor) -> Split:
    """The answer that sees no paint: a white albedo, the picture's mean linear value as shading."""
    linear = srgb_to_linear(pictures)
    return rescale(torch.ones_like(linear), linear.mean(1, keepdim=True), unclipped(pictures))


def from_labeler(labeler: Labeler) -> Method:
    """A labeler as a method."""

    def method(pictures: Tensor) -> Split:
        found = labeler.label(pictures)
        return Split(found["albedo"][0].cpu(), found["shading"][0].cpu(), torch.ones(len(pictures), 1, 1, 1))

    return method


def _relight(albedo: Tensor, valid: Tensor, members: list[int]) -> float:
    if len(members) != 2:
        return math.nan
    first, second = members
    return math.sqrt(scale_invariant_mse(albedo[first], albedo[second], valid[first] & valid[second]))


def _with_interval(values: np.ndarray) -> tuple[float, float, float]:
    ones = np.ones(len(values))
    if len(values) < 2 or np.isnan(values).all():
        return float(statistic("mean", ones[None], values, ones)[0]), math.nan, math.nan
    draws = [statistic("mean", w, values, ones) for w in draw_weights(len(values), resamples=1000, seed=0)]
    low, high = interval(np.concatenate(draws))
    return float(np.nanmean(values)), low, high
