"""The keys and shapes that a configuration asks of its weights, and the check that they are all there."""

from __future__ import annotations

import torch
from torch import Tensor

from ilora_stylegan.configs import Config, MappingConfig, StyleGAN2Config, StyleGAN3Config
from ilora_stylegan.pickle_nodes import Broken

__all__ = ["check_shapes", "check_values", "layout"]

Shapes = dict[str, tuple[int, ...]]


def layout(config: Config) -> Shapes:
    """Every key of the network's state and its shape."""
    synthesis = _stylegan2(config) if isinstance(config, StyleGAN2Config) else _stylegan3(config)
    return {**_mapping(config.mapping), **synthesis}


def check_shapes(config: Config, found: Shapes) -> None:
    """Raises Broken that names what is missing, of another shape, or not known."""
    wanted = layout(config)
    missing = [key for key in wanted if key not in found]
    if missing:
        raise Broken(f"{len(missing)} weights are missing, {_some(missing)}")
    extra = [key for key in found if key not in wanted]
    if extra:
        raise Broken(f"{len(extra)} weights have no place in this architecture, {_some(extra)}")
    odd = [f"{key} {list(found[key])} instead of {list(shape)}" for key, shape in wanted.items() if found[key] != shape]
    if odd:
        raise Broken(f"{len(odd)} weights have another shape than the architecture says, {_some(odd)}")


def check_values(state: dict[str, Tensor]) -> None:
    """Raises Broken unless all values are finite."""
    bad = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise Broken(f"{len(bad)} weights are not finite, {_some(bad)}")


def _some(keys: list[str]) -> str:
    return ", ".join(key[:120] for key in keys[:3]) + (", …" if len(keys) > 3 else "")


def _linear(key: str, inputs: int, outputs: int) -> Shapes:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


def _mapping(config: MappingConfig) -> Shapes:
    table = config.embed == "table"
    shapes: Shapes = {"mapping.w_avg": (config.c_dim, config.w_dim) if table and config.c_dim else (config.w_dim,)}
    if table:
        shapes["mapping.embed.weight"] = config.table
    if table and config.c_dim:
        shapes |= _linear("mapping.embed_proj", config.table[1], config.embed_dim)
    elif config.embed == "linear":
        shapes |= _linear("mapping.embed", config.c_dim, config.embed_dim)
    inputs = config.z_dim + (config.embed_dim if config.c_dim else 0)
    for index, width in enumerate(config.widths):
        shapes |= _linear(f"mapping.fc{index}", inputs, width)
        inputs = width
    return shapes


def _stylegan2(config: StyleGAN2Config) -> Shapes:
    shapes: Shapes = {}
    w_dim, inputs = config.mapping.w_dim, 0
    for level, outputs in enumerate(config.channels):
        resolution = 4 << level
        block = f"synthesis.b{resolution}"
        if level == 0:
            shapes[f"{block}.const"] = (outputs, 4, 4)
        else:
            shapes |= _styled(f"{block}.conv0", inputs, outputs, resolution, w_dim)
        shapes |= _styled(f"{block}.conv1", outputs, outputs, resolution, w_dim)
        if config.architecture == "skip" or level == len(config.channels) - 1:
            shapes[f"{block}.torgb.weight"] = (config.img_channels, outputs, 1, 1)
            shapes[f"{block}.torgb.bias"] = (config.img_channels,)
            shapes |= _linear(f"{block}.torgb.affine", w_dim, outputs)
        if config.architecture == "resnet" and level > 0:
            shapes[f"{block}.skip.weight"] = (outputs, inputs, 1, 1)
        inputs = outputs
    return shapes


def _styled(key: str, inputs: int, outputs: int, resolution: int, w_dim: int) -> Shapes:
    return {
        f"{key}.weight": (outputs, inputs, 3, 3),
        f"{key}.bias": (outputs,),
        f"{key}.noise_strength": (),
        f"{key}.noise_const": (resolution, resolution),
        **_linear(f"{key}.affine", w_dim, inputs),
    }


def _stylegan3(config: StyleGAN3Config) -> Shapes:
    w_dim, channels = config.mapping.w_dim, config.input.channels
    shapes: Shapes = {
        "synthesis.input.weight": (channels, channels),
        "synthesis.input.transform": (3, 3),
        "synthesis.input.freqs": (channels, 2),
        "synthesis.input.phases": (channels,),
        **_linear("synthesis.input.affine", w_dim, 4),
    }
    for layer in config.layers:
        key = f"synthesis.{layer.name}"
        shapes[f"{key}.weight"] = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
        shapes[f"{key}.bias"] = (layer.out_channels,)
        shapes[f"{key}.magnitude_ema"] = ()
        for name, taps, radial in (
            ("up_filter", layer.up_taps, layer.up_radial),
            ("down_filter", layer.down_taps, layer.down_radial),
        ):
            if taps:
                shapes[f"{key}.{name}"] = (taps, taps) if radial else (taps,)
        shapes |= _linear(f"{key}.affine", w_dim, layer.in_channels)
    return shapes
