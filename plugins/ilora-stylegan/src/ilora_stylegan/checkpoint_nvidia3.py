"""StyleGAN3 and StyleGAN-XL as their authors pickle them: `synthesis.layer_names` is the order of execution."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ilora_stylegan.configs import InputConfig, LayerConfig, StyleGAN3Config
from ilora_stylegan.pickle_nodes import Broken, StoredTensor
from ilora_stylegan.record_mapping import check_affine, read_mapping
from ilora_stylegan.record_modules import Module

__all__ = ["read_stylegan3"]

_MOST_LAYERS = 200


def read_stylegan3(generator: Module, stored: Mapping[str, StoredTensor | Tensor]) -> StyleGAN3Config:
    """The configuration, from the layers' own attributes and the shapes of their filters."""
    synthesis = generator["synthesis"]
    names = synthesis.attributes["layer_names"]
    if not 0 < len(names) <= _MOST_LAYERS or not all(isinstance(name, str) for name in names):
        raise Broken(f"{synthesis.path}.layer_names is no list of names")
    layers = tuple(_layer(synthesis[name], name) for name in names)
    if [layer.is_torgb for layer in layers] != [False] * (len(layers) - 1) + [True]:
        raise Broken(f"{synthesis.path} does not end in its only layer to RGB")
    scale = synthesis.number("output_scale")
    return StyleGAN3Config(
        resolution=layers[-1].out_size,
        input=_input(synthesis["input"]),
        layers=layers,
        mapping=read_mapping(generator["mapping"], len(layers) + 1),
        output_scale=0.25 if scale is None else scale,
    )


def _input(module: Module) -> InputConfig:
    check_affine(module)
    rate, bandwidth = module.number("sampling_rate"), module.number("bandwidth")
    if not rate or bandwidth is None:
        raise Broken(f"{module.path} has no sampling rate or bandwidth")
    return InputConfig(module.weight(2)[0], _side(module, "size"), rate, bandwidth)


def _layer(module: Module, name: str) -> LayerConfig:
    check_affine(module)
    outputs, inputs, kernel, _ = module.weight(4)
    up, down = module.shape("up_filter"), module.shape("down_filter")
    left, right, top, bottom = _whole(module, "padding", 4)
    return LayerConfig(
        name=name,
        in_channels=inputs,
        out_channels=outputs,
        in_size=_side(module, "in_size"),
        out_size=_side(module, "out_size"),
        kernel=kernel,
        up=module.count("up_factor"),
        down=module.count("down_factor"),
        padding=(left, right, top, bottom),
        up_taps=up[0] if up else 0,
        down_taps=down[0] if down else 0,
        up_radial=len(up) == 2,
        down_radial=len(down) == 2,
        is_torgb=module.expect("is_torgb", False, True),
        clamp=module.number("conv_clamp"),
    )


def _whole(module: Module, name: str, count: int) -> list[int]:
    values = module.numbers(name)
    if len(values) != count or not all(value == int(value) and abs(value) < 2**20 for value in values):
        raise Broken(f"{module.path}.{name} is not {count} whole numbers")
    return [int(value) for value in values]


def _side(module: Module, name: str) -> int:
    """Of a square map: [n, n], or n."""
    if isinstance(module.attributes.get(name), int):
        return module.count(name)
    width, height = _whole(module, name, 2)
    if width != height or width < 1:
        raise Broken(f"{module.path} draws maps of {width}×{height}; only square ones are known")
    return width
