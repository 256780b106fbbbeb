"""Losses on what the VAE's decoder makes of a latent, with the decoder in the graph.

    normals   mean ∠(y, t), in radians
    depth     mean (ŷ − t̂)², where x̂ = (x − mean x) / std x: nothing depends on scale (if positive) and shift
    others    the intrinsic's own loss in picture space (`ilora_core.losses`)

plus, for the first two, mean relu(|y| − 1)²: their value is free of the range, but a picture can only hold [-1, 1].
All means are over the pixels of one picture, by weight. The task losses are those of Garcia et al. (arXiv 2409.11355), with
moments in place of their least squares for depth: a fit would reward depth that is upside down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.intrinsics import Intrinsic
from ilora_core.losses import picture_loss

__all__ = ["decoded_loss"]


def decoded_loss(raw: Tensor, target: Tensor, weight: Tensor, intrinsic: Intrinsic) -> Tensor:
    """One float32 loss per picture, (B,); 0 where no pixel counts.

    raw     (B,3,H,W) as the decoder gives it, nominally in [-1,1]
    target  (B,3,H,W) the map as a picture in [0,1]
    weight  (B,1,H,W) bool, or weights in [0,1]; what is not valid, or weighs 0, does not matter
    """
    raw, wanted, weight = raw.float(), target.float() * 2 - 1, weight.float()
    wanted = torch.where(weight > 0, wanted, torch.zeros_like(wanted))
    if intrinsic.encoding == "unit_vector":
        error = _angle(raw, wanted)
    elif intrinsic.encoding == "relative_depth":
        near, goal = (_standardised(x.mean(1, keepdim=True), weight) for x in (raw, wanted))
        error = (near - goal).square()
    else:
        return picture_loss(raw, wanted, weight, intrinsic.loss)
    outside = F.relu(raw.abs() - 1).square().mean(1, keepdim=True)
    return _mean(error + outside, weight)[:, 0, 0, 0]


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """(B,1,H,W) radians between vectors of any length. By atan2: arccos has no slope limit where the two agree."""
    a, b = F.normalize(a, dim=1, eps=1e-6), F.normalize(b, dim=1, eps=1e-6)
    across = torch.linalg.cross(a, b, dim=1).square().sum(1, keepdim=True)
    return torch.atan2((across + 1e-12).sqrt(), (a * b).sum(1, keepdim=True))


def _standardised(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - _mean(x, weight)
    return centred / (_mean(centred.square(), weight) + 1e-6).sqrt()


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """(B,1,1,1): weighted mean over the pixels, 0 where nothing weighs."""
    return (x * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)
