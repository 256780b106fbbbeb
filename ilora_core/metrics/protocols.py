"""Evaluation protocols by name: which figures, after which alignment, and how pictures are combined.

    normals                normals-pooled (default) · normals-per-image
    depth                  relative01 (default) · paper · none · median · lsq-depth · lsq-disparity
    albedo                 raw (default) · scale-invariant
    shading                scale-invariant (default) · raw
    anything else          raw

Depth protocols in metres count truth between 1 mm and 1 km, and clip predictions to that; other limits are written into
the name: "lsq-depth@0.6-350" is Marigold's setting for DIODE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ilora_core.errors import ConfigError, UnknownName
from ilora_core.intrinsics import Intrinsic
from ilora_core.metrics import depth, metrics_for, normals, reflectance
from ilora_core.metrics.figures import FigureSpec, Measured

__all__ = ["Protocol", "get_protocol", "protocols_for"]


@dataclass(frozen=True)
class Protocol:
    """A name for tables, the figures it gives, and how one picture (C,H,W), (C,H,W), (1,H,W) is measured."""

    name: str
    figures: tuple[FigureSpec, ...]
    measure: Callable[[Tensor, Tensor, Tensor], Measured]


def protocols_for(intrinsic: Intrinsic) -> tuple[str, ...]:
    """Names of the protocols that suit an intrinsic; the first is the default."""
    if intrinsic.encoding == "unit_vector":
        return ("normals-pooled", "normals-per-image")
    if intrinsic.encoding == "relative_depth":
        # δ, AbsRel and the like need truth in metres: affine truth knows neither its zero nor its unit.
        return ("relative01", "paper", *(depth.ALIGNMENTS if intrinsic.kind == "metric" else ()))
    if intrinsic.encoding == "shading":
        return ("scale-invariant", "raw")
    return ("raw", "scale-invariant") if intrinsic.name == "albedo" else ("raw",)


def get_protocol(name: str | None, intrinsic: Intrinsic) -> Protocol:
    """The protocol of that name, or the intrinsic's default for None. Raises UnknownName that lists what suits it."""
    known = protocols_for(intrinsic)
    name = name or known[0]
    stem, limits_m = _split_limits(name)
    if stem not in known or (limits_m and stem not in depth.ALIGNMENTS):
        extra = " (truth has to be metric for the others)" if intrinsic.kind.startswith("affine") else ""
        raise UnknownName(f"no protocol {name!r} for {intrinsic.name}; choose from {', '.join(known)}{extra}.")
    figures, measure = _parts(stem, intrinsic, limits_m or depth.LIMITS_M)
    return Protocol(name, figures, measure)


def _parts(
    stem: str, intrinsic: Intrinsic, limits_m: tuple[float, float]
) -> tuple[tuple[FigureSpec, ...], Callable[[Tensor, Tensor, Tensor], Measured]]:
    if intrinsic.encoding == "unit_vector":
        return (normals.POOLED if stem == "normals-pooled" else normals.PER_IMAGE), normals.measure_normals
    if stem == "relative01":
        return depth.RELATIVE_FIGURES, partial(depth.measure_relative, intrinsic=intrinsic)
    if stem == "paper":
        return depth.PAPER_FIGURES, partial(depth.measure_paper, intrinsic=intrinsic)
    if stem in depth.ALIGNMENTS:
        return depth.DEPTH_FIGURES, partial(depth.measure_depth, alignment=stem, limits_m=limits_m)
    if stem == "scale-invariant":
        return reflectance.SCALE_INVARIANT_FIGURES, reflectance.measure_scale_invariant
    if intrinsic.name == "albedo" or intrinsic.encoding == "shading":
        return reflectance.RAW_FIGURES, reflectance.measure_raw
    return _by_metrics(intrinsic)


def _by_metrics(intrinsic: Intrinsic) -> tuple[tuple[FigureSpec, ...], Callable[[Tensor, Tensor, Tensor], Measured]]:
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
