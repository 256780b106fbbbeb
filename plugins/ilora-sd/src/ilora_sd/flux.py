"""FLUX.1 as a one-step generator: a flow's transformer that reads packed latents, a guidance strength and T5's prompt.

    map      z − unpack(T(pack(z), σ, prompt, pooled prompt, guidance)) at σ = 1            (output="clean")
    pack     (B,C,2h,2w) -> (B,h·w,4C): a token is 2×2 latent cells, told its place (0, row, column)
    samples  σ_i = e^μ / (e^μ + 1/s_i − 1), s_i = 1 … 1/n, where μ is linear in the number of tokens

Black Forest Labs, 2024. The prompt's tokens are T5's last hidden states, the pooled prompt is CLIP's. FLUX.1 [dev] is
guidance-distilled (Meng et al., arXiv 2210.03142): it takes the strength of guidance as an input. FLUX.1 [schnell] takes none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_sd.joint import FlowTransformer
from ilora_sd.latent import dtype_of
from ilora_sd.loading import Components

__all__ = ["GUIDANCE", "Flux", "check_guidance", "pack", "places", "unpack"]

GUIDANCE = 3.5
"""The strength of guidance that FLUX.1 [dev]'s own pipeline asks for."""
_SIDE = 2  # latent cells per side of a token
_LENGTHS = {True: 512, False: 256}  # of the prompt in T5's tokens: [dev], which takes guidance, and [schnell]


class Flux(FlowTransformer):
    """FLUX.1 [dev] and [schnell], one step.

    guidance  strength of guidance that the network is told; None = 3.5, or none where the network takes none
    """

    pipeline = "FluxPipeline"

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
        guidance: float | None = None,
    ):
        net: Any = components.unet
        vae: Any = components.vae
        takes = bool(net.config.guidance_embeds)
        check_guidance(guidance, takes=takes)
        super().__init__(
            components,
            patch=_SIDE,
            timestep=timestep,
            resolution=resolution or int(vae.config.sample_size),  # the transformer's configuration names no size
            noisy_target=noisy_target,
            output=output,
            loss=loss,
            added_projections=added_projections,
        )
        self.guidance = (GUIDANCE if guidance is None else guidance) if takes else None
        self.length = min(self.more_tokenizers[0].model_max_length, _LENGTHS[takes])

    def _embed(self, text: str) -> dict[str, Tensor]:
        pooled = self.text_encoder(self._tokens(text, self.tokenizer)).pooler_output.float()
        return {"prompt": self._t5(text, 0, self.length), "pooled": pooled}

    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        dtype, batch = dtype_of(self.unet), latent.shape[0]
        rows, columns = (side // _SIDE for side in latent.shape[-2:])
        prompt, strength = conditions["prompt"].to(dtype), None
        if self.guidance is not None:
            strength = torch.full((batch,), float(self.guidance), device=latent.device)
        drawn = self.unet(
            hidden_states=pack(latent.to(dtype)),
            timestep=timesteps.to(dtype) / 1000,  # the network multiplies it again
            guidance=strength,
            encoder_hidden_states=prompt.expand(batch, -1, -1),
            pooled_projections=conditions["pooled"].to(dtype).expand(batch, -1),
            txt_ids=torch.zeros(prompt.shape[1], 3, device=latent.device),
            img_ids=places(rows, columns, latent.device),
        ).sample
        return unpack(drawn, rows, columns)

    def _set_timesteps(self, scheduler: Any, steps: int, latent: Tensor) -> None:
        tokens = latent[0, 0].numel() // _SIDE**2
        sigmas = [1 - i / steps for i in range(steps)]
        scheduler.set_timesteps(sigmas=sigmas, mu=_shift(scheduler.config, tokens), device=self._device)


def check_guidance(guidance: float | None, *, takes: bool) -> None:
    """Raise ConfigError for a strength that means nothing, or that the network has no input for."""
    if guidance is None:
        return
    if not takes:
        raise ConfigError(
            f"generator.guidance is {guidance}, but this network takes none: it is FLUX.1 [schnell] or made from it. "
            "Leave the setting out, or use flux1-dev."
        )
    if not math.isfinite(guidance) or guidance < 0:
        raise ConfigError(f"generator.guidance is a strength of 0 or more, not {guidance}.")


def pack(latent: Tensor) -> Tensor:
    """(B,C,2h,2w) -> (B,h·w,4C), channel by channel within a token."""
    batch, channels, height, width = latent.shape
    cells = latent.reshape(batch, channels, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """(B,h·w,4C) -> (B,C,2h,2w)."""
    cells = tokens.unflatten(1, (rows, columns)).unflatten(3, (-1, _SIDE, _SIDE))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def places(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """(h·w,3): the place (0, row, column) of each picture token. Prompt tokens are all at (0, 0, 0)."""
    table = torch.zeros(rows, columns, 3, device=device)
    table[..., 1] = torch.arange(rows, device=device)[:, None]
    table[..., 2] = torch.arange(columns, device=device)
    return table.flatten(0, 1)


def _shift(config: Mapping[str, Any], tokens: int) -> float:
    """μ: how far a schedule is moved towards noise, more for larger pictures."""
    few, many = config["base_image_seq_len"], config["max_image_seq_len"]
    low, high = config["base_shift"], config["max_shift"]
    return low + (high - low) * (tokens - few) / (many - few)
