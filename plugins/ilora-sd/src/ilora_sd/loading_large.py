"""SDXL's and Stable Diffusion 3's parts from a hub id, a registry name or a local diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import WeightsError
from ilora_core.files import read_json
from ilora_sd.architectures_large import T5, LargeArchitecture, TextPart
from ilora_sd.hub import find_weights
from ilora_sd.loading import Components, load_part, load_tokenizer, randomise
from ilora_sd.quiet import no_progress_bars

__all__ = ["denoiser_class", "load_large"]


def load_large(
    weights: str,
    architecture: LargeArchitecture,
    *,
    t5: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> Components:
    """The parts of a diffusers folder of this architecture, float32, on the CPU.

    weights      a registry name, a hub id "owner/name", or a diffusers folder; single files are not read
    t5           Stable Diffusion 3: the third text encoder too
    random_unet  keep the architecture, draw the network's weights anew
    Raises WeightsError for a place that cannot serve, and for a part that is missing, damaged or another model's.
    """
    if Path(weights).suffix in (".safetensors", ".ckpt"):
        raise WeightsError(
            f"{weights}: single files are read for Stable Diffusion 1.x and 2.x only. Give a diffusers folder or a hub id."
        )
    texts = (*architecture.texts, T5) if t5 else architecture.texts
    parts = (architecture.network, "vae", *(part.folder for part in texts))
    folder, provenance = find_weights(weights, revision=revision, variant=variant, local_only=local_only, parts=parts)
    components = _read(folder, architecture, texts, variant, provenance)
    _check(components, architecture, folder)
    return randomise(components, seed) if random_unet else components


def denoiser_class(architecture: LargeArchitecture) -> Any:
    """diffusers' class of the denoising network."""
    if architecture.network == "transformer":
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        return SD3Transformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel


def _read(
    folder: Path,
    architecture: LargeArchitecture,
    texts: tuple[TextPart, ...],
    variant: str | None,
    provenance: dict[str, Any],
) -> Components:
    import transformers
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    wanted = (
        architecture.network,
        "vae",
        "scheduler",
        *(name for part in texts for name in (part.folder, part.tokenizer)),
    )
    if missing := [part for part in wanted if not (folder / part).is_dir()]:
        raise WeightsError(
            f"{folder} is not a complete folder of {architecture.name}: it lacks {', '.join(missing)}/. "
            "Download it again, or give another with --set generator.weights=PATH."
        )
    local: dict[str, Any] = {"local_files_only": True, "variant": variant}
    single = torch.float32
    with no_progress_bars():
        net = load_part(denoiser_class(architecture), folder / architecture.network, torch_dtype=single, **local)
        vae = load_part(AutoencoderKL, folder / "vae", torch_dtype=single, **local)
        pairs = [
            (
                load_part(getattr(transformers, part.kind), folder / part.folder, dtype=single, **local),
                _words(folder, part),
            )
            for part in texts
        ]
    (first, words), *further = pairs
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return Components(net, vae, first, words, scheduler, provenance, tuple(further))


def _words(folder: Path, part: TextPart) -> Any:
    if part is not T5:
        return load_tokenizer(folder / part.tokenizer)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / part.tokenizer), local_files_only=True)


def _check(components: Components, architecture: LargeArchitecture, where: Path) -> None:
    """Raise WeightsError when the parts come from different models. Limits the CLIP tokenizers to their encoders."""
    denoiser: Any = components.unet
    codec: Any = components.vae
    net, vae = denoiser.config, codec.config
    encoders: list[Any] = [components.text_encoder, *(encoder for encoder, _ in components.further)]
    if not net.in_channels == net.out_channels == vae.latent_channels:
        raise WeightsError(
            f"{where}: the network takes {net.in_channels} and gives {net.out_channels} channels, but the VAE's latents "
            f"have {vae.latent_channels}. The one-step model needs a plain text-to-image network and its own VAE."
        )
    width = sum(encoder.config.hidden_size for encoder in encoders[:2])
    reads = net.cross_attention_dim if architecture.network == "unet" else net.joint_attention_dim
    if (width != reads) if architecture.network == "unet" else (width > reads):
        raise WeightsError(
            f"{where}: the network reads prompts of width {reads}, but the two CLIP encoders give {width} together. "
            "They come from different models."
        )
    for encoder, words in zip(
        encoders, (components.tokenizer, *(words for _, words in components.further)), strict=True
    ):
        places = getattr(encoder.config, "max_position_embeddings", None)
        if places:
            words.model_max_length = min(words.model_max_length, places)
