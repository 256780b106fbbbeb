"""Stable Diffusion's parts from a hub id, a local diffusers folder, a single-file checkpoint, or nothing (random)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.files import read_json
from ilora_core.noise import mix_seeds
from ilora_sd.hub import find_weights
from ilora_sd.quiet import no_progress_bars

__all__ = [
    "Components",
    "check_components",
    "check_timestep",
    "find_weights",
    "load_components",
    "load_folder",
    "load_part",
    "load_tokenizer",
    "randomise",
    "read_tokenizer",
]

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SINGLE_FILE = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class Components:
    """The parts of a latent diffusion model, on the CPU.

    unet        the denoising network; Stable Diffusion 3's is a transformer
    provenance  plain data for run.json: what was asked for, which place served it, which revision
    further     text encoders beyond the first, each with its tokenizer, in the order of the model's own pipeline
    tiny_vae    what decodes maps in place of the VAE (`ilora_sd.tiny_vae`)
    """

    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    scheduler_config: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    further: tuple[tuple[nn.Module, Any], ...] = ()
    tiny_vae: nn.Module | None = None

    @property
    def timesteps(self) -> int:
        """T, the number of training timesteps."""
        return int(self.scheduler_config.get("num_train_timesteps", 1000))


def load_components(
    weights: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    tokenizer: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> Components:
    """Load from wherever `weights` points.

    weights      a registry name, a hub id "owner/name", a diffusers folder, or a .safetensors/.ckpt file
    variant      "fp16" takes the half-precision files where the repository has them
    tokenizer    folder or hub id of a CLIP tokenizer, for single files (they hold none)
    random_unet  keep the architecture, draw the UNet's weights anew: the control for "does pre-training matter"
    Raises WeightsError that lists every place that was tried and why it failed.
    """
    path = Path(weights).expanduser()
    if path.suffix in _SINGLE_FILE:
        from ilora_sd.single_file import load_single_file

        components = load_single_file(path, tokenizer=tokenizer, local_only=local_only)
    else:
        folder, provenance = find_weights(weights, revision=revision, variant=variant, local_only=local_only)
        components = load_folder(folder, variant=variant, provenance=provenance)
    return randomise(components, seed) if random_unet else components


def load_folder(
    folder: Path | str,
    *,
    vae_class: Any = None,
    variant: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    latents: int = 1,
) -> Components:
    """A diffusers folder. vae_class replaces AutoencoderKL (a codec with the same interface).

    latents  how many the UNet takes side by side; 2 = an InstructPix2Pix

    Raises WeightsError for a part that is missing, damaged or incomplete, or that does not fit the others.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = Path(folder)
    if missing := [part for part in _PARTS if not (folder / part).is_dir()]:
        raise WeightsError(
            f"{folder} is not a complete Stable Diffusion folder: it lacks {', '.join(missing)}/. "
            "Download it again, or give another with --set generator.weights=PATH."
        )
    local: dict[str, Any] = {"local_files_only": True, "variant": variant}
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    with no_progress_bars():
        components = Components(
            load_part(UNet2DConditionModel, folder / "unet", torch_dtype=torch.float32, **local),
            load_part(vae_class or AutoencoderKL, folder / "vae", torch_dtype=torch.float32, **local),
            load_part(CLIPTextModel, folder / "text_encoder", dtype=torch.float32, **local),
            load_tokenizer(folder / "tokenizer"),
            scheduler,
            provenance or {"weights": str(folder)},
        )
    check_components(components, folder, latents=latents)
    return components


def check_components(components: Components, where: Path | str, *, latents: int = 1) -> None:
    """Raise WeightsError when the parts come from different models. Limits the tokenizer to the encoder's length."""
    parts: tuple[Any, Any, Any] = (components.unet, components.vae, components.text_encoder)
    unet, vae, text = (part.config for part in parts)
    channels = int(getattr(vae, "latent_channels", unet.in_channels))
    if unet.in_channels != latents * channels or unet.out_channels != channels:
        needed = "a plain text-to-image UNet (not inpainting, depth or pix2pix)"
        raise WeightsError(
            f"{where}: the UNet takes {unet.in_channels} and gives {unet.out_channels} channels, but the VAE's latents "
            f"have {channels}. Here {needed if latents == 1 else 'a UNet that takes a picture beside its latent'} is "
            "needed, and its own VAE."
        )
    if unet.cross_attention_dim != text.hidden_size:
        raise WeightsError(
            f"{where}: the UNet reads prompts of width {unet.cross_attention_dim}, but the text encoder gives "
            f"{text.hidden_size}. unet/ and text_encoder/ come from different models."
        )
    words = components.tokenizer
    if len(words) > text.vocab_size:
        raise WeightsError(f"{where}: the tokenizer has {len(words)} words, the text encoder {text.vocab_size}.")
    # Without a tokenizer_config.json the length is unlimited, and padding to it fails.
    words.model_max_length = min(words.model_max_length, text.max_position_embeddings)


def check_timestep(timestep: int | None, timesteps: int, *, flow: bool = False) -> None:
    """Raise ConfigError for a timestep that the model does not know: a flow's are 1 … T, others 0 … T − 1."""
    first, last = (1, timesteps) if flow else (0, timesteps - 1)
    if timestep is not None and not first <= timestep <= last:
        raise ConfigError(f"generator.timestep must lie in {first} … {last}, not {timestep}.")


def randomise(components: Components, seed: int) -> Components:
    """The same parts with a UNet whose weights are drawn anew: the control that never saw a picture."""
    unet: Any = components.unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(seed, 0x5EED))
        fresh = type(unet).from_config(unet.config)
    return replace(components, unet=fresh, provenance={**components.provenance, "random_unet": seed})


def read_tokenizer(place: str, subfolder: str = "", *, clip: bool = True, local_only: bool = True) -> Any:
    """A tokenizer, CLIP's or of the class that its files name.

    Raises when there is none: transformers 5 makes an empty one up where it finds no files.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    kind: Any = CLIPTokenizer if clip else AutoTokenizer
    words = kind.from_pretrained(place, subfolder=subfolder, local_files_only=local_only)
    empty = len(words) <= len(set(words.all_special_ids))
    if not clip:  # T5's made-up one has a hundred marks beside the special ones, but knows no letter
        empty |= words.unk_token_id in words("depth", add_special_tokens=False).input_ids
    if empty:
        files = "vocab.json and merges.txt" if clip else "spiece.model"
        raise WeightsError(f"there is no vocabulary ({files}, or tokenizer.json).")
    return words


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """`from_pretrained`, which draws missing tensors at random and says so in its log only: refused here."""
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # OSError, ValueError, SafetensorError, KeyError …, by library and version
        raise WeightsError(
            f"cannot load {folder}: {(str(error).strip().splitlines() or [type(error).__name__])[0]} "
            "The files may be incomplete: download them again."
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} tensors, {missing[0]} among them. Was a LoRA saved into it, or is it "
            "another model's? Download it again."
        )
    return model


def load_tokenizer(folder: Path, *, clip: bool = True) -> Any:
    """A tokenizer of a diffusers folder, CLIP's or another. Raises WeightsError when there is none or it is empty."""
    try:
        return read_tokenizer(str(folder), clip=clip)
    except Exception as error:
        raise WeightsError(
            f"cannot load the tokenizer in {folder}: {(str(error).strip().splitlines() or [''])[0]} Download it again."
        ) from error
