"""Losses in picture space, for generators that are trained on what their decoder puts out (I-LoRA, equation 1 and Table 5).

    mse         mean (y − t)²
    l1          mean |y − t|
    cosine+l1   mean (1 − cos(y, t)) + mean |y − t|     the paper's loss for normals

Means run over the valid pixels of each picture, weighted where `valid` holds weights, and over the channels of a difference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError

__all__ = ["picture_loss"]


def picture_loss(raw: Tensor, target: Tensor, valid: Tensor, kind: str) -> Tensor:
    """One float32 loss per picture, (B,); 0 where no pixel is valid.

    raw     (B,3,H,W) as the decoder gives it, nominally in [-1,1]
    target  (B,3,H,W) the map as a picture, scaled to [-1,1]: a normal's picture is then the unit vector itself
    valid   (B,1,H,W) bool, or weights in [0,1]; pixels that are not valid, or weigh 0, do not matter
    kind    an intrinsic's `loss`
    """
    raw, target = raw.float(), torch.where(valid > 0, target.float(), torch.zeros_like(raw, dtype=torch.float32))
    if kind == "mse":
        error = (raw - target).square().mean(1, keepdim=True)
    elif kind in ("l1", "cosine+l1"):
        error = (raw - target).abs().mean(1, keepdim=True)
        if kind == "cosine+l1":
            error = error + 1 - F.cosine_similarity(raw, target, dim=1, eps=1e-6)[:, None]
    else:
        raise ConfigError(f"no picture loss is called {kind!r}; there are mse, l1 and cosine+l1.")
    weight = valid.float()
    return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)
