"""StyleGAN2 of rosinality/stylegan2-pytorch: torch.save of a dict with g_ema, the averaged generator's state.

Its convolutions are scaled by 1/sqrt(fan-in) before demodulation, where NVIDIA's are not: the scale is folded in here, so that
demodulation's epsilon weighs as much as it does there. Files trained with that code hold no mean w; then `mapping.w_avg` is
zero and `about["needs_w_avg"]` is true: take the mean over 10,000 mapped z.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ilora_stylegan.checkpoint_nvidia2 import kernel_of
from ilora_stylegan.configs import MappingConfig, StyleGAN2Config
from ilora_stylegan.official import Official
from ilora_stylegan.pickle_nodes import Broken, StoredTensor, describe

__all__ = ["is_rosinality", "read_rosinality"]

_PARTS = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}
_REDUNDANT = re.compile(r".*\.(blur|upsample)\.kernel")
_LARGEST_FILTER = 64


def is_rosinality(root: Any) -> bool:
    """A dict whose g_ema has that code's names."""
    state = root.get("g_ema") if isinstance(root, dict) else None
    return isinstance(state, dict) and "input.input" in state and "conv1.conv.weight" in state


def read_rosinality(root: Mapping[str, Any]) -> Official:
    """The network under "g_ema". Raises Broken when a name or shape is not that code's."""
    stored: dict[str, StoredTensor | Tensor] = {}
    kernels: dict[str, StoredTensor] = {}
    for name, value in root["g_ema"].items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise Broken(f"g_ema has at {describe(name)} no tensor, but {describe(value)}")
        if _REDUNDANT.fullmatch(name):
            kernels[name] = value
        else:
            stored[_key(name)] = _shaped(_key(name), value)
    mean = root.get("latent_avg")
    about: dict[str, Any] = {"format": "rosinality", "class": "Generator"}
    config = _config(stored, _kernel(kernels))
    if isinstance(mean, StoredTensor):
        stored["mapping.w_avg"] = mean
    else:
        stored["mapping.w_avg"] = torch.zeros(config.mapping.w_dim)
        about["needs_w_avg"] = True
    return Official(config, stored, about, gains=_gains(stored))


def _key(name: str) -> str:
    """The official key of one of its names."""
    if found := re.fullmatch(r"style\.([0-9]{1,2})\.(weight|bias)", name):
        return f"mapping.fc{int(found[1]) - 1}.{found[2]}"
    if name == "input.input":
        return "synthesis.b4.const"
    if found := re.fullmatch(r"noises\.noise_([0-9]{1,2})", name):
        index = int(found[1])
        return f"synthesis.b{4 << (index + 1) // 2}.conv{(index + 1) % 2}.noise_const"
    found = re.fullmatch(r"(conv1|to_rgb1|(?:convs|to_rgbs)\.[0-9]{1,2})\.(.+)", name)
    if found and found[2] in _PARTS:
        return f"synthesis.{_layer(found[1])}.{_PARTS[found[2]]}"
    raise Broken(f"g_ema has a weight called {describe(name)}, which this architecture does not know")


def _layer(name: str) -> str:
    kind, _, digits = name.partition(".")
    index = int(digits or 0)
    if kind in ("conv1", "to_rgb1"):
        return "b4.conv1" if kind == "conv1" else "b4.torgb"
    return f"b{8 << index // 2}.conv{index % 2}" if kind == "convs" else f"b{8 << index}.torgb"


def _shaped(key: str, value: StoredTensor) -> StoredTensor:
    """Without the axes of length 1 that its layout adds."""
    part = key.rpartition(".")[2]
    if part == "weight" and re.search(r"\.(conv[01]|torgb)\.weight$", key):
        return value.without(0)
    if part == "bias" and len(value.shape) == 4:
        return value.without(0, 2, 3)
    return value.without(*{"const": (0,), "noise_const": (0, 1), "noise_strength": (0,)}.get(part, ()))


def _gains(stored: Mapping[str, StoredTensor | Tensor]) -> dict[str, float]:
    """1/sqrt(fan-in) of the convolutions that demodulate. Those to RGB have it in `folding`, as NVIDIA's."""
    weights = {key: value for key, value in stored.items() if re.search(r"\.conv[01]\.weight$", key)}
    return {key: math.prod(value.shape[1:]) ** -0.5 for key, value in weights.items() if 0 not in value.shape}


def _config(state: Mapping[str, Any], kernel: tuple[float, ...]) -> StyleGAN2Config:
    levels = layers = 0
    while f"synthesis.b{4 << levels}.conv1.weight" in state:
        levels += 1
    while f"mapping.fc{layers}.weight" in state:
        layers += 1
    if not levels or not layers or f"synthesis.b{4 << (levels - 1)}.torgb.weight" not in state:
        raise Broken("g_ema lacks style.1, conv1 or the last of to_rgbs")
    widths = tuple(int(state[f"mapping.fc{index}.weight"].shape[0]) for index in range(layers))
    return StyleGAN2Config(
        resolution=4 << (levels - 1),
        channels=tuple(int(state[f"synthesis.b{4 << level}.conv1.weight"].shape[0]) for level in range(levels)),
        mapping=MappingConfig(
            z_dim=int(state["mapping.fc0.weight"].shape[1]),
            c_dim=0,
            w_dim=widths[-1],
            num_ws=2 * levels,
            widths=widths,
        ),
        img_channels=int(state[f"synthesis.b{4 << (levels - 1)}.torgb.weight"].shape[0]),
        resample_kernel=kernel,
    )


def _kernel(kernels: Mapping[str, StoredTensor]) -> tuple[float, ...]:
    """Of the blurs after upsampling convolutions; the pictures' own must agree. Its gain of 4 does not matter."""
    found = {
        kernel_of(value.load())
        for value in kernels.values()
        if len(value.shape) == 2 and max(value.shape) <= _LARGEST_FILTER
    }
    if len(found) > 1:
        raise Broken("the layers have different resampling filters")
    return found.pop() if found else (1.0, 3.0, 3.0, 1.0)
