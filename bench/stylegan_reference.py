"""StyleGAN2, StyleGAN3 and StyleGAN-XL in the plain formulation of the published code's reference path.

    modulated convolution   one kernel per sample, W s d, in one grouped convolution
    resampling              zeros between the samples, padding, a filter at the full rate, then every down-th sample

It reads the weights of our networks, adapters included, so that both draw the same image and have the same gradients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_stylegan.stylegan2 import StyleGAN2
from ilora_stylegan.stylegan3 import StyleGAN3

__all__ = ["draw"]

SLOPE, GAIN, EPSILON = 0.2, math.sqrt(2.0), 1e-8


def draw(net: StyleGAN2 | StyleGAN3, ws: Tensor) -> Tensor:
    """The raw image (N,3,R,R) of styles (N,num_ws,w_dim)."""
    return _stylegan2(net, ws) if isinstance(net, StyleGAN2) else _stylegan3(net, ws)


def resample(x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, ...], gain: float) -> Tensor:
    """Zero-stuff, pad (left, right, top, bottom) or crop, filter, keep every down-th sample."""
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(n, channels, height * up, width * up), padding)
    kernel = (taps * gain ** (taps.ndim / 2)).flip(tuple(range(taps.ndim))).to(x.dtype)
    if taps.ndim == 1:
        x = F.conv2d(x, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
        x = F.conv2d(x, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    else:
        x = F.conv2d(x, kernel[None, None].repeat(channels, 1, 1, 1), groups=channels)
    return x[:, :, ::down, ::down]


def modulated_conv(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    padding: int,
    demodulate: bool = True,
    gain: Any = 1.0,
    up: bool = False,
) -> Tensor:
    """One kernel per sample, all in a grouped convolution; up: a transposed one of stride 2."""
    n, channels = x.shape[:2]
    w = weight * styles[:, None, :, None, None]
    if demodulate:
        w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + EPSILON)
    w = w * gain
    x = x.reshape(1, n * channels, *x.shape[2:])
    if up:
        w = w.transpose(1, 2).reshape(n * channels, len(weight), *weight.shape[2:])
        y = F.conv_transpose2d(x, w, stride=2, groups=n)
    else:
        y = F.conv2d(x, w.reshape(n * len(weight), channels, *weight.shape[2:]), padding=padding, groups=n)
    return y.reshape(n, len(weight), *y.shape[2:])


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """√2 lrelu, clamped."""
    x = F.leaky_relu(x, SLOPE) * GAIN
    return x if clamp is None else x.clamp(-clamp, clamp)


def _stylegan2(net: Any, ws: Tensor) -> Tensor:
    """Skip architecture, constant noise."""
    row = torch.tensor(net.config.resample_kernel, device=ws.device)
    taps = torch.outer(row, row) / row.sum() ** 2
    x, image, slot = None, None, 0
    for resolution in net.synthesis.resolutions:
        block = net.synthesis.get_submodule(f"b{resolution}")
        for layer in block.layers:
            x = block.const.expand(len(ws), -1, -1, -1) if x is None else x
            x = _stylegan2_layer(layer, x, ws[:, slot], taps)
            slot += 1
        assert x is not None
        fresh = _to_rgb(block.torgb, x, ws[:, slot], block.torgb.clamp)
        image = fresh if image is None else resample(image, taps, up=2, padding=(2, 1, 2, 1), gain=4) + fresh
    assert image is not None
    return image


def _stylegan2_layer(layer: Any, x: Tensor, w: Tensor, taps: Tensor) -> Tensor:
    x = modulated_conv(x, layer.weight, layer.affine(w), padding=1, up=layer.up)
    if layer.up:
        x = resample(x, taps, padding=(1, 1, 1, 1), gain=4)
    x = x + layer.noise_const * layer.noise_strength
    return activate(x + layer.bias[:, None, None], layer.clamp)


def _to_rgb(layer: Any, x: Tensor, w: Tensor, clamp: float | None, gain: Any = 1.0) -> Tensor:
    x = modulated_conv(x, layer.weight, layer.affine(w), padding=0, demodulate=False, gain=gain)
    x = x + layer.bias[:, None, None]
    return x if clamp is None else x.clamp(-clamp, clamp)


def _stylegan3(net: Any, ws: Tensor) -> Tensor:
    x = net.synthesis.input(ws[:, 0])
    for slot, config in enumerate(net.config.layers, start=1):
        layer, w = net.synthesis.get_submodule(config.name), ws[:, slot]
        gain = torch.rsqrt(layer.magnitude_ema)
        if config.is_torgb:
            x = _to_rgb(layer, x, w, config.clamp, gain)
            continue
        x = modulated_conv(x, layer.weight, layer.affine(w), padding=config.kernel - 1, gain=gain)
        x = x + layer.bias[:, None, None]
        x = resample(x, layer.up_filter, up=config.up, padding=config.padding, gain=config.up**2)
        x = resample(activate(x, config.clamp), layer.down_filter, down=config.down, padding=(0, 0, 0, 0), gain=1)
    return x * net.config.output_scale
