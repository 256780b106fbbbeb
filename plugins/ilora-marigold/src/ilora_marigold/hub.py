"""What is fetched of a hub repository, and what to do where no place has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ilora_core import hub

__all__ = ["MODEL", "PIPELINE", "find_weights"]

PIPELINE = hub.snapshot(
    "model_index.json",
    "scheduler/*.json",
    "tokenizer/*",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
)
"""Fetches a diffusers pipeline: float32 weights, and no pickles."""
MODEL = hub.snapshot("config.json", "preprocessor_config.json", "model.safetensors")
"""Fetches a transformers model."""


def find_weights(
    weights: str, fetch: hub.Fetch, *, revision: str | None = None, local_only: bool = False
) -> tuple[Path, dict[str, Any]]:
    """A local folder, and its provenance. Raises WeightsError that lists every place that was tried.

    fetch: PIPELINE or MODEL.
    """
    return hub.find_weights(
        weights,
        fetch,
        directions="Download the repository yourself and name its folder with --set labeler.weights=FOLDER.",
        folders_only=True,
        revision=revision,
        local_only=local_only,
    )
