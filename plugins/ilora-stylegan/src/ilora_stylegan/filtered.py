"""A leaky ReLU between two low-pass filters: what it adds above the bandwidth is filtered out before it can alias.

    y = D clamp(√2 lrelu(U (s x + b) Uᵀ)) Dᵀ

U upsamples and pads or crops, D downsamples (Karras et al. 2021, arXiv 2106.12423, section 3.2); both are banded matrices
(`ilora_stylegan.banded`). Where the downsampling filter is radially symmetric, a strided depthwise convolution stands for D.
√2 is in U, since the leaky ReLU is homogeneous. The wide map in the middle is never kept: the backward pass makes it again,
which is cheap beside the memory it would take, and on a CPU it is made for a few channels at a time, within the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ilora_core.errors import ConfigError
from ilora_stylegan.banded import Axis, Band
from ilora_stylegan.configs import LayerConfig
from ilora_stylegan.modulated import GAIN, SLOPE, without_autocast

__all__ = ["Resampling", "filtered_lrelu", "plainly"]

_CACHED = 1 << 20  # values of the wide map at a time on a CPU


@dataclass(frozen=True)
class Resampling:
    """A layer's geometry: both axes go the same way. clamp: of the activation, or None."""

    up: Axis
    down: Axis
    radial: bool
    clamp: float | None

    @classmethod
    def of(cls, layer: LayerConfig) -> Resampling:
        """Raises ConfigError for a layer that filters its axes differently or upsamples radially."""
        low, high = layer.padding[:2]
        if layer.padding[2:] != (low, high) or layer.up_radial:
            raise ConfigError(f"layer {layer.name} is padded unevenly or upsamples with a two-dimensional filter.")
        size = layer.in_size + layer.kernel - 1
        up_taps, down_taps = max(layer.up_taps, 1), max(layer.down_taps, 1)
        wide = size * layer.up + low + high - up_taps + 1
        narrow = (wide - down_taps) // layer.down + 1
        if narrow != layer.out_size:
            raise ConfigError(f"layer {layer.name} gives {narrow} samples per side, not {layer.out_size}.")
        return cls(
            up=Axis(size, wide, up_taps, layer.up, low, 1),
            down=Axis(wide, narrow, down_taps, 1, 0, layer.down),
            radial=layer.down_radial,
            clamp=layer.clamp,
        )


def filtered_lrelu(
    x: Tensor, scale: Tensor, bias: Tensor, up: Tensor | None, down: Tensor | None, resampling: Resampling
) -> Tensor:
    """(N,C,H,H) -> (N,C,out,out), in x's precision.

    scale  (N,C) and bias (C,), applied first
    up     (taps,) with the sum 1, or None for no filter; down the same, or (taps,taps) for a radial one
    """
    up = scale.new_ones(1) if up is None else up
    down = scale.new_ones(1) if down is None else down
    bias = bias.expand(x.shape[:2])
    with without_autocast(x):
        return _Filtered.apply(x, scale, bias, up, down, resampling)  # pyright: ignore[reportReturnType]


def plainly(x: Tensor) -> bool:
    """Whether x is a plain tensor on a CPU, for which loops over blocks pay; not fake, not being compiled."""
    return x.device.type == "cpu" and type(x) is Tensor and not torch.compiler.is_compiling()


class _Filters:
    """The linear maps on either side of the activation, on planes (M,H,W)."""

    def __init__(self, like: Tensor, up: Tensor, down: Tensor, resampling: Resampling, *, blocked: bool):
        gain = resampling.up.p * GAIN**0.5  # per axis
        self.up = Band(resampling.up, (up * gain).to(like.dtype), blocked=blocked)
        self.radial = resampling.radial
        self.stride = resampling.down.r
        if self.radial:
            self.kernel = down.flip(0, 1).to(like.dtype)[None, None]
        else:
            self.down = Band(resampling.down, down.to(like.dtype), blocked=blocked)

    def widen(self, x: Tensor) -> Tensor:
        return self.up.rows(self.up.columns(x))

    def widen_back(self, g: Tensor) -> Tensor:
        return self.up.columns(self.up.rows(g, transposed=True), transposed=True)

    def narrow(self, x: Tensor) -> Tensor:
        if self.radial:
            return F.conv2d(x[None], self._depthwise(x), stride=self.stride, groups=len(x))[0]
        return self.down.columns(self.down.rows(x))

    def narrow_back(self, g: Tensor, size: int) -> Tensor:
        if self.radial:
            rest = size - ((g.shape[-1] - 1) * self.stride + self.kernel.shape[-1])
            kernel = self._depthwise(g)
            return F.conv_transpose2d(g[None], kernel, stride=self.stride, output_padding=rest, groups=len(g))[0]
        return self.down.rows(self.down.columns(g, transposed=True), transposed=True)

    def _depthwise(self, x: Tensor) -> Tensor:
        return self.kernel.expand(len(x), -1, -1, -1)


class _Filtered(torch.autograd.Function):
    """filtered_lrelu with a bias of (N,C). Gradients of x, scale and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, up: Tensor, down: Tensor, res: Resampling) -> Tensor:
        ctx.save_for_backward(x, scale, bias, up, down)
        ctx.resampling = res
        blocked = plainly(x)
        filters = _Filters(x, up, down, res, blocked=blocked)
        planes, factors, terms = x.flatten(0, 1), _per_plane(scale), _per_plane(bias)

        def run(part: slice) -> Tensor:
            wide = filters.widen(_scaled(planes[part], factors[part], terms[part]))
            return filters.narrow(_activated(wide, res.clamp))

        if not blocked:
            return run(slice(None)).unflatten(0, x.shape[:2])
        y = x.new_empty(len(planes), res.down.outputs, res.down.outputs)
        for part in _parts(len(planes), res):
            y[part] = run(part)
        return y.unflatten(0, x.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale, bias, up, down = ctx.saved_tensors
        res: Resampling = ctx.resampling
        with without_autocast(x):
            blocked = plainly(x)
            filters = _Filters(x, up, down, res, blocked=blocked)
            planes, factors, terms = x.flatten(0, 1), _per_plane(scale), _per_plane(bias)
            outer = gradients[0].to(x.dtype).flatten(0, 1)

            def run(part: slice) -> tuple[Tensor, Tensor, Tensor]:
                z = planes[part]
                wide = filters.widen(_scaled(z, factors[part], terms[part]))
                g = filters.narrow_back(outer[part], res.down.inputs)
                g = filters.widen_back(_activation_backward(g, wide, res.clamp))
                return g * factors[part].to(g.dtype), _sum(g * z), _sum(g)

            parts = _parts(len(planes), res) if blocked else [slice(None)]
            of_x, of_scale, of_bias = _gathered(run, parts, planes)
        return (
            of_x.unflatten(0, x.shape[:2]),
            of_scale.view_as(scale).to(scale.dtype),
            of_bias.view_as(bias).to(bias.dtype),
            None,
            None,
            None,
        )


def _gathered(
    run: Callable[[slice], tuple[Tensor, Tensor, Tensor]], parts: Sequence[slice], planes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What `run` gives for all planes: the first in one tensor that is written in place, the small ones concatenated."""
    if len(parts) == 1:
        return run(parts[0])
    whole, rest = torch.empty_like(planes, memory_format=torch.contiguous_format), []
    for part in parts:
        first, *others = run(part)
        whole[part] = first
        rest.append(others)
    scales, biases = zip(*rest, strict=True)
    return whole, torch.cat(scales), torch.cat(biases)


def _parts(count: int, resampling: Resampling) -> list[slice]:
    """As many planes at a time as keep the wide map in the cache."""
    step = max(1, _CACHED // resampling.up.outputs**2)
    return [slice(start, start + step) for start in range(0, count, step)]


def _per_plane(values: Tensor) -> Tensor:
    """(N,C) -> (N C,1,1)."""
    return values.reshape(-1, 1, 1)


def _scaled(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return (x * scale + bias).to(x.dtype)


def _activated(x: Tensor, clamp: float | None) -> Tensor:
    x = F.leaky_relu_(x, SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)


def _activation_backward(g: Tensor, x: Tensor, clamp: float | None) -> Tensor:
    if clamp is not None:
        g = torch.ops.aten.hardtanh_backward(g, x, -clamp / SLOPE, clamp)
    return torch.ops.aten.leaky_relu_backward(g, x, SLOPE, False)


def _sum(x: Tensor) -> Tensor:
    return x.sum((1, 2), dtype=torch.promote_types(x.dtype, torch.float32))
