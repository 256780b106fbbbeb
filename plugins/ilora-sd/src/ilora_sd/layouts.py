"""An adapter's tensors under the names that diffusers reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["diffusers_layout"]

_CONFIG_KEYS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "lora_bias")


def diffusers_layout(
    state: Mapping[str, Tensor], config: Mapping[str, Any], network: str = "unet"
) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """(tensors, header) of `pytorch_lora_weights.safetensors`: peft's names behind "unet.", its config in the header.

    network  what the pipeline calls the network: "unet" or "transformer"
    The header is what carries an alpha that differs from the rank; without it diffusers takes alpha = rank.
    """
    tensors = {f"{network}.{key}": value for key, value in state.items()}
    adapter = {f"{network}.{key}": config[key] for key in _CONFIG_KEYS if key in config}
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(adapter, sort_keys=True)}
