"""Modulated convolutions: each sample scales the input channels of one shared kernel.

    s = A w + b                                     styles, one per input channel
    d = (Σ_ikl (W_oikl s_i)² + ε)^-½                demodulation, = ((Σ_kl W²) s² + ε)^-½
    y = √2 lrelu(d · conv(x · s, W) + noise + b)    (Karras et al. 2019, arXiv 1912.04958, section 2.2)

Scaling inputs and outputs instead of the kernel keeps one kernel for the whole batch: no grouped convolution. √2 goes into
d, noise and b, since the leaky ReLU is homogeneous. Modulation and demodulation stay in float32 under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_stylegan.resample import blur_after_transposed_conv, fir

__all__ = ["GAIN", "SLOPE", "ModulatedLayer", "ToRGB", "linear", "styles_of", "without_autocast", "without_init"]

SLOPE = 0.2
GAIN = math.sqrt(2.0)
EPSILON = 1e-8
M = TypeVar("M", bound=nn.Module)


def without_init(kind: type[M], *sizes: int) -> M:
    """A module whose weights are still to be filled; no random number is drawn for it."""
    made = nn.utils.skip_init(kind, *sizes, device=torch.get_default_device())
    assert isinstance(made, kind)
    return made


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose weights are still to be filled."""
    return without_init(nn.Linear, inputs, outputs)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off on the tensor's device, where there is such a thing."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def styles_of(affine: nn.Module, w: Tensor) -> Tensor:
    """(N,w_dim) -> (N,C) in float32."""
    with without_autocast(w):
        return affine(w.to(affine.weight.dtype)).float()  # pyright: ignore[reportCallIssue, reportArgumentType]


class ModulatedLayer(nn.Module):
    """3x3 modulated convolution, noise, bias, leaky ReLU.

    resolution  of the output
    up          double the resolution first: a transposed convolution, then `kernel` as a low-pass filter
    clamp       of the output, or None
    """

    noise_const: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        *,
        resolution: int,
        up: bool,
        clamp: float | None,
        kernel: Sequence[float],
    ):
        super().__init__()
        self.up, self.clamp, self.resolution = up, clamp, resolution
        self._taps = fir(kernel)
        self.affine = linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.register_buffer("noise_const", torch.empty(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, *, gain: float = 1.0) -> Tensor:
        """(N,C_in,h,h) -> (N,C_out,R,R).

        w      (N,w_dim)
        noise  (R,R) or (N,1,R,R), times the layer's strength; None = no noise
        gain   of the output and the clamp
        """
        styles = styles_of(self.affine, w)
        demodulation = self._demodulation(styles)
        y = (x * styles[:, :, None, None]).to(self.weight.dtype)
        if self.up:
            y = blur_after_transposed_conv(F.conv_transpose2d(y, self.weight.transpose(0, 1), stride=2), self._taps)
        else:
            y = F.conv2d(y, self.weight, padding=1)
        return self._activated(y, demodulation, noise, GAIN * gain, gain)

    def _activated(self, y: Tensor, demodulation: Tensor, noise: Tensor | None, scale: float, gain: float) -> Tensor:
        """Demodulation, bias, noise and leaky ReLU in one buffer; a product rather than addcmul: its gradient is cheaper."""
        z = y * (demodulation * scale)[:, :, None, None]
        z = z.add_((self.bias.float() * scale)[:, None, None])
        if noise is not None:
            z = z.add_(noise.float() * (self.noise_strength.float() * scale))
        z = F.leaky_relu_(z, SLOPE)
        if self.clamp is not None:
            z = z.clamp(-self.clamp * gain, self.clamp * gain)
        return z.to(y.dtype)

    def _demodulation(self, styles: Tensor) -> Tensor:
        """(N,C_in) -> (N,C_out)."""
        with without_autocast(styles):
            # A product with ones: three times as fast on a CPU as a sum over nine neighbours.
            power = self.weight.float().square().flatten(2) @ styles.new_ones(9)
            return torch.rsqrt(styles.square() @ power.t() + EPSILON)


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation: features -> image channels."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, clamp: float | None):
        super().__init__()
        self.clamp = clamp
        self.affine = linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N,C,R,R), (N,w_dim) -> (N,channels,R,R) in float32."""
        styles = styles_of(self.affine, w)
        y = F.conv2d((x * styles[:, :, None, None]).to(self.weight.dtype), self.weight).float()
        y = y + self.bias.float()[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
