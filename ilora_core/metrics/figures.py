"""What every family of figures shares: the description of a figure, one picture's figures, the choice of valid pixels.

A figure of one picture is a function of the pixels that count: those where `valid` holds and the truth is finite. A
prediction that is not finite there is not dropped (that would reward it): it turns the figure into NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilora_core.errors import DataError

__all__ = ["POOLS", "FigureSpec", "Measured", "exact", "prepare_maps", "select"]

POOLS = ("mean", "pixels", "pixels_rms", "pixels_median")
"""How figures of pictures become one: their mean, or that figure over all pixels of all pictures taken together
(a mean, a root mean square or a median over pixels)."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure's name in tables, its unit, its direction, and how pictures are combined (one of POOLS)."""

    name: str
    unit: str
    higher_is_better: bool = False
    pool: str = "mean"


@dataclass(frozen=True)
class Measured:
    """One picture: figures by name, the number of pixels behind them, and (normals) the error of each pixel, (N,)."""

    figures: Mapping[str, float]
    pixels: int
    errors_deg: Tensor | None = field(default=None, repr=False)


def exact(x: Tensor) -> Tensor:
    """float64 without a gradient, on the same device, or on the CPU where the device has no float64."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def prepare_maps(prediction: Tensor, truth: Tensor, valid: Tensor, *, batched: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The three, checked, maps in float64. Raises DataError unless both maps are (B,)C,H,W of one shape and the mask is
    bool (B,)1,H,W over the same pixels."""
    dims, layout = (4, "(B,C,H,W)") if batched else (3, "(C,H,W)")
    if prediction.ndim != dims or prediction.shape != truth.shape:
        raise DataError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} must be maps {layout} of one shape; "
            "resize the prediction to the truth first."
        )
    wanted = (*truth.shape[:-3], 1, *truth.shape[-2:])
    if tuple(valid.shape) != wanted or valid.dtype != torch.bool:
        raise DataError(f"the mask must be bool {wanted}, not {valid.dtype} {tuple(valid.shape)}.")
    truth = exact(truth)
    return exact(prediction).to(truth.device), truth, valid.to(truth.device)


def select(prediction: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (C,H,W) and mask (1,H,W) -> the pixels that count, both (C,N), float64."""
    counted = (valid & torch.isfinite(truth).all(0, keepdim=True))[0]
    return exact(prediction[:, counted]), exact(truth[:, counted])
