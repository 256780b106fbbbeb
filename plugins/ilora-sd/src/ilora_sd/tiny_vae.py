"""A distilled decoder in place of the VAE's where maps are drawn: TAESD (github.com/madebyollin/taesd) through diffusers.

    map's picture   T(z)      z: the latent as the network gives it, scaled; T's own scale is 1

A million parameters instead of fifty: sooner, and less exact in detail. Pictures are encoded, targets prepared and losses taken
with the full VAE all the same.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilora_core import hub
from ilora_core.errors import WeightsError
from ilora_core.hub import snapshot
from ilora_sd.loading import Components, load_part
from ilora_sd.quiet import no_config_warnings, no_progress_bars

__all__ = ["load_tiny_vae", "with_tiny_vae"]

_log = logging.getLogger("ilora")
_MADE_FOR = {"taesd": 0.18215, "taesdxl": 0.13025, "taesd3": 1.5305, "taef1": 0.3611}
"""Published decoder -> the scaling factor of the VAE that it stands for: those of SD and SDXL have equally many channels."""
_WHICH = "taesd is for Stable Diffusion 1.x and 2.x, taesdxl for SDXL, taesd3 for Stable Diffusion 3, taef1 for FLUX.1"


def load_tiny_vae(place: str, *, local_only: bool = False) -> tuple[Any, dict[str, Any]] | None:
    """An AutoencoderTiny, float32, and its provenance; None for "".

    place  a registry name (taesd, taesdxl, taesd3, taef1), a hub id, or a folder with config.json and the weights
    Raises WeightsError for a place that cannot serve, and for files that are missing or damaged.
    """
    if not place:
        return None
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    folder, provenance = hub.find_weights(
        place,
        snapshot("config.json", "diffusion_pytorch_model.safetensors"),
        directions=f"For --set generator.tiny_vae=PLACE: {_WHICH}; or a folder of your own.",
        folders_only=True,
        local_only=local_only,
    )
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} holds no AutoencoderTiny: it has no config.json. {_WHICH}.")
    with no_progress_bars(), no_config_warnings():
        return load_part(AutoencoderTiny, folder, torch_dtype=torch.float32, local_files_only=True), provenance


def with_tiny_vae(components: Components, loaded: tuple[Any, dict[str, Any]] | None) -> Components:
    """The same parts, whose maps the tiny decoder draws. Raises WeightsError where it is another model's."""
    if loaded is None:
        return components
    tiny, provenance = loaded
    vae: Any = components.vae
    place, config, full = provenance["weights"], tiny.config, vae.config
    if config.latent_channels != full.latent_channels:
        raise WeightsError(
            f"{place} decodes latents of {config.latent_channels} channels, but this model's have {full.latent_channels}. "
            f"{_WHICH}."
        )
    factor = config.upsampling_scaling_factor ** (len(config.decoder_block_out_channels) - 1)
    wanted = 2 ** (len(full.block_out_channels) - 1)
    if factor != wanted:
        raise WeightsError(f"{place} draws {factor} pixels per latent cell, but this model's VAE {wanted}. {_WHICH}.")
    meant = _MADE_FOR.get(Path(place).name)
    if meant and abs(meant - full.scaling_factor) > 1e-3:
        raise WeightsError(
            f"{place} is for latents scaled by {meant}, but this model's are by {full.scaling_factor}. {_WHICH}."
        )
    _log.info("maps are decoded by the tiny VAE %s", place)
    return replace(components, tiny_vae=tiny, provenance={**components.provenance, "tiny_vae": provenance})
