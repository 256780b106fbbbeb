"""The two architectures of the family as plain configuration, for what brings none: skeletons and single files.

Values are those of the published diffusers folders of Stable Diffusion 1.5 and 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ARCHITECTURES", "SCHEDULER", "Architecture"]


@dataclass(frozen=True)
class Architecture:
    """Configurations of the three networks, by the names that diffusers and transformers use."""

    name: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]

    @property
    def width(self) -> int:
        """Columns of a prompt's embedding: what tells SD1 (768) from SD2 (1024) in a checkpoint."""
        return int(self.unet["cross_attention_dim"])


SCHEDULER: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}

ARCHITECTURES: Mapping[str, Architecture] = {
    "sd1": Architecture(
        "sd1",
        {**_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
        _VAE,
        {
            **_TEXT,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
        },
    ),
    "sd2": Architecture(
        "sd2",
        {
            **_UNET,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        _VAE,
        {
            **_TEXT,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,  # of OpenCLIP's 24: SD2 reads the last but one
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "pad_token_id": 0,
        },
    ),
}
