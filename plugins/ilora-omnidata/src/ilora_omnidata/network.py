"""DPT-hybrid, the network of Omnidata v2, on timm's ResNetV2 and ViT. Parameters have the official checkpoints' names.

    picture  ─ ResNet stage 1 (/4) ─ stage 2 (/8) ─ stage 3 ─ 1x1 conv ─ ViT of 12 blocks (/16)
    taps     l1, l2: the first two stages; l3, l4: tokens after ViT blocks 9 and 12, before the final norm
    tokens   concat each with the class token, Linear, GELU; back to a grid; l4 is halved to /32
    fusion   from l4 up: (x + RCU(skip)) -> RCU -> bilinear x2 -> 1x1 conv,  RCU(x) = x + conv(relu(conv(relu(x))))
    head     3x3 conv, bilinear x2, 3x3 conv, ReLU, 1x1 conv, ReLU

Vision Transformers for Dense Prediction, Ranftl et al. 2021 (arXiv 2103.13413); Omnidata, Eftekhar et al. 2021
(arXiv 2110.04994). Every bilinear step of fusion and head aligns corners; the resized position embedding does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FULL", "STRIDE", "TINY", "DPTHybrid", "Widths"]

STRIDE = 32
"""Sides of a picture are multiples of this: the coarsest map, doubled, must meet the next one."""


@dataclass(frozen=True)
class Widths:
    """Sizes of a DPT-hybrid.

    side      of the square that the position embedding is stored for, in pixels
    layers    blocks of the three ResNet stages;    stages  their channels
    tokens    width of the ViT;                     heads   its attention heads
    deep      channels of l3 and l4
    features  channels of the fusion
    classes   rows of the ViT's unused classifier, which the checkpoints hold
    """

    side: int = 384
    layers: tuple[int, int, int] = (3, 4, 9)
    stages: tuple[int, int, int] = (256, 512, 1024)
    tokens: int = 768
    heads: int = 12
    deep: int = 768
    features: int = 256
    classes: int = 1000


FULL = Widths()
TINY = Widths(64, (1, 1, 1), (128, 256, 512), 48, 3, 48, 32, 7)
_TAPS = (8, 11)


class DPTHybrid(nn.Module):
    """Normalised pictures (B,3,H,W), sides multiples of 32, to raw answers (B,channels,H,W), all >= 0."""

    def __init__(self, channels: int, widths: Widths = FULL) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        self.pretrained = _Encoder(widths)
        self.scratch = _Decoder(channels, widths)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % STRIDE or x.shape[-1] % STRIDE:
            raise ValueError(f"sides are multiples of {STRIDE}, not {tuple(x.shape[-2:])}")
        return self.scratch(self.pretrained(x))


class _Encoder(nn.Module):
    """ResNet and ViT, and what turns tokens into grids."""

    def __init__(self, w: Widths) -> None:
        super().__init__()
        self.model: Any = _vit(w)
        grid, double = nn.Conv2d(w.tokens, w.deep, 1), nn.Conv2d(w.tokens, w.deep, 1)
        halve = nn.Conv2d(w.deep, w.deep, 3, stride=2, padding=1)
        # Two empty places, so that the convolutions keep their numbers in the checkpoints.
        self.act_postprocess3 = nn.Sequential(_Readout(w.tokens), nn.Identity(), nn.Identity(), grid)
        self.act_postprocess4 = nn.Sequential(_Readout(w.tokens), nn.Identity(), nn.Identity(), double, halve)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        embed = self.model.patch_embed
        x = embed.backbone.stem(x)
        stages = []
        for stage in embed.backbone.stages:
            x = stage(x)
            stages.append(x)
        x = embed.proj(x)
        size = (x.shape[-2], x.shape[-1])
        tokens = torch.cat([self.model.cls_token.expand(len(x), -1, -1), x.flatten(2).mT], 1)
        tokens = tokens + _positions(self.model.pos_embed, size)
        tapped = []
        for number, block in enumerate(self.model.blocks):
            tokens = block(tokens)
            if number in _TAPS:
                tapped.append(tokens)
        third, fourth = (
            _to_grid(tokens, size, steps)
            for tokens, steps in zip(tapped, (self.act_postprocess3, self.act_postprocess4), strict=True)
        )
        return stages[0], stages[1], third, fourth


class _Readout(nn.Module):
    """Tokens (B,1+N,C) -> (B,N,C), each with the class token mixed in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        own, shared = tokens[:, 1:], tokens[:, :1]
        return self.project(torch.cat([own, shared.expand_as(own)], -1))


class _Decoder(nn.Module):
    """Four maps, fine to coarse, to the answers."""

    def __init__(self, channels: int, w: Widths) -> None:
        super().__init__()
        inputs = (w.stages[0], w.stages[1], w.deep, w.deep)
        for number, width in enumerate(inputs, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(width, w.features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", _Fusion(w.features))
        self.output_conv = nn.Sequential(
            nn.Conv2d(w.features, w.features // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(w.features // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, channels, 1),
            nn.ReLU(),
        )

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        path: Tensor | None = None
        for number in (4, 3, 2, 1):
            skip = self.get_submodule(f"layer{number}_rn")(maps[number - 1])
            path = self.get_submodule(f"refinenet{number}")(skip, path)
        return self.output_conv(path)


class _Fusion(nn.Module):
    """Joins a skip (B,C,H,W) to the coarser path of that size, if there is one; (B,C,2H,2W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = _Residual(width)  # the coarsest fusion has one in the checkpoints and never uses it
        self.resConfUnit2 = _Residual(width)

    def forward(self, skip: Tensor, path: Tensor | None) -> Tensor:
        joined = skip if path is None else path + self.resConfUnit1(skip)
        doubled = F.interpolate(self.resConfUnit2(joined), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(doubled)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def _vit(w: Widths) -> nn.Module:
    """timm's `vit_base_r50_s16_384` at any width; nothing is downloaded."""
    from timm.layers import StdConv2dSame  # pyright: ignore[reportPrivateImportUsage]
    from timm.models.resnetv2 import ResNetV2
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import HybridEmbed  # pyright: ignore[reportPrivateImportUsage]

    backbone = ResNetV2(
        layers=list(w.layers),
        channels=w.stages,
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
    )
    return VisionTransformer(
        img_size=w.side,
        patch_size=1,
        num_classes=w.classes,
        embed_dim=w.tokens,
        depth=12,
        num_heads=w.heads,
        embed_layer=partial(HybridEmbed, backbone=backbone),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def _positions(stored: Tensor, size: tuple[int, int]) -> Tensor:
    """The position embedding (1,1+N,C) for a grid of another size: bilinear, corners not aligned, no antialias."""
    own, grid = stored[:, :1], stored[:, 1:]
    side = round(grid.shape[1] ** 0.5)
    if size == (side, side):
        return stored
    square = grid.mT.reshape(1, -1, side, side)
    return torch.cat([own, F.interpolate(square, size, mode="bilinear", align_corners=False).flatten(2).mT], 1)


def _to_grid(tokens: Tensor, size: tuple[int, int], steps: nn.Sequential) -> Tensor:
    return steps[1:](steps[0](tokens).mT.unflatten(2, size))
