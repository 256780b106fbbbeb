"""SDXL and Stable Diffusion 3 as plain configuration, for what brings none: skeletons.

Values are those of the published diffusers folders stable-diffusion-xl-base-1.0 and stable-diffusion-3-medium-diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilora_sd.architectures import ARCHITECTURES, SCHEDULER

__all__ = ["LARGE", "T5", "LargeArchitecture", "TextPart"]


@dataclass(frozen=True)
class TextPart:
    """A text encoder: its folders in a diffusers model, its class in transformers, its configuration."""

    folder: str
    tokenizer: str
    kind: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class LargeArchitecture:
    """Configurations of the networks. network: the folder of the denoising one."""

    name: str
    network: str
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
T5 = TextPart("text_encoder_3", "tokenizer_3", "T5EncoderModel", {})
"""Stable Diffusion 3's third text encoder, which it can do without."""

LARGE: Mapping[str, LargeArchitecture] = {
    "sdxl": LargeArchitecture(
        "sdxl",
        "unet",
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
        {
            **ARCHITECTURES["sd1"].vae,
            "latent_channels": 16,
            "sample_size": 1024,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        (TextPart("text_encoder", "tokenizer", "CLIPTextModelWithProjection", _CLIP_L), _SECOND),
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
    ),
}
