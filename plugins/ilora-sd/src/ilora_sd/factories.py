"""How the cards' generators are made: from weights, tiny at random, or weightless on the meta device."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds
from ilora_sd.architectures import ARCHITECTURES, SCHEDULER
from ilora_sd.augmented import Augmented
from ilora_sd.loading import Components, check_timestep, load_components, randomise
from ilora_sd.model import StableDiffusion
from ilora_sd.sampler import Sampling
from ilora_sd.tiny_vae import load_tiny_vae, with_tiny_vae
from ilora_sd.widening import read_picture_channels, widen

__all__ = [
    "BlankWords",
    "augmented",
    "augmented_skeleton",
    "letters",
    "skeleton",
    "stable_diffusion",
    "tiny",
    "tiny_augmented",
    "tiny_blind",
    "tiny_components",
    "without_weights",
]


def stable_diffusion(
    *,
    weights: str,
    architecture: str = "sd1",
    timestep: int | None = None,
    resolution: int | None = None,
    noisy_target: bool = True,
    output: str = "raw",
    loss: str = "latent",
    revision: str | None = None,
    variant: str | None = None,
    tokenizer: str | None = None,
    tiny_vae: str = "",
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusion:
    """A one-step generator from weights; see `load_components`, `OneStep` and `LatentGenerator` for the settings.

    architecture  what `skeleton` builds ("sd1", "sd2"); weights bring their own configuration
    tiny_vae      draw maps with a tiny decoder (`ilora_sd.tiny_vae`)
    """
    tiny_decoder = load_tiny_vae(tiny_vae, local_only=local_only)
    components = load_components(
        weights,
        revision=revision,
        variant=variant,
        tokenizer=tokenizer,
        local_only=local_only,
        random_unet=random_unet,
        seed=seed,
    )
    check_timestep(timestep, components.timesteps)
    components = with_tiny_vae(components, tiny_decoder)
    return StableDiffusion(
        components, timestep=timestep, resolution=resolution, noisy_target=noisy_target, output=output, loss=loss
    )


def augmented(
    *,
    weights: str,
    image_weights: str = "",
    architecture: str = "sd2",
    steps: int = 25,
    cfg: float = 3.0,
    image_guidance: float = 1.0,
    guidance_rescale: float = 0.7,
    spacing: str = "linspace",
    reference_sigmas: bool = False,
    strength: float = 1.0,
    blind: bool = False,
    seeds: int = 1,
    noise_seed: int = 0,
    resolution: int | None = 512,
    noisy_target: bool = True,
    revision: str | None = None,
    variant: str | None = None,
    tokenizer: str | None = None,
    tiny_vae: str = "",
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> Augmented:
    """The multi-step generator from a text-to-image model's weights; see `Sampling` for how a map is drawn.

    image_weights  an InstructPix2Pix whose first convolution reads the picture; "" = zeros (`ilora_sd.widening`)
    blind          SDEdit: the network never sees the picture; strength says how much of it the trajectory starts with
    architecture   what `augmented_skeleton` builds; random_unet, seed: the control, first convolution and all
    tiny_vae       draw maps with a tiny decoder (`ilora_sd.tiny_vae`)
    """
    sampling = Sampling(
        steps, cfg, image_guidance, guidance_rescale, spacing, reference_sigmas, strength, seeds, noise_seed
    )  # before anything is fetched
    tiny_decoder = load_tiny_vae(tiny_vae, local_only=local_only)
    components = load_components(
        weights, revision=revision, variant=variant, tokenizer=tokenizer, local_only=local_only
    )
    if random_unet or blind:
        unet: Any = components.unet
        components = widen(
            components, torch.zeros_like(unet.conv_in.weight), "random" if random_unet else "none: blind"
        )
        components = randomise(components, seed) if random_unet else components
    elif image_weights:
        components = widen(components, *read_picture_channels(image_weights, variant=variant, local_only=local_only))
    else:
        components = widen(components, None)
    components = with_tiny_vae(components, tiny_decoder)
    return Augmented(components, sampling=sampling, resolution=resolution, noisy_target=noisy_target, blind=blind)


def augmented_skeleton(
    *,
    architecture: str = "sd2",
    resolution: int | None = 512,
    steps: int = 25,
    cfg: float = 3.0,
    image_guidance: float = 1.0,
    strength: float = 1.0,
    seeds: int = 1,
    **_: Any,
) -> Augmented:
    """The widened network on the meta device; the sampling settings that cost evaluations count."""
    sampling = Sampling(steps, cfg, image_guidance, strength=strength, seeds=seeds)
    return Augmented(widen(_weightless(architecture), None), sampling=sampling, resolution=resolution)


def skeleton(
    *,
    weights: str = "",
    architecture: str = "sd1",
    timestep: int | None = None,
    resolution: int | None = None,
    output: str = "raw",
    loss: str = "latent",
    random_unet: bool = False,
    seed: int = 0,
    **_: Any,
) -> StableDiffusion:
    """The full-size network on the meta device: its shapes, counts and settings, without a byte of weights."""
    components = without_weights(_weightless(architecture), weights, random_unet=random_unet, seed=seed)
    check_timestep(timestep, components.timesteps)
    return StableDiffusion(components, timestep=timestep, resolution=resolution, output=output, loss=loss)


def without_weights(components: Components, weights: str, *, random_unet: bool, seed: int) -> Components:
    """A skeleton's parts, which say what they would have been loaded from."""
    asked: dict[str, Any] = {"weights": weights} if weights else {}
    return replace(components, provenance=asked | ({"random_unet": seed} if random_unet else {}))


def _weightless(architecture: str) -> Components:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    if architecture not in ARCHITECTURES:
        raise ConfigError(f"generator.architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}.")
    shape = ARCHITECTURES[architecture]
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(dict(shape.unet))
        vae: Any = AutoencoderKL.from_config(dict(shape.vae))
        text = CLIPTextModel(CLIPTextConfig(**shape.text))
    return Components(unet, vae, text, BlankWords(), SCHEDULER)


def tiny() -> StableDiffusion:
    """Random weights, 64² pictures, CPU, under a second: for tests and the conformance checks."""
    return StableDiffusion(tiny_components())


def tiny_augmented() -> Augmented:
    """`tiny` with a widened first convolution, four steps."""
    components = tiny_components()
    unet: Any = components.unet
    source = torch.Generator().manual_seed(0x1A06)
    picture = 0.3 * torch.randn(unet.conv_in.weight.shape, generator=source)
    return Augmented(widen(components, picture, "random"), sampling=Sampling(steps=4))


def tiny_blind() -> Augmented:
    """`tiny_augmented` by SDEdit: two of four steps, from the picture's noised latent."""
    components = tiny_components()
    unet: Any = components.unet
    widened = widen(components, torch.zeros_like(unet.conv_in.weight), "none: blind")
    return Augmented(widened, sampling=Sampling(steps=4, strength=0.5), blind=True)


def tiny_components(seed: int = 0) -> Components:
    """The parts of `tiny`, with a tokenizer of single letters."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(seed, 0x717))
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        codec: Any = AutoencoderKL  # its annotations say one block
        vae = codec(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=64,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=60,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
    scheduler = dict(DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).config)
    return Components(unet, vae, text, letters(), scheduler, {"weights": "tiny, random"})


class BlankWords:
    """A tokenizer for networks without weights: the right number of words, all the same."""

    def __init__(self, model_max_length: int = 77):
        self.model_max_length = model_max_length

    def __call__(self, text: str, *, max_length: int, **_: Any) -> Any:
        return SimpleNamespace(input_ids=torch.zeros(1, max_length, dtype=torch.long))


def letters() -> Any:
    """A CLIP tokenizer of single letters, 60 words at most, 16 places."""
    import json

    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=16)
