"""Figures of merit by name: one number per picture, for choosing the best adapter and for tables.

    get_metric("normals_mean_deg")(prediction, truth, valid) -> (B,)

A metric's name carries its protocol: "depth_abs_rel@marigold-lsq" is AbsRel after a fit of scale and shift. Definitions
and sources are in `normals`, `depth` and `reflectance`; figures of whole sets, with confidence intervals, in
`ilora_core.evaluate`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ilora_core.errors import ConfigError, UnknownName
from ilora_core.intrinsics import DEPTH, Intrinsic
from ilora_core.metrics import depth, normals, reflectance
from ilora_core.metrics.figures import FigureSpec, Measured, prepare_maps

if TYPE_CHECKING:
    from ilora_core.protocols import Metric

__all__ = ["FigureSpec", "Measured", "PictureMetric", "get_metric", "metrics_for", "register_metric"]


@dataclass(eq=False)
class PictureMetric:
    """One of the figures that `measure` takes of a picture, as a `Metric`."""

    name: str
    intrinsic: str
    unit: str
    higher_is_better: bool
    figure: str
    measure: Callable[[Tensor, Tensor, Tensor], Measured]

    def __call__(self, prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Maps (B,C,H,W), bool (B,1,H,W) -> float64 (B,); NaN where no pixel counts. DataError for other shapes."""
        maps = prepare_maps(prediction, truth, valid, batched=True)
        rows = [self.measure(p, g, v).figures.get(self.figure, float("nan")) for p, g, v in zip(*maps, strict=True)]
        return torch.tensor(rows, dtype=torch.float64)


def get_metric(name: str) -> Metric:
    """The metric of that name. Raises UnknownName that lists the known ones, nearest first."""
    if name not in _METRICS:
        near = difflib.get_close_matches(name, _METRICS, n=3)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise UnknownName(f"no metric is called {name!r}. {hint}Known are {', '.join(sorted(_METRICS))}.")
    return _METRICS[name]


def metrics_for(intrinsic: Intrinsic | str) -> tuple[Metric, ...]:
    """Metrics made for the intrinsic, then those for any. PSNR takes its range from an `Intrinsic` (else it is 1)."""
    name = intrinsic if isinstance(intrinsic, str) else intrinsic.name
    span = 1.0 if isinstance(intrinsic, str) else intrinsic.high - intrinsic.low
    own = [metric for metric in _METRICS.values() if metric.intrinsic == name]
    general = [_with_span(metric, span) for metric in _METRICS.values() if not metric.intrinsic]
    return (*own, *general)


def register_metric(metric: Metric) -> Metric:
    """Make a metric known by its name in this process. Raises ConfigError when another has that name."""
    if _METRICS.setdefault(metric.name, metric) is not metric:
        raise ConfigError(f"a metric called {metric.name!r} exists already; choose another name.")
    return metric


def _with_span(metric: Metric, span: float) -> Metric:
    if not isinstance(metric, PictureMetric) or metric.figure != "psnr":
        return metric
    measure = partial(reflectance.measure_range, span=span)
    return PictureMetric(metric.name, "", metric.unit, metric.higher_is_better, metric.figure, measure)


def _family(
    intrinsic: str, specs: tuple[FigureSpec, ...], measure: Callable[..., Measured], suffix: str = ""
) -> list[PictureMetric]:
    prefix = f"{intrinsic}_" if intrinsic else ""
    return [
        PictureMetric(f"{prefix}{spec.name}{suffix}", intrinsic, spec.unit, spec.higher_is_better, spec.name, measure)
        for spec in specs
    ]


def _built_in() -> list[PictureMetric]:
    metrics = _family("normals", normals.PER_IMAGE, normals.measure_normals)
    metrics += _family("depth", depth.RELATIVE_FIGURES, partial(depth.measure_relative, intrinsic=DEPTH))
    usual = tuple(spec for spec in depth.DEPTH_FIGURES if spec.name in ("abs_rel", "rmse", "delta1", "silog"))
    for alignment in depth.ALIGNMENTS:
        metrics += _family("depth", usual, partial(depth.measure_depth, alignment=alignment), f"@{alignment}")
    for name in ("albedo", "shading"):
        metrics += _family(name, reflectance.RAW_FIGURES, reflectance.measure_raw)
        metrics += _family(name, reflectance.SCALE_INVARIANT_FIGURES, reflectance.measure_scale_invariant)
    return metrics + _family("", reflectance.RANGE_FIGURES, reflectance.measure_range)


_METRICS: dict[str, Metric] = {metric.name: metric for metric in _built_in()}
