"""Evaluation protocols by name: which figures, after which alignment, and how pictures are combined.

    normals                normals-pooled (default) · normals-per-image
    depth                  relative01 (default) · paper · median · marigold-lsq · disparity-lsq · metric
    albedo                 raw (default) · scale-invariant
    shading                scale-invariant (default) · raw
    anything else          raw

The last four want truth in metres. They count what lies between 1 mm and 1 km, and clip predictions to that; other
limits are written into the name: "marigold-lsq@0.6-350" is Marigold's setting for DIODE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ilora_core.errors import ConfigError, UnknownName
from ilora_core.intrinsics import Intrinsic
from ilora_core.metrics import depth, metrics_for, normals, reflectance
from ilora_core.metrics.figures import FigureSpec, Measured
from ilora_core.metrics.predicted import predicted_kind, read_as

__all__ = ["Protocol", "get_protocol", "protocols_for"]


_RENAMED = {"none": "metric", "lsq-depth": "marigold-lsq", "lsq-disparity": "disparity-lsq"}

Measure = Callable[[Tensor, Tensor, Tensor], Measured]


@dataclass(frozen=True)
class Protocol:
    """A name for tables, the figures it gives, and how one picture (C,H,W), (C,H,W), (1,H,W) is measured.

    predicts, read_as  depth only: the kind of the predictions and what the protocol makes of them (`metrics.predicted`)
    """

    name: str
    figures: tuple[FigureSpec, ...]
    measure: Measure
    predicts: str = ""
    read_as: str = ""


def protocols_for(intrinsic: Intrinsic, predicts: str | None = None) -> tuple[str, ...]:
    """Names of the protocols that suit an intrinsic, the default first; with `predicts`, those that can use that kind."""
    if intrinsic.encoding == "unit_vector":
        return ("normals-pooled", "normals-per-image")
    if intrinsic.encoding == "relative_depth":
        # δ, AbsRel and the like need truth in metres: affine truth knows neither its zero nor its unit.
        names = ("relative01", "paper", *(depth.ALIGNMENTS if intrinsic.kind == "metric" else ()))
        return names if predicts is None else tuple(name for name in names if _usable(name, predicts))
    if intrinsic.encoding == "shading":
        return ("scale-invariant", "raw")
    return ("raw", "scale-invariant") if intrinsic.name == "albedo" else ("raw",)


def get_protocol(name: str | None, intrinsic: Intrinsic, *, predicts: str | None = None) -> Protocol:
    """The protocol of that name, or the intrinsic's default for None.

    predicts  of depth: one of `metrics.predicted.PREDICTS`; "depth" unless told

    Raises UnknownName that lists what suits the intrinsic, ConfigError for predictions that the protocol cannot use.
    """
    known = protocols_for(intrinsic)
    name = name or known[0]
    stem, limits_m = _split_limits(name)
    if stem not in known or (limits_m and stem not in depth.ALIGNMENTS):
        raise UnknownName(f"no protocol {name!r} for {intrinsic.name}; {_hint(stem, intrinsic, known)}")
    kind = predicted_kind(intrinsic, predicts)
    figures, measure = _parts(stem, intrinsic, limits_m or depth.LIMITS_M, kind)
    return Protocol(_full_name(stem, limits_m), figures, measure, kind, read_as(stem, kind))


def _usable(name: str, predicts: str) -> bool:
    try:
        read_as(name, predicts)
    except ConfigError:
        return False
    return True


def _hint(stem: str, intrinsic: Intrinsic, known: tuple[str, ...]) -> str:
    if _RENAMED.get(stem) in known:
        return f"it is called {_RENAMED[stem]} now."
    extra = " (truth has to be metric for the others)" if intrinsic.kind.startswith("affine") else ""
    return f"choose from {', '.join(known)}{extra}."


def _parts(
    stem: str, intrinsic: Intrinsic, limits_m: tuple[float, float], kind: str
) -> tuple[tuple[FigureSpec, ...], Measure]:
    if intrinsic.encoding == "unit_vector":
        return (normals.POOLED if stem == "normals-pooled" else normals.PER_IMAGE), normals.measure_normals
    if stem == "relative01":
        return depth.RELATIVE_FIGURES, partial(depth.measure_relative, intrinsic=intrinsic, predicts=kind)
    if stem == "paper":
        return depth.PAPER_FIGURES, partial(depth.measure_paper, intrinsic=intrinsic, predicts=kind)
    if stem in depth.ALIGNMENTS:
        return depth.DEPTH_FIGURES, partial(depth.measure_depth, alignment=stem, limits_m=limits_m, predicts=kind)
    if stem == "scale-invariant":
        return reflectance.SCALE_INVARIANT_FIGURES, reflectance.measure_scale_invariant
    if intrinsic.name == "albedo" or intrinsic.encoding == "shading":
        return reflectance.RAW_FIGURES, reflectance.measure_raw
    return _by_metrics(intrinsic)


def _by_metrics(intrinsic: Intrinsic) -> tuple[tuple[FigureSpec, ...], Measure]:
    """Every metric known for the intrinsic, so that a user's own shows up in the table."""
    metrics = metrics_for(intrinsic)

    def measure(prediction: Tensor, truth: Tensor, valid: Tensor) -> Measured:
        pixels = int((valid & torch.isfinite(truth).all(0, keepdim=True)).sum())
        batch = (prediction[None], truth[None], valid[None])
        return Measured({m.name: float(m(*batch)[0]) for m in metrics} if pixels else {}, pixels)

    return tuple(FigureSpec(m.name, m.unit, m.higher_is_better) for m in metrics), measure


def _split_limits(name: str) -> tuple[str, tuple[float, float] | None]:
    stem, _, limits = name.partition("@")
    if not limits:
        return name, None
    found = re.fullmatch(r"([0-9.]+)-([0-9.]+)", limits)
    if not found or not 0 < float(found[1]) < float(found[2]):
        raise ConfigError(f"protocol {name!r}: write limits in metres as {stem}@0.6-350.")
    return stem, (float(found[1]), float(found[2]))


def _full_name(stem: str, limits_m: tuple[float, float] | None) -> str:
    """One name for one setting: "@0.60-350.0" is "@0.6-350", and the usual limits are not written."""
    if limits_m in (None, depth.LIMITS_M):
        return stem
    low, high = (np.format_float_positional(limit, trim="-") for limit in limits_m or ())
    return f"{stem}@{low}-{high}"
