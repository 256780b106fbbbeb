"""Errors of albedo, shading and any other map with plain values.

    RMS     √mean (p-g)²                                     MSE, MAE as usual; PSNR = 20 log10(range / RMS)
    si-MSE  mean (g - αp)²,  α = Σ g p / Σ p²  (0 where Σ p² ≤ 1e-5): per picture (Sintel) or channel (MIT)
    LMSE    Σ_w min_α Σ (g - αp)² / Σ_w Σ g²  over windows w of 20 px, 10 px apart, each with its own α

All sums run over valid pixels and channels. Grosse et al., "Ground truth dataset and baseline evaluations for intrinsic
image algorithms", ICCV 2009. Their code added the denominator once per row of windows, so that scores could exceed 1;
we add it once per window, as Bell et al. 2014 do. A map with colours has one α per window for all its channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.metrics.figures import FigureSpec, Measured, exact, select

__all__ = [
    "RANGE_FIGURES",
    "RAW_FIGURES",
    "SCALE_INVARIANT_FIGURES",
    "lmse",
    "lmse_score",
    "measure_range",
    "measure_raw",
    "measure_scale_invariant",
    "scale_invariant_mse",
]

RAW_FIGURES = (FigureSpec("rms", ""), FigureSpec("mse", ""))
SCALE_INVARIANT_FIGURES = (FigureSpec("si_rms", ""), FigureSpec("si_mse", ""), FigureSpec("lmse", ""))
RANGE_FIGURES = (FigureSpec("rms", ""), FigureSpec("mae", ""), FigureSpec("psnr", "dB", True))

_LEAST_ENERGY = 1e-5
_MOST_PSNR_DB = 100.0


def measure_raw(prediction: Tensor, truth: Tensor, valid: Tensor) -> Measured:
    """Maps (C,H,W), mask (1,H,W) -> RMS and MSE of one picture, without alignment."""
    p, g = select(prediction, truth, valid)
    if not g.shape[1]:
        return Measured({}, 0)
    mse = ((p - g) ** 2).mean().item()
    return Measured({"rms": math.sqrt(mse), "mse": mse}, g.shape[1])


def measure_scale_invariant(prediction: Tensor, truth: Tensor, valid: Tensor) -> Measured:
    """Maps (C,H,W), mask (1,H,W) -> si-RMS, si-MSE (one scale per picture) and LMSE of one picture."""
    _, g = select(prediction, truth, valid)
    if not g.shape[1]:
        return Measured({}, 0)
    si = scale_invariant_mse(prediction, truth, valid)
    return Measured({"si_rms": math.sqrt(si), "si_mse": si, "lmse": lmse(prediction, truth, valid)}, g.shape[1])


def measure_range(prediction: Tensor, truth: Tensor, valid: Tensor, *, span: float = 1.0) -> Measured:
    """Maps (C,H,W), mask (1,H,W) -> RMS, MAE and PSNR; `span` = high - low. An exact match has 100 dB, not infinity."""
    p, g = select(prediction, truth, valid)
    if not g.shape[1]:
        return Measured({}, 0)
    rms = ((p - g) ** 2).mean().sqrt().item()
    least = span * 10 ** (-_MOST_PSNR_DB / 20)
    psnr = rms if math.isnan(rms) else 20 * math.log10(span / max(rms, least))
    return Measured({"rms": rms, "mae": (p - g).abs().mean().item(), "psnr": psnr}, g.shape[1])


def scale_invariant_mse(prediction: Tensor, truth: Tensor, valid: Tensor, *, per_channel: bool = False) -> float:
    """Mean squared error after the best scale of the prediction; one scale for the picture, or one per channel."""
    p, g = select(prediction, truth, valid)
    if not per_channel:
        p, g = p.reshape(1, -1), g.reshape(1, -1)
    alpha = _best_scale((p * g).sum(1), (p**2).sum(1))
    return ((g - alpha[:, None] * p) ** 2).mean().item()


def lmse(prediction: Tensor, truth: Tensor, valid: Tensor, *, window: int = 20, step: int | None = None) -> float:
    """Local mean squared error of one picture, 0 (exact) to 1. `step` is half a window unless given.

    A picture smaller than a window is one window. NaN where no window holds a valid pixel with truth ≠ 0.
    """
    rows, columns = min(window, truth.shape[-2]), min(window, truth.shape[-1])
    step = step or max(window // 2, 1)
    keep = valid & torch.isfinite(truth).all(0, keepdim=True)
    p, g = (exact(x).masked_fill(~keep, 0.0) for x in (prediction, truth))
    products = torch.stack([(g * p).sum(0), (p * p).sum(0), (g * g).sum(0)])[:, None]
    gp, pp, gg = F.avg_pool2d(products, (rows, columns), step, divisor_override=1)[:, 0]
    alpha = _best_scale(gp, pp)
    squared = (gg - 2 * alpha * gp + alpha**2 * pp).clamp(min=0)  # rounding may leave -1e-17 for an exact match
    total = gg.sum().item()
    return squared.sum().item() / total if total > 0 else math.nan


def lmse_score(albedo: float, shading: float) -> float:
    """Grosse's score of a decomposition: the mean of both maps' LMSE."""
    return 0.5 * albedo + 0.5 * shading


def _best_scale(gp: Tensor, pp: Tensor) -> Tensor:
    alpha = gp / pp.clamp(min=_LEAST_ENERGY)
    return torch.where(pp <= _LEAST_ENERGY, torch.zeros_like(alpha), alpha)  # `<=` keeps NaN
