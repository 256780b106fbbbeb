"""A VQModel in two halves: what turns codes into a picture, which carries the adapter, and what turns a picture into codes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ilora_core.noise import mix_seeds

__all__ = ["CodeDecoder", "CodeEncoder", "nearest", "randomised"]


class CodeDecoder(nn.Module):
    """codes (B,h,w) -> (B,3,H,W), nominally in [-1,1]: codebook, 1×1 convolution, decoder."""

    def __init__(self, first_stage: Any):
        super().__init__()
        self.codebook = first_stage.quantize.embedding
        self.post_quant_conv = first_stage.post_quant_conv
        self.decoder = first_stage.decoder
        self.spatial = first_stage.config.norm_type == "spatial"  # MoVQ: the normalisations see the codes, too

    def forward(self, codes: Tensor) -> Tensor:
        quantised = self.codebook(codes.long()).movedim(-1, 1)
        latent = self.post_quant_conv(quantised)
        return self.decoder(latent, quantised) if self.spatial else self.decoder(latent)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the decoder's blocks in the backward pass."""
        self.decoder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.decoder.gradient_checkpointing = True


class CodeEncoder(nn.Module):
    """Pictures (B,3,H,W) in [-1,1] -> vectors (B,d,h,w), before they are replaced by the nearest of the codebook."""

    def __init__(self, first_stage: Any):
        super().__init__()
        self.encoder = first_stage.encoder
        self.quant_conv = first_stage.quant_conv

    def forward(self, pictures: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pictures))


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(B,d,h,w), (K,d) -> the index of the nearest vector of the codebook, (B,h,w) int64. In float32."""
    rows = vectors.float().movedim(1, -1)
    flat, codebook = rows.flatten(0, 2), codebook.float()
    distance = codebook.square().sum(1) - 2 * flat @ codebook.T  # and the square of the row, the same for all codes
    return distance.argmin(1).view(rows.shape[:3])


def randomised(first_stage: Any, seed: int) -> Any:
    """A VQModel of the same architecture with weights drawn anew: the decoder that never saw a picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(seed, 0x5EED))
        return type(first_stage).from_config(first_stage.config)
