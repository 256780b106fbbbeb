"""Angular errors of surface normals.

    e = atan2(|p × g|, p · g)   in degrees, on valid pixels with |g| > 0

The arctangent instead of arccos(p · g): in float32 the latter cannot see errors below 0.03°. A prediction without a
direction (p = 0) counts as 90°, as torch's cosine_similarity has it. Mean, median, RMSE and the share of pixels
strictly below 5, 7.5, 11.25, 22.5 and 30°; L1×100 is 100 · mean |p/|p| - g| over pixels and channels (unit vectors).

Pooled over the pixels of all pictures: DSINE (Bae and Davison 2024) and the literature since Eigen and Fergus 2015.
Mean of the pictures' own figures: Marigold's evaluation (Ke et al. 2024). The two differ a lot; name the one you give.
L1×100: I-LoRA (arXiv 2311.17137), Tables 2 and 4, as far as its text tells.
Omnidata's two loss terms, for comparison with its training logs (Eftekhar et al. 2021; its loss is cos + 10 · L1):
L1 = mean |p' - g'| over pixels and channels of pictures in [0,1], p' clipped; cos = - mean of p · g / |p||g|.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ilora_core.metrics.figures import FigureSpec, Measured, exact, select

__all__ = ["PER_IMAGE", "POOLED", "THRESHOLDS_DEG", "angular_error_deg", "measure_normals", "omnidata_terms"]

THRESHOLDS_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)


def _below(threshold: float) -> str:
    return f"below_{threshold:g}".replace(".", "_")


POOLED = (
    FigureSpec("mean_deg", "°", pool="pixels"),
    FigureSpec("median_deg", "°", pool="pixels_median"),
    FigureSpec("rmse_deg", "°", pool="pixels_rms"),
    *(FigureSpec(_below(t), "%", True, pool="pixels") for t in THRESHOLDS_DEG),
    FigureSpec("l1x100", "", pool="pixels"),
)
PER_IMAGE = tuple(FigureSpec(spec.name, spec.unit, spec.higher_is_better) for spec in POOLED)


def angular_error_deg(prediction: Tensor, truth: Tensor, *, dim: int = 1) -> Tensor:
    """Angle between vectors along `dim`, of any length: degrees in [0,180], float64, without that dimension."""
    p, g = exact(prediction), exact(truth)
    angle = torch.atan2(torch.linalg.cross(p, g, dim=dim).norm(dim=dim), (p * g).sum(dim)).rad2deg()
    return torch.where((p == 0).all(dim), torch.full_like(angle, 90.0), angle)


def measure_normals(prediction: Tensor, truth: Tensor, valid: Tensor) -> Measured:
    """Maps (3,H,W), mask (1,H,W) -> the figures of POOLED for one picture. Predictions need not have unit length."""
    p, g = select(prediction, truth, valid & (truth != 0).any(0, keepdim=True))
    if not g.shape[1]:
        return Measured({}, 0)
    e = angular_error_deg(p, g, dim=0)
    figures = {"mean_deg": e.mean(), "median_deg": _median(e), "rmse_deg": (e**2).mean().sqrt()}
    figures |= {_below(t): 100 * (e < t).double().mean() for t in THRESHOLDS_DEG}
    figures["l1x100"] = 100 * (_unit(p) - _unit(g)).abs().mean()
    if torch.isnan(e).any():  # a comparison with NaN is False, which would look like a share of 0
        figures = dict.fromkeys(figures, e.new_tensor(float("nan")))
    return Measured({name: value.item() for name, value in figures.items()}, e.numel(), e)


def omnidata_terms(prediction: Tensor, truth: Tensor, valid: Tensor) -> tuple[float, float]:
    """(L1, cos) of Omnidata's loss, pooled over all pictures: Maps (B,3,H,W), mask (B,1,H,W); NaN where nothing is valid.

    The prediction is what the network said, of any length: it is cut to the range of a picture, not renormalised.
    """
    p, g = exact(prediction).clamp(-1, 1).movedim(1, -1), exact(truth).movedim(1, -1)
    chosen = valid[:, 0] & (g != 0).any(-1)
    p, g = p[chosen], g[chosen]
    return float((p - g).abs().mean() / 2), float(-torch.nn.functional.cosine_similarity(p, g, dim=-1).mean())


def _median(e: Tensor) -> Tensor:
    ordered = e.sort().values
    return (ordered[(e.numel() - 1) // 2] + ordered[e.numel() // 2]) / 2


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=0, keepdim=True).clamp(min=1e-12)
