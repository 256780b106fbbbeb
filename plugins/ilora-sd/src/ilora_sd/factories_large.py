"""How the generators of SDXL and Stable Diffusion 3 are made: from weights, tiny at random, or weightless on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds
from ilora_sd.architectures_large import LARGE, LargeArchitecture, TextPart
from ilora_sd.factories import BlankWords, letters, tiny_components
from ilora_sd.large import StableDiffusion3, StableDiffusionXL
from ilora_sd.loading import Components, check_timestep
from ilora_sd.loading_large import load_large

__all__ = ["sd3", "sd3_skeleton", "sdxl", "sdxl_skeleton", "tiny_sd3", "tiny_sdxl"]


def sdxl(
    *,
    weights: str,
    timestep: int | None = None,
    resolution: int | None = None,
    noisy_target: bool = True,
    output: str = "raw",
    loss: str = "latent",
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusionXL:
    """SDXL from weights; see `load_large`, `OneStep` and `LatentGenerator` for the settings."""
    components = load_large(
        weights,
        LARGE["sdxl"],
        revision=revision,
        variant=variant,
        local_only=local_only,
        random_unet=random_unet,
        seed=seed,
    )
    check_timestep(timestep, components.timesteps)
    return StableDiffusionXL(
        components, timestep=timestep, resolution=resolution, noisy_target=noisy_target, output=output, loss=loss
    )


def sd3(
    *,
    weights: str,
    timestep: int | None = None,
    resolution: int | None = None,
    noisy_target: bool = True,
    output: str = "clean",
    loss: str = "latent",
    added_projections: bool = False,
    t5: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusion3:
    """Stable Diffusion 3 from weights; see `load_large`, `OneStep` and `StableDiffusion3` for the settings.

    timestep  1 … 1000, the last one (noise alone) where it is left out
    t5        load the third text encoder too: 4.8 billion parameters for a prompt of two words
    """
    if timestep is not None and not 1 <= timestep <= 1000:
        raise ConfigError(f"generator.timestep must lie in 1 … 1000, not {timestep}.")
    components = load_large(
        weights,
        LARGE["sd3"],
        t5=t5,
        revision=revision,
        variant=variant,
        local_only=local_only,
        random_unet=random_unet,
        seed=seed,
    )
    return StableDiffusion3(
        components,
        timestep=timestep,
        resolution=resolution,
        noisy_target=noisy_target,
        output=output,
        loss=loss,
        added_projections=added_projections,
    )


def sdxl_skeleton(*, resolution: int | None = None, loss: str = "latent", **_: Any) -> StableDiffusionXL:
    """The full-size SDXL on the meta device: its shapes and counts, without a byte of weights."""
    return StableDiffusionXL(_weightless(LARGE["sdxl"]), resolution=resolution, loss=loss)


def sd3_skeleton(
    *, resolution: int | None = None, added_projections: bool = False, loss: str = "latent", **_: Any
) -> StableDiffusion3:
    """The full-size Stable Diffusion 3 medium on the meta device, without T5."""
    return StableDiffusion3(
        _weightless(LARGE["sd3"]), resolution=resolution, added_projections=added_projections, loss=loss
    )


def tiny_sdxl() -> StableDiffusionXL:
    """Random weights, 64² pictures, CPU, under a second."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    base = tiny_components()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(0, 0x71E))
        network: Any = UNet2DConditionModel  # its annotations know one depth for all blocks
        unet = network(
            sample_size=16,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        )
        second = _tiny_clip(24)
    return StableDiffusionXL(
        Components(
            unet, base.vae, base.text_encoder, base.tokenizer, base.scheduler_config, _TINY, ((second, letters()),)
        )
    )


def tiny_sd3() -> StableDiffusion3:
    """Random weights, 64² pictures, CPU, under a second."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    base: Any = tiny_components()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(0, 0x5D3))
        net = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=40,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=32,
        )
        first, second = _tiny_clip(12), _tiny_clip(20)
    given = {key: value for key, value in base.vae.config.items() if not key.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(1, 0x5D3))
        vae: Any = AutoencoderKL.from_config({**given, "scaling_factor": 1.5305, "shift_factor": 0.0609})
    scheduler = LARGE["sd3"].scheduler
    return StableDiffusion3(Components(net, vae, first, letters(), scheduler, _TINY, ((second, letters()),)))


_TINY: Mapping[str, Any] = {"weights": "tiny, random"}


def _tiny_clip(projection: int) -> nn.Module:
    """A CLIP text encoder of width 16."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=projection,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def _weightless(architecture: LargeArchitecture) -> Components:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from ilora_sd.loading_large import denoiser_class

    with torch.device("meta"):
        net: Any = denoiser_class(architecture).from_config(dict(architecture.denoiser))
        vae: Any = AutoencoderKL.from_config(dict(architecture.vae))
        first, *more = (_encoder(part) for part in architecture.texts)
    further = tuple((encoder, BlankWords()) for encoder in more)
    return Components(net, vae, first, BlankWords(), architecture.scheduler, further=further)


def _encoder(part: TextPart) -> nn.Module:
    import transformers

    return getattr(transformers, part.kind)(transformers.CLIPTextConfig(**part.config))
