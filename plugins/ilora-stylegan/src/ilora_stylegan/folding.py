"""Official weights -> ours: constant gains are multiplied into the weights, so that every affine layer is a plain linear layer.

    y = x (W g)ᵀ + b g_b     fully connected, g = lr_multiplier / sqrt(fan-in), g_b = lr_multiplier (mapping: 0.01, elsewhere 1)
    W / sqrt(C_in k²)        ToRGB, whose styles carry that gain in the official code, and the "resnet" architecture's shortcuts
    W / rms(W)               StyleGAN3's convolutions, per output channel; W / sqrt(C) its input's channel mix

(Karras et al. 2018, section 4.1, for the equalised learning rate; Karras et al. 2021, appendix, for the pre-normalisation.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["fold_stylegan2", "fold_stylegan3"]

MAPPING_LR = 0.01


def fold_stylegan2(state: Mapping[str, Tensor], *, mapping_lr: float = MAPPING_LR) -> dict[str, Tensor]:
    """Official StyleGAN2 keys -> ours; `resample_filter` buffers are dropped."""
    folded = _linear(state, mapping_lr)
    for key in [key for key in folded if key.endswith("resample_filter")]:
        del folded[key]
    for key in [key for key in folded if key.endswith((".torgb.weight", ".skip.weight"))]:
        folded[key] = folded[key] / folded[key][0].numel() ** 0.5
    return folded


def fold_stylegan3(state: Mapping[str, Tensor], *, mapping_lr: float = MAPPING_LR) -> dict[str, Tensor]:
    """Official StyleGAN3 or StyleGAN-XL keys -> ours."""
    folded = _linear(state, mapping_lr)
    convolutions = [key for key, value in folded.items() if key.endswith(".weight") and value.ndim == 4]
    torgb = max(convolutions, key=lambda key: int(re.findall(r"\.L(\d+)_", key)[0]))
    for key in convolutions:
        weight = folded[key]
        if key == torgb:
            folded[key] = weight / weight[0].numel() ** 0.5
        else:
            folded[key] = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
    folded["synthesis.input.weight"] = (
        folded["synthesis.input.weight"] / folded["synthesis.input.weight"].shape[1] ** 0.5
    )
    return folded


def _linear(state: Mapping[str, Tensor], mapping_lr: float) -> dict[str, Tensor]:
    """The fully connected layers with their gains. StyleGAN-XL's table of classes has no bias and no gain."""
    folded = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        lr = mapping_lr if re.fullmatch(r"mapping\.fc\d+", layer) else 1.0
        connected = layer.startswith("mapping.") or layer.endswith(".affine")
        if connected and f"{layer}.bias" in state and part in ("weight", "bias"):
            value = value * (lr / value.shape[1] ** 0.5 if part == "weight" else lr)
        folded[key] = value
    return folded
