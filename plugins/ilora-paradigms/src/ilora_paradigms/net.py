"""The network: a U-Net that is told two Retinex answers and corrects their blend.

    in    log(I + 0.01), sRGB picture, two colour-Retinex log shadings: 8 channels
    out   log S = ½ (square root) + ½ (Retinex) + n₀          n₀ … n₃ of the head
          log A = log(I + 0.01) - log S + (n₁, n₂, n₃)

n₁ … n₃ take up gloss, noise and the light's drift in colour while training; labels are made from A = I/S. The picture
enters through 2×2 blocks, so the body works at half the resolution; the head sees full resolution again. U-Net:
Ronneberger et al. 2015 (arXiv 1505.04597); group normalisation: Wu and He 2018 (arXiv 1803.08494).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.intrinsics import linear_to_srgb
from ilora_paradigms.retinex import Edges, log_light, retinex, sqrt_split

__all__ = ["HINTS", "WIDE", "WIDTHS", "ParadigmNet", "tell"]

WIDTHS = (32, 48, 96, 160)
"""Of the network for a CPU: 1.6 M parameters."""
WIDE = (32, 64, 96, 160, 192)
"""Of the network for a GPU: 3.2 M parameters."""
HINTS: tuple[Edges, Edges] = ((0.3, 0.12), (0.6, 0.25))
"""Thresholds of the two Retinex answers: the first calls more steps paint than the second."""
_TOLD = 8
_FINE = 16


def tell(linear: Tensor) -> Tensor:
    """Linear pictures (B,3,H,W) -> what the network is told of them, (B,8,H,W)."""
    hints = [retinex(linear, edges) for edges in HINTS]
    return torch.cat([log_light(linear), linear_to_srgb(linear), *hints], 1)


class ParadigmNet(nn.Module):
    """Linear pictures (B,3,H,W) -> log shading (B,1,H,W) and log albedo (B,3,H,W). Sides: multiples of `span`."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = widths
        self.span = 2 ** len(widths)
        self.stem = nn.Conv2d(4 * _TOLD, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.down_blocks = nn.ModuleList(_Block(w) for w in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.bottom = nn.Sequential(_Block(widths[-1]), _Context(widths[-1]), _Block(widths[-1]))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in reversed(pairs))
        self.up_blocks = nn.ModuleList(_Block(w) for w in reversed(widths[:-1]))
        self.last = nn.Sequential(_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 4 * _FINE, 1))
        self.fine = nn.Conv2d(_FINE + _TOLD, _FINE, 3, padding=1)
        self.head = nn.Conv2d(_FINE, 4, 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, linear: Tensor) -> tuple[Tensor, Tensor]:
        told = tell(linear)
        answer = self._correct(told)
        log_shading = 0.5 * sqrt_split(linear) + 0.5 * told[:, 6:7] + answer[:, :1]
        return log_shading, told[:, :3] - log_shading + answer[:, 1:]

    def _correct(self, told: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(told, 2))
        seen = []
        for block, down in zip(self.down_blocks, self.downs, strict=True):
            x = block(x)
            seen.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            x = block(seen.pop() + F.interpolate(up(x), scale_factor=2.0, mode="bilinear", align_corners=False))
        fine = torch.cat([F.pixel_shuffle(self.last(x), 2), told], 1)
        return self.head(F.silu(self.fine(fine)))


class _Block(nn.Module):
    """x + conv(norm(conv(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class _Context(nn.Module):
    """x + linear(mean of x over the picture): every place hears of the whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x.mean((2, 3), keepdim=True))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, width)
