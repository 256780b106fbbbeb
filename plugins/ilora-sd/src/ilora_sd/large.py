"""SDXL and Stable Diffusion 3 as one-step generators: the single step's recipe on larger networks.

    SDXL   U(z, 999, prompt, pooled prompt, sizes) is the map's latent            (epsilon; output="raw")
    SD3    z − T(z, 1000, prompt, pooled prompt) is: a flow's v at σ = 1           (output="clean")

Podell et al., arXiv 2307.01952; Esser et al., arXiv 2403.03206. A prompt's tokens are the second-to-last hidden states of both
CLIP encoders side by side, its pooled embedding their projections. SD3 pads them with zeros to T5's width and puts T5's tokens
behind them, or zeros where T5 is left out, as its own pipeline does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.protocols import Codes
from ilora_sd.joint import FlowTransformer
from ilora_sd.latent import dtype_of
from ilora_sd.loading import Components
from ilora_sd.model import OneStep, OneStepUNet

__all__ = ["StableDiffusion3", "StableDiffusionXL"]

_T5_LENGTH = 256


class StableDiffusionXL(OneStepUNet):
    """SDXL and SDXL-Turbo, one step. Conditions: "prompt" (1,L,D) and "pooled" (1,P)."""

    pipeline = "StableDiffusionXLPipeline"

    def _embed(self, text: str) -> dict[str, Tensor]:
        tokens, pooled = _clip_pair(self, text)
        if not text:  # what it was trained with where a picture had no caption
            tokens, pooled = [torch.zeros_like(part) for part in tokens], torch.zeros_like(pooled)
        return {"prompt": torch.cat(tokens, -1), "pooled": pooled}

    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        dtype, batch = dtype_of(self.unet), latent.shape[0]
        height, width = (self.factor * side for side in latent.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=latent.device)
        added = {
            "text_embeds": conditions["pooled"].to(dtype).expand(batch, -1),
            "time_ids": sizes.expand(batch, -1),  # original size, upper left corner, size
        }
        prompt = conditions["prompt"].to(dtype).expand(batch, -1, -1)
        return self.unet(latent.to(dtype), timesteps, prompt, added_cond_kwargs=added).sample

    def _decoded(self, latent: Tensor) -> Tensor:
        # Its decoder overflows half precision.
        with torch.autocast(self._device.type if self._device.type != "meta" else "cpu", enabled=False):
            return super()._decoded(latent)


class StableDiffusion3(FlowTransformer):
    """Stable Diffusion 3, one step."""

    pipeline = "StableDiffusion3Pipeline"

    def __init__(
        self,
        components: Components,
        *,
        timestep: int | None = None,
        resolution: int | None = None,
        noisy_target: bool = True,
        output: str = "clean",
        loss: str = "latent",
        added_projections: bool = False,
    ):
        net: Any = components.unet
        super().__init__(
            components,
            patch=int(net.config.patch_size),
            timestep=timestep,
            resolution=resolution,
            noisy_target=noisy_target,
            output=output,
            loss=loss,
            added_projections=added_projections,
        )

    def encode(self, pictures: Tensor) -> Codes:
        """As every latent model's. Raises DataError beyond the network's table of places."""
        most = int(self.unet.config.pos_embed_max_size) * self.stride
        if max(pictures.shape[-2:]) > most:
            height, width = pictures.shape[-2:]
            raise DataError(
                f"a picture of {width}×{height} is larger than this network knows places for ({most} pixels a side). "
                "Use --process native or tile."
            )
        return super().encode(pictures)

    def _embed(self, text: str) -> dict[str, Tensor]:
        clips, pooled = _clip_pair(self, text)
        width = int(self.unet.config.joint_attention_dim)
        tokens = torch.cat(clips, -1)
        tokens = F.pad(tokens, (0, width - tokens.shape[-1]))
        with_t5 = len(self.more_text_encoders) > 1
        words = self._t5(text, 1, _T5_LENGTH) if with_t5 else tokens.new_zeros(1, _T5_LENGTH, width)
        return {"prompt": torch.cat([tokens, words], 1), "pooled": pooled}

    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        dtype, batch = dtype_of(self.unet), latent.shape[0]
        return self.unet(
            hidden_states=latent.to(dtype),
            timestep=timesteps,
            encoder_hidden_states=conditions["prompt"].to(dtype).expand(batch, -1, -1),
            pooled_projections=conditions["pooled"].to(dtype).expand(batch, -1),
        ).sample


def _clip_pair(model: OneStep, text: str) -> tuple[list[Tensor], Tensor]:
    """(second-to-last hidden states of the two CLIPs, each (1,L,D); their projections side by side (1,P)).

    An encoder without a projection (SDXL's first) gives tokens alone.
    """
    pairs = ((model.text_encoder, model.tokenizer), (model.more_text_encoders[0], model.more_tokenizers[0]))
    tokens, pooled = [], []
    for encoder, tokenizer in pairs:
        answer = encoder(model._tokens(text, tokenizer), output_hidden_states=True)
        tokens.append(answer.hidden_states[-2].float())
        if hasattr(answer, "text_embeds"):
            pooled.append(answer.text_embeds.float())
    return tokens, torch.cat(pooled, -1)
