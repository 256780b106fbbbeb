"""SDXL's, Stable Diffusion 3's and FLUX.1's parts from a hub id, a registry name or a local diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.files import read_json
from ilora_sd.architectures_large import T5, LargeArchitecture, TextPart
from ilora_sd.hub import find_weights
from ilora_sd.loading import Components, load_part, load_tokenizer, randomise
from ilora_sd.quiet import no_progress_bars

__all__ = ["denoiser_class", "load_large"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_large(
    weights: str,
    architecture: LargeArchitecture,
    *,
    t5: bool = False,
    dtype: str = "float32",
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    random_unet: bool = False,
    seed: int = 0,
) -> Components:
    """The parts of a diffusers folder of this architecture, on the CPU.

    weights      a registry name, a hub id "owner/name", or a diffusers folder; single files are not read
    t5           Stable Diffusion 3: the third text encoder too
    dtype        of the denoising network and of T5, float32 or bfloat16; the others are float32
    random_unet  keep the architecture, draw the network's weights anew
    Raises WeightsError for a place that cannot serve, and for a part that is missing, damaged or another model's.
    """
    if Path(weights).suffix in (".safetensors", ".ckpt"):
        raise WeightsError(
            f"{weights}: single files are read for Stable Diffusion 1.x and 2.x only. Give a diffusers folder or a hub id."
        )
    if dtype not in _DTYPES:
        raise ConfigError(f"generator.dtype is one of {', '.join(_DTYPES)}, not {dtype!r}.")
    texts = (*architecture.texts, T5) if t5 else architecture.texts
    parts = (architecture.network, "vae", *(part.folder for part in texts))
    folder, provenance = find_weights(weights, revision=revision, variant=variant, local_only=local_only, parts=parts)
    _check_folder(folder, architecture, texts)
    components = _read(folder, architecture, texts, variant, provenance, _DTYPES[dtype])
    _check(components, architecture, folder)
    return randomise(components, seed) if random_unet else components


def denoiser_class(architecture: LargeArchitecture) -> Any:
    """diffusers' class of the denoising network."""
    import diffusers

    return getattr(diffusers, architecture.kind)


def _check_folder(folder: Path, architecture: LargeArchitecture, texts: tuple[TextPart, ...]) -> None:
    """Raise WeightsError for a folder that is incomplete or another architecture's, before anything of it is loaded."""
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
    config = folder / architecture.network / "config.json"
    found = read_json(config).get("_class_name", architecture.kind) if config.is_file() else architecture.kind
    if found != architecture.kind:
        raise WeightsError(
            f"{folder}: {architecture.network}/ holds {found}, but {architecture.name} needs {architecture.kind}. "
            "Use the generator that these weights belong to, or give others with --set generator.weights=PATH."
        )


def _read(
    folder: Path,
    architecture: LargeArchitecture,
    texts: tuple[TextPart, ...],
    variant: str | None,
    provenance: dict[str, Any],
    dtype: torch.dtype,
) -> Components:
    import transformers
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    local: dict[str, Any] = {"local_files_only": True, "variant": variant}
    single = torch.float32
    with no_progress_bars():
        net = load_part(denoiser_class(architecture), folder / architecture.network, torch_dtype=dtype, **local)
        vae = load_part(AutoencoderKL, folder / "vae", torch_dtype=single, **local)
        pairs = []
        for part in texts:
            kind, precision = getattr(transformers, part.kind), dtype if part.kind == T5.kind else single
            encoder = load_part(kind, folder / part.folder, dtype=precision, **local)
            pairs.append((encoder, load_tokenizer(folder / part.tokenizer, clip=part.kind != T5.kind)))
    (first, words), *further = pairs
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return Components(net, vae, first, words, scheduler, provenance, tuple(further))


def _check(components: Components, architecture: LargeArchitecture, where: Path) -> None:
    """Raise WeightsError when the parts come from different models. Limits the CLIP tokenizers to their encoders."""
    denoiser: Any = components.unet
    net: Any = denoiser.config
    pairs: list[tuple[Any, Any]] = [(components.text_encoder, components.tokenizer), *components.further]
    flux = architecture.kind == "FluxTransformer2DModel"
    _check_channels(components, where, cells=4 if flux else 1)
    if flux:
        _check_flux_prompts(net, [encoder.config.hidden_size for encoder, _ in pairs], where)
    else:
        _check_clip_prompts(net, sum(encoder.config.hidden_size for encoder, _ in pairs[:2]), where)
    for encoder, words in pairs:
        if len(words) > encoder.config.vocab_size:
            raise WeightsError(
                f"{where}: a tokenizer has {len(words)} words, its text encoder {encoder.config.vocab_size}. "
                "They come from different models."
            )
        places = getattr(encoder.config, "max_position_embeddings", None)
        if places:
            words.model_max_length = min(words.model_max_length, places)


def _check_channels(components: Components, where: Path, *, cells: int) -> None:
    """cells: how many latent cells the network reads side by side as its input's channels."""
    denoiser: Any = components.unet
    codec: Any = components.vae
    takes, latent = denoiser.config.in_channels, codec.config.latent_channels
    gives = denoiser.config.out_channels or takes
    if not takes == gives == cells * latent:
        packed = f", {cells} of which make a token" if cells > 1 else ""
        raise WeightsError(
            f"{where}: the network takes {takes} and gives {gives} channels, but the VAE's latents have {latent}{packed}. "
            "The one-step model needs a plain text-to-image network and its own VAE."
        )


def _check_clip_prompts(net: Any, width: int, where: Path) -> None:
    """SDXL reads two CLIPs side by side; Stable Diffusion 3 pads them to T5's width."""
    padded = "joint_attention_dim" in net
    reads = net.joint_attention_dim if padded else net.cross_attention_dim
    if (width > reads) if padded else (width != reads):
        raise WeightsError(
            f"{where}: the network reads prompts of width {reads}, but the two CLIP encoders give {width} together. "
            "They come from different models."
        )


def _check_flux_prompts(net: Any, widths: list[int], where: Path) -> None:
    pooled, tokens = net.pooled_projection_dim, net.joint_attention_dim
    if [pooled, tokens] != widths:
        raise WeightsError(
            f"{where}: the network reads a pooled prompt of width {pooled} and tokens of width {tokens}, but CLIP gives "
            f"{widths[0]} and T5 {widths[1]}. They come from different models."
        )
