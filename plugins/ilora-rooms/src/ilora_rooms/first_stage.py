"""The first stage of a rooms VQGAN: its architecture, its loss on pictures, and what its reconstructions are worth."""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from .codebook import nearest
from .sheet import grid, save

__all__ = ["build", "decode", "encode", "picture_codes", "reconstruction_loss", "report", "rows"]


def build(
    *, widths: tuple[int, ...], layers: int, latent: int, code_width: int, codes: int, seed: int, size: int
) -> Any:
    """An untrained VQModel; attention where the resolution is lowest, and in the middle, as in VQGAN."""
    levels = len(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vq: Any = VQModel(
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
            block_out_channels=widths,
            layers_per_block=layers,
            norm_num_groups=8,
            latent_channels=latent,
            sample_size=size,
            num_vq_embeddings=codes,
            vq_embed_dim=code_width,
            lookup_from_codebook=True,
            scaling_factor=1.0,
        )
    for name, parameter in vq.named_parameters():
        if name.endswith((".conv2.weight", ".to_out.0.weight")):
            parameter.data.zero_()  # every residual block starts as the identity: colours are there in half the visits
    return vq


def reconstruction_loss(guess: Tensor, target: Tensor, *, gradient: float = 0.3) -> Tensor:
    """What stands in for a perceptual loss, on pictures (B,3,H,W) in [-1,1].

    mean square + Σ_{1,4,16} mean |pooled difference|, once of all three channels and once of them without their mean,
    + gradient · Σ_{1,2,4} mean |difference of neighbouring pixels|. The pooled terms teach colours, which otherwise come
    last; the gradients keep edges.
    """
    error = guess - target
    total = error.square().mean()
    for part in (error, error - error.mean(1, keepdim=True)):
        total = total + sum(F.avg_pool2d(part, size).abs().mean() for size in (1, 4, 16))
    for size in (1, 2, 4):
        pooled = F.avg_pool2d(error, size)
        total = total + gradient * (pooled.diff(dim=-1).abs().mean() + pooled.diff(dim=-2).abs().mean())
    return total


def encode(vq: Any, pictures: Tensor) -> Tensor:
    """(B,3,H,W) in [-1,1] -> (B,d,h,w), before quantisation."""
    return vq.quant_conv(vq.encoder(pictures))


def decode(vq: Any, z: Tensor) -> Tensor:
    """(B,d,h,w) -> (B,3,H,W), nominally in [-1,1]."""
    return vq.decoder(vq.post_quant_conv(z))


def rows(z: Tensor) -> Tensor:
    """(B,d,h,w) -> (B·h·w, d)."""
    return z.movedim(1, -1).flatten(0, 2)


@torch.no_grad()
def picture_codes(vq: Any, pictures: Tensor) -> Tensor:
    """uint8 pictures (B,3,H,W) -> codes (B, h·w) int16, row by row."""
    codebook, parts = vq.quantize.embedding.weight, []
    for part in pictures.split(100):
        z = encode(vq, part.to(codebook.device).float() / 127.5 - 1)
        parts.append(nearest(rows(z), codebook).view(len(part), -1).to("cpu", torch.int16))
    return torch.cat(parts)


@torch.no_grad()
def report(vq: Any, pictures: Tensor, file: Path | None = None) -> dict[str, float]:
    """Of pictures (B,3,H,W) uint8: reconstructions' PSNR and the codes' use; `file` gets a sheet, each row above its copy."""
    codebook = vq.quantize.embedding.weight
    side = round(picture_codes(vq, pictures[:1]).shape[1] ** 0.5)
    index, truth = picture_codes(vq, pictures).long(), pictures.float() / 255
    z = codebook[index.to(codebook.device)].view(len(pictures), side, side, -1).movedim(-1, 1)
    back = torch.cat([decode(vq, part).cpu() for part in z.split(100)]).div(2).add(0.5).clamp(0, 1)
    counts = index.flatten().bincount(minlength=len(codebook)).float()
    share = counts[counts > 0] / counts.sum()
    if file is not None:
        pairs = [row for i in range(0, min(len(back), 32), 8) for row in (truth[i : i + 8], back[i : i + 8])]
        save(grid(torch.cat(pairs), 8), file)
    figures = {
        "psnr_db": -10 * (back - truth).square().mean((1, 2, 3)).log10().mean(),
        "codes_used": (counts > 0).sum(),
        "code_entropy_bits": -(share * share.log2()).sum(),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}
