"""How FLUX.1's generators are made: from weights, tiny at random, or weightless on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds
from ilora_sd.architectures_large import LARGE, LargeArchitecture
from ilora_sd.factories import letters, tiny_components
from ilora_sd.factories_large import tiny_flow_vae, weightless
from ilora_sd.flux import Flux, check_guidance
from ilora_sd.loading import Components, check_timestep
from ilora_sd.loading_large import load_large
from ilora_sd.tiny_vae import load_tiny_vae, with_tiny_vae

__all__ = ["flux", "flux_skeleton", "tiny_flux1", "tiny_flux1_schnell", "tiny_t5"]

_NAMES = ("flux1-dev", "flux1-schnell")


def flux(
    *,
    weights: str,
    architecture: str = "flux1-dev",
    timestep: int | None = None,
    resolution: int | None = None,
    noisy_target: bool = True,
    output: str = "clean",
    loss: str = "latent",
    added_projections: bool = False,
    guidance: float | None = None,
    dtype: str = "float32",
    tiny_vae: str = "",
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> Flux:
    """FLUX.1 from weights; see `load_large`, `OneStep`, `FlowTransformer` and `Flux` for the settings.

    architecture  "flux1-dev", which takes guidance, or "flux1-schnell": what `flux_skeleton` builds
    timestep      1 … 1000, the last one (noise alone) where it is left out
    dtype         "bfloat16", in which the weights are published, halves the memory of loading
    tiny_vae      draw maps with a tiny decoder (`ilora_sd.tiny_vae`)
    """
    check_timestep(timestep, 1000, flow=True)
    shape = _architecture(architecture)
    check_guidance(guidance, takes=shape.denoiser["guidance_embeds"])
    tiny_decoder = load_tiny_vae(tiny_vae, local_only=local_only)
    components = load_large(
        weights,
        shape,
        dtype=dtype,
        revision=revision,
        variant=variant,
        local_only=local_only,
        random_unet=random_unet,
        seed=seed,
    )
    return Flux(
        with_tiny_vae(components, tiny_decoder),
        timestep=timestep,
        resolution=resolution,
        noisy_target=noisy_target,
        output=output,
        loss=loss,
        added_projections=added_projections,
        guidance=guidance,
    )


def flux_skeleton(
    *,
    architecture: str = "flux1-dev",
    resolution: int | None = None,
    added_projections: bool = False,
    guidance: float | None = None,
    loss: str = "latent",
    **_: Any,
) -> Flux:
    """The full-size FLUX.1 on the meta device, T5 included: its shapes and counts, without a byte of weights."""
    parts = weightless(_architecture(architecture))
    return Flux(parts, resolution=resolution, added_projections=added_projections, guidance=guidance, loss=loss)


def tiny_flux1() -> Flux:
    """FLUX.1 [dev] with random weights, 64² pictures, CPU, under a second."""
    return _tiny(guidance=True)


def tiny_flux1_schnell() -> Flux:
    """The same of [schnell], which takes no guidance."""
    return _tiny(guidance=False)


def _tiny(*, guidance: bool) -> Flux:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    base = tiny_components()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(0, 0xF10))
        net = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,  # 4 channels of 2 × 2 cells
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        )
    vae = tiny_flow_vae(scaling_factor=0.3611, shift_factor=0.1159)
    scheduler = LARGE["flux1-dev" if guidance else "flux1-schnell"].scheduler
    provenance = {"weights": "tiny, random"}
    further = ((tiny_t5(24), letters()),)
    return Flux(Components(net, vae, base.text_encoder, letters(), scheduler, provenance, further))


def tiny_t5(width: int) -> nn.Module:
    """A T5 encoder of one layer with random weights, for the words of `letters`."""
    from transformers import T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(0, 0x75))
        config = T5Config(vocab_size=60, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=1)
        return T5EncoderModel(config)


def _architecture(name: str) -> LargeArchitecture:
    if name not in _NAMES:
        raise ConfigError(f"generator.architecture is one of {', '.join(_NAMES)}, not {name!r}.")
    return LARGE[name]
