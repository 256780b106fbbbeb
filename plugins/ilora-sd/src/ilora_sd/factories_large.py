"""How the generators of SDXL and Stable Diffusion 3 are made: from weights, tiny at random, or weightless on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ilora_core.noise import mix_seeds
from ilora_sd.architectures_large import LARGE, LargeArchitecture, TextPart
from ilora_sd.factories import BlankWords, letters, tiny_components, without_weights
from ilora_sd.large import StableDiffusion3, StableDiffusionXL
from ilora_sd.loading import Components, check_timestep
from ilora_sd.loading_large import load_large
from ilora_sd.tiny_vae import load_tiny_vae, with_tiny_vae

__all__ = ["sd3", "sd3_skeleton", "sdxl", "sdxl_skeleton", "tiny_flow_vae", "tiny_sd3", "tiny_sdxl", "weightless"]


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
    tiny_vae: str = "",
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusionXL:
    """SDXL from weights; see `load_large`, `OneStep` and `LatentGenerator` for the settings.

    tiny_vae  draw maps with a tiny decoder (`ilora_sd.tiny_vae`)
    """
    tiny_decoder = load_tiny_vae(tiny_vae, local_only=local_only)
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
    components = with_tiny_vae(components, tiny_decoder)
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
    tiny_vae: str = "",
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusion3:
    """Stable Diffusion 3 from weights; see `load_large`, `OneStep` and `StableDiffusion3` for the settings.

    timestep  1 … 1000, the last one (noise alone) where it is left out
    t5        load the third text encoder too: 4.8 billion parameters for a prompt of two words
    tiny_vae  draw maps with a tiny decoder (`ilora_sd.tiny_vae`)
    """
    check_timestep(timestep, 1000, flow=True)
    tiny_decoder = load_tiny_vae(tiny_vae, local_only=local_only)
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
    components = with_tiny_vae(components, tiny_decoder)
    return StableDiffusion3(
        components,
        timestep=timestep,
        resolution=resolution,
        noisy_target=noisy_target,
        output=output,
        loss=loss,
        added_projections=added_projections,
    )


def sdxl_skeleton(
    *,
    weights: str = "",
    timestep: int | None = None,
    resolution: int | None = None,
    output: str = "raw",
    loss: str = "latent",
    random_unet: bool = False,
    seed: int = 0,
    **_: Any,
) -> StableDiffusionXL:
    """The full-size SDXL on the meta device: its shapes, counts and settings, without a byte of weights."""
    components = without_weights(weightless(LARGE["sdxl"]), weights, random_unet=random_unet, seed=seed)
    check_timestep(timestep, components.timesteps)
    return StableDiffusionXL(components, timestep=timestep, resolution=resolution, output=output, loss=loss)


def sd3_skeleton(
    *, resolution: int | None = None, added_projections: bool = False, loss: str = "latent", **_: Any
) -> StableDiffusion3:
    """The full-size Stable Diffusion 3 medium on the meta device, without T5."""
    return StableDiffusion3(
        weightless(LARGE["sd3"]), resolution=resolution, added_projections=added_projections, loss=loss
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
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

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
    vae = tiny_flow_vae(scaling_factor=1.5305, shift_factor=0.0609)
    scheduler = LARGE["sd3"].scheduler
    return StableDiffusion3(Components(net, vae, first, letters(), scheduler, _TINY, ((second, letters()),)))


def tiny_flow_vae(*, scaling_factor: float, shift_factor: float) -> nn.Module:
    """The VAE of `tiny_components` without convolutions around the latents, its latents scaled and shifted."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    base: Any = tiny_components().vae
    given = {key: value for key, value in base.config.items() if not key.startswith("_")}
    given |= {"scaling_factor": scaling_factor, "shift_factor": shift_factor}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(1, 0x5D3))
        return AutoencoderKL(**{**given, "use_quant_conv": False, "use_post_quant_conv": False})


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


def weightless(architecture: LargeArchitecture) -> Components:
    """The full-size parts on the meta device."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from ilora_sd.loading_large import denoiser_class

    with torch.device("meta"):
        net: Any = denoiser_class(architecture).from_config(dict(architecture.denoiser))
        vae: Any = AutoencoderKL.from_config(dict(architecture.vae))
        (first, words), *further = [(_encoder(part), BlankWords(part.length)) for part in architecture.texts]
    return Components(net, vae, first, words, architecture.scheduler, further=tuple(further))


def _encoder(part: TextPart) -> nn.Module:
    import transformers

    kind = getattr(transformers, part.kind)
    return kind(kind.config_class(**part.config))
