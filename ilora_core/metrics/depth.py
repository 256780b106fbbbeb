"""Errors of depth maps, after an alignment that suits what the prediction knows.

On valid pixels whose true depth g lies inside the limits, with the aligned prediction p clipped to them:

    AbsRel mean |p-g|/g        SqRel mean (p-g)²/g    MAE mean |p-g|            RMSE √mean (p-g)²
    RMSElog √mean d²           SILog 100 √(mean d² - (mean d)²)                 d = ln p - ln g
    log10 mean |log10 p/g|     δn mean [max(p/g, g/p) < 1.25ⁿ]                  iRMSE √mean (1/p - 1/g)²

Alignment, per picture:

    metric         none: metres
    median         s·p, s = med g / med p
    marigold-lsq   s·p + t of least Σ (s·p + t - g)², for affine depth: Marigold
    disparity-lsq  1 / max(s·p + t, 0.001) of least Σ (s·p + t - 1/g)², for affine disparity: MiDaS, Depth Anything

What each makes of depth, disparity and metres is said in `ilora_core.metrics.predicted`. Relative depth d goes into
disparity-lsq as it is: 1 - d gives the same fit, with the other sign of s.

    relative01   both maps as [0,1] pictures, near = bright; RMS over valid pixels
    paper        as I-LoRA (arXiv 2311.17137) seems to have it: truth by the reference code's limits, prediction
                 stretched to [0,1] by its own extremes; δ1 of those with 1e-6 added, which is ill-posed near 0

Figures of a set are means over pictures (so RMSE is not pooled), as in the code of ZoeDepth, MiDaS and Marigold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import Intrinsic
from ilora_core.metrics.figures import FigureSpec, Measured, exact, select
from ilora_core.metrics.predicted import predicted_kind

__all__ = [
    "ALIGNMENTS",
    "DEPTH_FIGURES",
    "LIMITS_M",
    "PAPER_FIGURES",
    "RELATIVE_FIGURES",
    "align_depth",
    "fit_scale_shift",
    "measure_depth",
    "measure_paper",
    "measure_relative",
]

LIMITS_M = (1e-3, 1e3)
_LEAST_DISPARITY = 1e-3
_DELTA = 1.25

DEPTH_FIGURES = (
    FigureSpec("abs_rel", ""),
    FigureSpec("sq_rel", "m"),
    FigureSpec("mae", "m"),
    FigureSpec("rmse", "m"),
    FigureSpec("rmse_log", "ln"),
    FigureSpec("log10", ""),
    *(FigureSpec(f"delta{n}", "", True) for n in (1, 2, 3)),
    FigureSpec("silog", "×100"),
    FigureSpec("irmse", "1/m"),
)
RELATIVE_FIGURES = (FigureSpec("rms01", ""), FigureSpec("mae01", ""))
PAPER_FIGURES = (*RELATIVE_FIGURES, FigureSpec("delta1_01", "%", True))


def measure_depth(
    prediction: Tensor,
    truth: Tensor,
    valid: Tensor,
    *,
    alignment: str,
    limits_m: tuple[float, float] = LIMITS_M,
    predicts: str = "",
) -> Measured:
    """Maps (1,H,W), the truth in metres -> the figures of DEPTH_FIGURES. Raises DataError if they cannot be aligned.

    predicts  "metric" makes disparity-lsq fit 1/p; nothing else depends on it
    """
    low, high = limits_m
    p, g = select(prediction, truth, valid & (truth > low) & (truth < high))
    if not g.shape[1]:
        return Measured({}, 0)
    p, g = p[0], g[0]
    p = _reciprocal(p) if (alignment, predicts) == ("disparity-lsq", "metric") else p
    figures = _figures(align_depth(p, g, alignment).clamp(low, high), g)
    return Measured(figures, g.numel())


def align_depth(p: Tensor, g: Tensor, alignment: str) -> Tensor:
    """Predictions (N,) brought to true depths (N,) by one of ALIGNMENTS; a depth, not clipped."""
    return ALIGNMENTS[alignment](p, g)


def fit_scale_shift(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(s, t) of least Σ (s·x + t - y)² over (N,); a constant x gives s = 0 and t = the mean of y."""
    centred = x - x.mean()
    variance = (centred**2).sum()
    scale = (centred * y).sum() / variance if variance > 0 else torch.zeros_like(variance)
    return scale.item(), (y.mean() - scale * x.mean()).item()


def measure_relative(
    prediction: Tensor, truth: Tensor, valid: Tensor, *, intrinsic: Intrinsic, predicts: str | None = None
) -> Measured:
    """Prediction (1,H,W) within [0,1], taken as it is, or metres, drawn as the truth is; truth of `intrinsic.kind`."""
    near, kind = exact(intrinsic.to_picture(truth[None], valid[None])[0, :1]), predicted_kind(intrinsic, predicts)
    drawn = _near(prediction, kind)
    if kind == "metric":
        drawn = exact(replace(intrinsic, kind=kind).to_picture(prediction[None], valid[None])[0, :1])
    p, g = select(drawn, near, valid & torch.isfinite(truth))
    if not g.shape[1]:
        return Measured({}, 0)
    if p.min() < -0.25 or p.max() > 1.25:
        raise DataError(
            f"relative01 takes pictures in [0,1], but the prediction's reaches from {p.min():.3g} to {p.max():.3g}. "
            "Say --predicts metric if it is in metres; else ask for other protocols: marigold-lsq for affine depth, "
            "disparity-lsq for disparity."
        )
    return Measured(_relative(p, g), g.numel())


def measure_paper(
    prediction: Tensor, truth: Tensor, valid: Tensor, *, intrinsic: Intrinsic, predicts: str | None = None
) -> Measured:
    """As `measure_relative`, by the reference code's rules; the figures of PAPER_FIGURES."""
    rule = replace(intrinsic, rule="paper")
    near = exact(rule.to_picture(truth[None], valid[None])[0, :1])
    stretched = _near(exact(prediction), predicted_kind(intrinsic, predicts))
    low, high = stretched.min(), stretched.max()
    stretched = (stretched - low) / (high - low).clamp(min=1e-8)
    p, g = select(stretched, near, valid & torch.isfinite(truth))
    if not g.shape[1]:
        return Measured({}, 0)
    delta = 100 * _delta(p + 1e-6, g + 1e-6, 1)
    return Measured(_relative(p, g) | {"delta1_01": delta.item()}, g.numel())


def _near(prediction: Tensor, predicts: str) -> Tensor:
    return prediction if predicts == "disparity" else 1 - prediction


def _relative(p: Tensor, g: Tensor) -> dict[str, float]:
    return {"rms01": ((p - g) ** 2).mean().sqrt().item(), "mae01": (p - g).abs().mean().item()}


def _figures(p: Tensor, g: Tensor) -> dict[str, float]:
    d = p.log() - g.log()
    values = {
        "abs_rel": ((p - g).abs() / g).mean(),
        "sq_rel": ((p - g) ** 2 / g).mean(),
        "mae": (p - g).abs().mean(),
        "rmse": ((p - g) ** 2).mean().sqrt(),
        "rmse_log": (d**2).mean().sqrt(),
        "log10": (p.log10() - g.log10()).abs().mean(),
        **{f"delta{n}": _delta(p, g, n) for n in (1, 2, 3)},
        "silog": 100 * ((d - d.mean()) ** 2).mean().sqrt(),
        "irmse": ((1 / p - 1 / g) ** 2).mean().sqrt(),
    }
    return {name: value.item() for name, value in values.items()}


def _delta(p: Tensor, g: Tensor, n: int) -> Tensor:
    share = (torch.maximum(p / g, g / p) < _DELTA**n).double().mean()
    return share + 0 * p.sum()  # NaN stays NaN: a comparison alone would call it a miss


def _median(x: Tensor) -> Tensor:
    ordered = x.sort().values
    return (ordered[(x.numel() - 1) // 2] + ordered[x.numel() // 2]) / 2


def _reciprocal(p: Tensor) -> Tensor:
    if odd := int((p <= 0).sum()):
        raise DataError(
            f"1 / metres needs positive metres, but {odd} of {p.numel()} pixels are 0 or below. "
            "Write NaN where there is no prediction and leave it out (--skip-holes)."
        )
    return 1 / p


def _by_median(p: Tensor, g: Tensor) -> Tensor:
    middle = _median(p)
    if middle <= 0:
        raise DataError(
            f"median scaling needs positive predictions, but their median is {middle:.3g}. Depth of unknown shift is for "
            "marigold-lsq: leave median out."
        )
    return p * (_median(g) / middle)


def _by_depth(p: Tensor, g: Tensor) -> Tensor:
    scale, shift = fit_scale_shift(p, g)
    return scale * p + shift


def _by_disparity(p: Tensor, g: Tensor) -> Tensor:
    scale, shift = fit_scale_shift(p, 1 / g)
    return 1 / (scale * p + shift).clamp(min=_LEAST_DISPARITY)


ALIGNMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "median": _by_median,
    "marigold-lsq": _by_depth,
    "disparity-lsq": _by_disparity,
    "metric": lambda p, g: p,
}
