"""StyleGAN2 as stylegan2-ada-pytorch and stylegan3 pickle it: blocks b4, b8, … of conv0, conv1, torgb (and skip)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from ilora_stylegan.configs import StyleGAN2Config
from ilora_stylegan.pickle_nodes import Broken, StoredTensor
from ilora_stylegan.record_mapping import check_affine, read_mapping
from ilora_stylegan.record_modules import Module

__all__ = ["kernel_of", "read_stylegan2"]

_MOST_LEVELS = 12


def read_stylegan2(generator: Module, stored: dict[str, StoredTensor | Tensor]) -> StyleGAN2Config:
    """The configuration. A layer without noise gets one of strength zero in `stored`, which is the same."""
    synthesis = generator["synthesis"]
    blocks = _blocks(synthesis)
    for block in blocks:
        for name, layer in _layers(block):
            _check(name, layer)
            _still(block, name, layer, stored)
    return StyleGAN2Config(
        resolution=4 << (len(blocks) - 1),
        channels=tuple(block["conv1"].weight(4)[0] for block in blocks),
        mapping=read_mapping(generator["mapping"], 2 * len(blocks)),
        img_channels=blocks[-1]["torgb"].weight(4)[0],
        clamp=_same("conv_clamp", [layer.number("conv_clamp") for block in blocks for _, layer in _layers(block)]),
        architecture=_same(
            "architecture", [block.expect("architecture", "skip", "orig", "resnet") for block in blocks]
        ),
        resample_kernel=_kernel(stored),
    )


def kernel_of(filters: Tensor) -> tuple[float, ...]:
    """k of a square filter proportional to k kᵀ, its smallest value 1, as in (1, 3, 3, 1). Raises Broken for any other filter."""
    filters = filters.double()
    if filters.ndim != 2 or filters.shape[0] != filters.shape[1] or not 0 < len(filters) <= 64:
        raise Broken(f"a resampling filter has the shape {list(filters.shape)}")
    sums = filters.sum(0)
    # float32 rounding, as of the filter itself
    if not torch.allclose(torch.outer(sums, sums) / sums.sum(), filters, rtol=1e-5, atol=1e-7) or not (sums > 0).all():
        raise Broken("a resampling filter is not the product of one kernel with itself")
    kernel = sums / sums.min()
    whole = kernel.round()
    return tuple((whole if torch.allclose(kernel, whole, rtol=1e-5) else kernel).tolist())


def _blocks(synthesis: Module) -> list[Module]:
    names = [name for name in synthesis.names() if re.fullmatch(r"b[0-9]{1,5}", name)]
    wanted = [f"b{4 << level}" for level in range(len(names))]
    if len(names) > _MOST_LEVELS or sorted(names) != sorted(wanted):
        raise Broken(f"{synthesis.path} has the blocks {', '.join(names[:12])}, not b4, b8, b16 and so on")
    return [synthesis[name] for name in wanted]


def _layers(block: Module) -> Iterator[tuple[str, Module]]:
    return ((name, block[name]) for name in ("conv0", "conv1", "torgb") if name in block)


def _check(name: str, layer: Module) -> None:
    check_affine(layer)
    _, inputs, height, _ = layer.weight(4)
    if name == "torgb":
        gain = layer.number("weight_gain")
        if gain is not None and abs(gain * (inputs * height**2) ** 0.5 - 1) > 1e-5:
            raise Broken(f"{layer.path} has an unusual gain")
        return
    layer.expect("activation", "lrelu")
    wanted = 2 if name == "conv0" else 1
    if layer.attributes.get("up", wanted) != wanted:
        raise Broken(f"{layer.path} does not upsample by {wanted}")


def _still(block: Module, name: str, layer: Module, stored: dict[str, StoredTensor | Tensor]) -> None:
    if name != "torgb" and not layer.expect("use_noise", True, False):
        key = f"synthesis.{block.path.rpartition('.')[2]}.{name}"
        resolution = int(block.path.rpartition(".b")[2])
        stored[f"{key}.noise_strength"] = torch.zeros(())
        stored[f"{key}.noise_const"] = torch.zeros(resolution, resolution)


def _kernel(stored: dict[str, StoredTensor | Tensor]) -> tuple[float, ...]:
    found = [value for key, value in stored.items() if key.endswith("resample_filter")]
    if any(value.shape != found[0].shape or len(value.shape) != 2 or value.shape[0] > 64 for value in found):
        raise Broken("the layers have different resampling filters")
    loaded = [value.load() if isinstance(value, StoredTensor) else value for value in found]
    if not loaded:
        return (1.0, 3.0, 3.0, 1.0)
    if not all(torch.equal(value, loaded[0]) for value in loaded):
        raise Broken("the layers have different resampling filters")
    return kernel_of(loaded[0])


def _same(name: str, values: list):
    if any(value != values[0] for value in values):
        raise Broken(f"the layers differ in {name}: {sorted(map(str, {*values}))[:4]}")
    return values[0]
