"""SDXL, Stable Diffusion 3 and FLUX.1 as plain configuration, for what brings none: skeletons.

Values are those of the published diffusers folders stable-diffusion-xl-base-1.0, stable-diffusion-3-medium-diffusers,
FLUX.1-dev and FLUX.1-schnell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilora_sd.architectures import ARCHITECTURES, SCHEDULER

__all__ = ["LARGE", "T5", "LargeArchitecture", "TextPart"]


@dataclass(frozen=True)
class TextPart:
    """A text encoder: its folders in a diffusers model, its class in transformers, its configuration, its prompts' length."""

    folder: str
    tokenizer: str
    kind: str
    config: Mapping[str, Any]
    length: int = 77


@dataclass(frozen=True)
class LargeArchitecture:
    """Configurations of the networks. network, kind: the folder of the denoising one, and its class in diffusers."""

    name: str
    network: str
    kind: str
    denoiser: Mapping[str, Any]
    vae: Mapping[str, Any]
    texts: tuple[TextPart, ...]
    scheduler: Mapping[str, Any]


_CLIP_L = {**ARCHITECTURES["sd1"].text, "projection_dim": 768}
_CLIP_G = {
    **ARCHITECTURES["sd2"].text,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
_SECOND = TextPart("text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", _CLIP_G)
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
T5 = TextPart("text_encoder_3", "tokenizer_3", "T5EncoderModel", _T5_XXL, 512)
"""Stable Diffusion 3's third text encoder, which it can do without."""
_VAE_16 = {
    **ARCHITECTURES["sd1"].vae,
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


def _flux(name: str, *, guidance: bool) -> LargeArchitecture:
    return LargeArchitecture(
        name,
        "transformer",
        "FluxTransformer2DModel",
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": guidance,
        },
        {**_VAE_16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
        (
            TextPart("text_encoder", "tokenizer", "CLIPTextModel", _CLIP_L),
            TextPart("text_encoder_2", "tokenizer_2", "T5EncoderModel", _T5_XXL, 512),
        ),
        {
            **_FLOW,
            "shift": 3.0 if guidance else 1.0,
            "use_dynamic_shifting": guidance,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
    )


LARGE: Mapping[str, LargeArchitecture] = {
    "sdxl": LargeArchitecture(
        "sdxl",
        "unet",
        "UNet2DConditionModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 128,
            "layers_per_block": 2,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        {**ARCHITECTURES["sd1"].vae, "sample_size": 1024, "scaling_factor": 0.13025},
        (TextPart("text_encoder", "tokenizer", "CLIPTextModel", _CLIP_L), _SECOND),
        SCHEDULER,
    ),
    "sd3": LargeArchitecture(
        "sd3",
        "transformer",
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
        {**_VAE_16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
        (TextPart("text_encoder", "tokenizer", "CLIPTextModelWithProjection", _CLIP_L), _SECOND),
        {**_FLOW, "shift": 3.0},
    ),
    "flux1-dev": _flux("flux1-dev", guidance=True),
    "flux1-schnell": _flux("flux1-schnell", guidance=False),
}
