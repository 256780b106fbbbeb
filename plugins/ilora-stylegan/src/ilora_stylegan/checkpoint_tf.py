"""Pickles of NVIDIA's TensorFlow code (stylegan2, stylegan2-ada): a triple (G, D, Gs) of dnnlib networks; Gs is the average.

A convolution's (kh, kw, in, out) becomes (out, in, kh, kw), and is turned by 180° where it upsamples; dense weights are
transposed; a style's bias had 1 added at run time, here it has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilora_stylegan.configs import MappingConfig, StyleGAN2Config
from ilora_stylegan.official import Official
from ilora_stylegan.pickle_nodes import Broken, Dead, StoredArray, describe, is_name

__all__ = ["is_tf", "read_tf"]

_OLDEST, _NEWEST = 4, 5
_DEEPEST = 4
_USUAL = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "mapping_lrmul": 0.01,
    "normalize_latents": True,
    "fused_modconv": None,
}
_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
}
_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}


def is_tf(root: Any) -> bool:
    """A triple whose last part is a network of dnnlib."""
    return isinstance(root, tuple | list) and len(root) == 3 and _is_network(root[2])


def read_tf(root: Any) -> Official:
    """The averaged generator. Raises Broken for StyleGAN1 and for settings that the torch networks do not have."""
    state = root[2].state
    version = state.get("version")
    if version not in range(_OLDEST, _NEWEST + 1):
        raise Broken(
            f"the TensorFlow network has version {describe(version)}; {_OLDEST} and {_NEWEST} (StyleGAN2) are known"
        )
    settings = state.get("static_kwargs") or {}
    if not isinstance(settings, dict):
        raise Broken("the TensorFlow network has no static_kwargs")
    for name, usual in _USUAL.items():
        if usual is not None and settings.get(name, usual) != usual:
            raise Broken(f"the TensorFlow network was made with {name} = {describe(settings[name])}, not {usual!r}")
    variables = _variables(root[2], "", 0, set())
    stored = _renamed(variables)
    config = _config(stored, settings, _architecture(variables, settings))
    made_by = state.get("build_func_name")
    about = {"format": "tensorflow", "class": made_by[:80] if isinstance(made_by, str) else "G"}
    return Official(config, _fitting(stored, config, silent=settings.get("use_noise") is False), about)


def _is_network(node: Any) -> bool:
    return isinstance(node, Dead) and node.name.endswith("tflib.network.Network") and isinstance(node.state, dict)


def _variables(network: Any, prefix: str, depth: int, seen: set[StoredArray | Dead]) -> dict[str, StoredArray | float]:
    if not _is_network(network) or depth > _DEEPEST or network in seen:
        raise Broken(f"part {prefix!r} of the TensorFlow network is no network of its own")
    seen.add(network)
    pairs, parts = network.state.get("variables"), network.state.get("components")
    if not isinstance(pairs, list | tuple) or not isinstance(parts, dict):
        raise Broken(f"part {prefix!r} of the TensorFlow network has no variables or components")
    found = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not is_name(pair[0]):
            raise Broken(f"part {prefix!r} of the TensorFlow network has a variable without a proper name")
        name, value = pair
        if isinstance(value, StoredArray):
            if value in seen:
                raise Broken("two variables share one array")
            seen.add(value)
        elif not isinstance(value, int | float):  # TensorFlow hands out single numbers as scalars
            raise Broken(f"variable {prefix + name!r} of the TensorFlow network is {describe(value)}")
        found[prefix + name] = value
    for name, part in parts.items():
        if not is_name(name):
            raise Broken(f"part {prefix!r} of the TensorFlow network has a part without a proper name")
        found |= _variables(part, f"{prefix}{name}/", depth + 1, seen)
    return found


def _renamed(variables: Mapping[str, StoredArray | float]) -> dict[str, Tensor]:
    """Official torch keys -> tensors; variables that inference does not use are left out."""
    sides = [int(found[1]) for name in variables if (found := re.match(r"synthesis/([0-9]{1,5})x", name))]
    made = {}
    for name, value in variables.items():
        name = re.sub(
            r"synthesis/ToRGB_lod([0-9]{1,2})/",
            lambda found: f"synthesis/{max(sides) >> int(found[1])}x0/ToRGB/",
            name,
        )
        key, turned = _key(name)
        if key:
            made[key] = _tensor(key, value.load() if isinstance(value, StoredArray) else np.asarray(value), turned)
    return made


def _key(name: str) -> tuple[str, bool]:
    """A variable's official torch key, "" for none, and whether its kernel is to be turned."""
    if name == "dlatent_avg":
        return "mapping.w_avg", False
    if found := re.fullmatch(r"mapping/(?:Dense([0-9]{1,2})|LabelEmbed)/(weight|bias)", name):
        return f"mapping.{'embed' if found[1] is None else 'fc' + found[1]}.{found[2]}", False
    if re.fullmatch(r"synthesis/4x4/Const/const", name):
        return "synthesis.b4.const", False
    if found := re.fullmatch(r"synthesis/noise([0-9]{1,2})", name):
        index = int(found[1])
        return f"synthesis.b{4 << (index + 1) // 2}.conv{(index + 1) % 2}.noise_const", False
    if found := re.fullmatch(r"synthesis/([0-9]{1,5})x[0-9]+/(\w+)/(\w+)", name):
        layer, part = _LAYERS.get(found[2]), _PARTS.get(found[3])
        if layer and part:
            turned = found[2] in ("Conv0_up", "Skip") and part == "weight"
            return f"synthesis.b{found[1]}.{layer}.{part}", turned
    if name.startswith("mapping/LabelConcat"):
        raise Broken("its classes are concatenated without an embedding, which no torch network does")
    return "", False


def _tensor(key: str, value: np.ndarray, turned: bool) -> Tensor:
    if key.endswith("affine.bias"):
        value = value + np.float32(1)
    elif key.endswith("const"):
        value = value.reshape(value.shape[-3:] if key.endswith(".const") else value.shape[-2:])
    elif key.endswith("weight") and value.ndim == 4:
        value = (value[::-1, ::-1] if turned else value).transpose(3, 2, 0, 1)
    elif key.endswith("weight") and value.ndim == 2:
        value = value.T
    return torch.from_numpy(np.array(value, np.float32, order="C"))


def _architecture(variables: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if any("ToRGB_lod" in name for name in variables):
        return "orig"
    found = settings.get("architecture", "skip")
    if found not in ("skip", "orig", "resnet"):
        raise Broken(f"its architecture is {describe(found)}")
    return found


def _config(state: Mapping[str, Tensor], settings: Mapping[str, Any], architecture: str) -> StyleGAN2Config:
    levels = 0
    while f"synthesis.b{4 << levels}.conv1.weight" in state:
        levels += 1
    if not levels or "mapping.fc0.weight" not in state or "mapping.w_avg" not in state:
        raise Broken("the TensorFlow network lacks dlatent_avg, mapping/Dense0 or synthesis/4x4/Conv")
    widths = []
    while f"mapping.fc{len(widths)}.weight" in state:
        widths.append(len(state[f"mapping.fc{len(widths)}.weight"]))
    embed = state.get("mapping.embed.weight")
    embed_dim, c_dim = tuple(embed.shape) if embed is not None else (0, 0)
    clamp, kernel = settings.get("conv_clamp"), settings.get("resample_kernel", (1, 3, 3, 1))
    if not isinstance(kernel, list | tuple) or not all(isinstance(tap, int | float) for tap in kernel):
        raise Broken("its resample_kernel is no list of numbers")
    if clamp is not None and not isinstance(clamp, int | float):
        raise Broken("its conv_clamp is no number")
    mapping = MappingConfig(
        z_dim=state["mapping.fc0.weight"].shape[1] - embed_dim,
        c_dim=c_dim,
        w_dim=widths[-1],
        num_ws=2 * levels,
        widths=tuple(widths),
        embed="linear" if c_dim else "none",
        embed_dim=embed_dim,
    )
    last = f"synthesis.b{4 << (levels - 1)}.torgb.weight"
    return StyleGAN2Config(
        resolution=4 << (levels - 1),
        channels=tuple(len(state[f"synthesis.b{4 << level}.conv1.weight"]) for level in range(levels)),
        mapping=mapping,
        img_channels=len(state[last]) if last in state else 3,
        clamp=None if clamp is None else float(clamp),
        architecture=architecture,
        resample_kernel=tuple(float(tap) for tap in kernel),
    )


def _fitting(state: dict[str, Tensor], config: StyleGAN2Config, *, silent: bool) -> dict[str, Tensor]:
    """Without the layers to RGB that a network other than "skip" keeps unused; with noise of strength zero if it has none."""
    last = f"synthesis.b{config.resolution}."
    kept = {
        key: value
        for key, value in state.items()
        if config.architecture == "skip" or ".torgb." not in key or key.startswith(last)
    }
    for key in [key for key in kept if silent and re.search(r"\.conv[01]\.weight$", key)]:
        layer = key.removesuffix("weight")
        if f"{layer}noise_strength" not in kept:
            side = int(key.split(".b")[1].split(".")[0])
            kept |= {f"{layer}noise_strength": torch.zeros(()), f"{layer}noise_const": torch.zeros(side, side)}
    return kept
