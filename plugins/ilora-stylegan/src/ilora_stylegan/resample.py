"""Twice the resolution through a FIR filter, as in StyleGAN2, with zeros outside the map.

    blur_after_transposed_conv  (N,C,2H+1,2W+1), what a 3x3 transposed convolution of stride 2 leaves -> (N,C,2H,2W)
    upsample2                   (N,C,H,W) -> (N,C,2H,2W)

Both equal zero-stuffing, padding and filtering with gain 4 (Karras et al. 2019, arXiv 1912.04958; Zhang 2019, arXiv
1904.11486). At the border the kernel meets zeros, where bilinear interpolation would repeat the edge.

A transposed convolution and then a depthwise filter is the fastest exact order of the two on a CPU: the filter folded into
the kernel (6x6, stride 2, or four 3x3 phases) needs four times the multiplications, and slices or pooling move more memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError

__all__ = ["blur_after_transposed_conv", "fir", "upsample2"]


def fir(kernel: Sequence[float]) -> tuple[float, ...]:
    """Four taps per axis whose sum is 2: the gain that makes up for the zeros between samples. Raises ConfigError."""
    if len(kernel) != 4 or not sum(kernel):
        raise ConfigError(f"a resampling kernel has four taps with a sum other than 0, not {tuple(kernel)}.")
    return tuple(2 * value / sum(kernel) for value in kernel)


def upsample2(image: Tensor, taps: Sequence[float]) -> Tensor:
    """(N,C,H,W) -> (N,C,2H,2W), with taps from `fir`."""
    channels = image.shape[1]
    return F.conv_transpose2d(image, _depthwise(image, taps), stride=2, padding=1, groups=channels)


def blur_after_transposed_conv(x: Tensor, taps: Sequence[float]) -> Tensor:
    """(N,C,2H+1,2W+1) -> (N,C,2H,2W), with taps from `fir`."""
    # conv2d correlates: the kernel is turned round to filter.
    return F.conv2d(x, _depthwise(x, taps[::-1]), padding=1, groups=x.shape[1])


def _depthwise(x: Tensor, taps: Sequence[float]) -> Tensor:
    """The outer product of the taps for every channel: (C,1,4,4). Filled on the device: nothing waits for a copy."""
    row = torch.cat([x.new_full((1,), tap) for tap in taps])
    return torch.outer(row, row).expand(x.shape[1], 1, 4, 4)
