"""Single-file checkpoints in the original (LDM) layout: SD1.x and SD2.x as .safetensors or .ckpt.

    model.diffusion_model.*      UNet          (model_ema.*: its moving average, preferred where it is there)
    first_stage_model.*          VAE
    cond_stage_model.*           CLIP (SD1) or OpenCLIP (SD2) text encoder

The names are mapped by diffusers; the configuration is ours (`architectures`), so nothing is fetched but a tokenizer. The
kind is read from tensor shapes, before anything is built. A .ckpt is a pickle: it is read with torch's restricted
unpickler, which runs no code from the file.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import WeightsError
from ilora_core.registry import load_registry
from ilora_sd.architectures import ARCHITECTURES, SCHEDULER, Architecture
from ilora_sd.loading import Components, check_components, read_tokenizer

__all__ = ["detect", "load_single_file", "read_checkpoint"]

_log = logging.getLogger("ilora")
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_PROMPT = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_OTHERS = (  # (part of a key, what it gives away)
    ("conditioner.embedders.", "an SDXL checkpoint"),
    ("joint_blocks.", "a Stable Diffusion 3 checkpoint"),
    ("double_blocks.", "a Flux checkpoint"),
    ("lora_", "a LoRA file, an adapter and not a model"),
    ("control_model.", "a ControlNet"),
    ("down_blocks.", "one part of a diffusers folder: give the folder that holds unet/, vae/, text_encoder/"),
)


def load_single_file(
    path: Path | str,
    *,
    tokenizer: str | None = None,
    local_only: bool = False,
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
) -> Components:
    """The parts of an SD1.x or SD2.x checkpoint, float32, on the CPU.

    tokenizer   folder or hub id of its CLIP tokenizer; None = the known ones
    local_only  open no connection
    Raises WeightsError for a file that is missing, incomplete, hostile or of another model.
    """
    path = Path(path).expanduser()
    state, global_step = read_checkpoint(path)
    architecture = detect({key: tuple(value.shape) for key, value in state.items()}, path, architectures)
    words, served = _tokenizer(tokenizer, architecture, local_only)
    prediction, said_by = _prediction(path, architecture, global_step)
    size = 96 if prediction == "v_prediction" else architecture.unet["sample_size"]
    unet = {**architecture.unet, "sample_size": size}
    components = Components(
        *_build(_with_average(state), unet, architecture, path),
        words,
        {**SCHEDULER, "prediction_type": prediction},
        {
            "weights": str(path),
            "served_by": "local file",
            "architecture": architecture.name,
            "tokenizer": served,
            "prediction_type": f"{prediction} ({said_by}; the single step does not depend on it)",
        },
    )
    check_components(components, path)
    _log.info("weights %s: %s, tokenizer from %s", path, architecture.name, served)
    return components


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int | None]:
    """(tensors by name, training step if the file says it). Runs no code from the file."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}. Check --set generator.weights=…")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), None
        data = _unpickle(path)
    except Exception as error:  # UnpicklingError, SafetensorError, RuntimeError, EOFError …, by format and version
        if isinstance(error, pickle.UnpicklingError) and (asked := _refused(error)):
            raise WeightsError(
                f"{path} holds more than weights and was not loaded: its pickle asks to run {asked}. "
                "Do not trust this file; use a .safetensors version of the model."
            ) from error
        raise WeightsError(
            f"{path} cannot be read: {_line(error)} It is probably incomplete: compare its size, download it again."
        ) from error
    step = data.get("global_step") if isinstance(data, dict) else None
    tensors = data.get("state_dict", data) if isinstance(data, dict) else {}
    tensors = tensors if isinstance(tensors, Mapping) else {}
    return {k: v for k, v in tensors.items() if isinstance(v, Tensor)}, step if isinstance(step, int) else None


def detect(
    shapes: Mapping[str, tuple[int, ...]], path: Path, architectures: Mapping[str, Architecture] = ARCHITECTURES
) -> Architecture:
    """Which architecture a checkpoint has, by its shapes. Raises WeightsError that says what it is instead."""
    if _FIRST not in shapes or _PROMPT not in shapes:
        raise WeightsError(f"{path} is {_name_other(shapes)}. Give a Stable Diffusion 1.x or 2.x checkpoint.")
    width, channels = shapes[_PROMPT][1], shapes[_FIRST][1]
    found = [a for a in architectures.values() if a.width == width]
    if not found or shapes[_FIRST][0] != found[0].unet["block_out_channels"][0]:
        raise WeightsError(f"{path} is no SD1.x (prompt width 768) or SD2.x (1024): its prompt width is {width}.")
    if channels != found[0].unet["in_channels"]:
        raise WeightsError(
            f"{path} takes {channels} input channels: an inpainting, depth or pix2pix model. "
            f"The one-step model needs {found[0].unet['in_channels']}: give the plain text-to-image checkpoint."
        )
    for prefix, what in ((_VAE, "VAE"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in shapes):
            raise WeightsError(f"{path} was saved without its {what} ({prefix}*). Give the complete checkpoint.")
    return found[0]


class _Stub:
    """Stands in for classes that old training tools left in checkpoints beside the weights."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _unpickle(path: Path) -> Any:
    names = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)
    mapped = zipfile.is_zipfile(path)  # older files are plain pickles and cannot be mapped
    with warnings.catch_warnings(), torch.serialization.safe_globals([(_Stub, name) for name in names]):
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # what it cannot read, it refuses
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _name_other(shapes: Mapping[str, Any]) -> str:
    for part, what in _OTHERS:
        if any(part in key for key in shapes):
            return what
    return "no Stable Diffusion checkpoint (it has no model.diffusion_model.*)" if shapes else "without any weights"


def _prediction(path: Path, architecture: Architecture, global_step: int | None) -> tuple[str, str]:
    """What the UNet was trained to give, and who says so. Shapes do not tell; only sampling depends on it."""
    if architecture.name != "sd2":
        return "epsilon", "as all SD1.x"
    if global_step is not None:
        return ("epsilon" if global_step == 875000 else "v_prediction"), "by its training step, as diffusers does"
    if "512" in path.name or "base" in path.name:
        return "epsilon", "by the file's name"
    return "v_prediction", "by the file's name" if "768" in path.name else "assumed, as diffusers does"


def _with_average(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moving average in place of the raw UNet, where a training checkpoint holds both: it is what was released."""
    made = {}
    for key, value in state.items():
        if key.startswith("model_ema."):
            continue
        average = "model_ema." + key.removeprefix("model.").replace(".", "") if key.startswith(_UNET) else ""
        made[key] = state.get(average, value)
    return made


def _build(
    state: Mapping[str, Tensor], unet: Mapping[str, Any], architecture: Architecture, path: Path
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """UNet, VAE and text encoder.

    With diffusers' converters rather than `from_single_file`, which answers a missing tensor with an error about devices.
    """
    from accelerate import init_empty_weights
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def part(prefix: str) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if key.startswith(prefix)}

    vae = dict(architecture.vae)
    with init_empty_weights():
        networks: tuple[Any, Any, Any] = (
            UNet2DConditionModel.from_config(dict(unet)),
            AutoencoderKL.from_config(vae),
            CLIPTextModel(CLIPTextConfig(**architecture.text)),
        )
    try:
        converted = (
            convert_ldm_unet_checkpoint(part(_UNET), dict(unet)),
            convert_ldm_vae_checkpoint(part(_VAE), vae),
            _convert_text(part(_TEXT), networks[2]),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} looks like {architecture.name}, but lacks {_line(error)}.") from error
    for network, tensors in zip(networks, converted, strict=True):
        _fill(network, tensors, path)
    return networks


def _convert_text(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """CLIP's or OpenCLIP's names -> those of this version of transformers, with or without "text_model."."""
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    openclip = any(key.startswith(f"{_TEXT}model.") for key in state)
    made = convert_open_clip_checkpoint(network, state) if openclip else convert_ldm_clip_checkpoint(state)
    wrapped = hasattr(network, "text_model")
    return made if wrapped else {key.removeprefix("text_model."): value for key, value in made.items()}


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a weightless network its tensors, as float32 copies. What the network does not know is left out."""
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    wrong = [key for key in sorted(wanted) if key in tensors and tensors[key].shape != wanted[key].shape]
    kind = type(network).__name__
    if missing:
        raise WeightsError(
            f"{path} is incomplete: {len(missing)} tensors of {kind} are missing, {missing[0]} among them. "
            "Download it again."
        )
    if wrong:
        key = wrong[0]
        raise WeightsError(
            f"{path} is of another model: {kind}'s {key} is {tuple(tensors[key].shape)} in it, and "
            f"{tuple(wanted[key].shape)} in Stable Diffusion."
        )
    copies = {key: tensors[key].to(torch.float32, copy=True) for key in wanted}
    network.load_state_dict(copies, assign=True)
    network.requires_grad_(False)


def _tokenizer(given: str | None, architecture: Architecture, local_only: bool) -> tuple[Any, str]:
    """(tokenizer, where it came from)."""
    weights = load_registry().weights["sd15" if architecture.name == "sd1" else "sd21"]
    known = [("openai/clip-vit-large-patch14", "")] if architecture.name == "sd1" else []
    known += [(source, "tokenizer") for source in weights.sources]
    if given and Path(given).expanduser().is_dir():
        inner = Path(given).expanduser() / "tokenizer"
        known = [(str(inner if inner.is_dir() else inner.parent), "")]
    elif given:
        known = [(given, "")]
    failures = []
    for place, subfolder in known:
        try:
            return read_tokenizer(place, subfolder, local_only=local_only), f"{place}/{subfolder}".rstrip("/")
        except Exception as error:  # see ilora_sd.hub: any of them means: try the next place
            failures.append(f"  {place}: {_line(error)}")
    raise WeightsError(
        "a single-file checkpoint holds no tokenizer, and none was found:\n" + "\n".join(failures) + "\n"
        "Give one with --set generator.tokenizer=FOLDER (vocab.json and merges.txt, from the tokenizer/ folder of any "
        "diffusers copy of the model) or =HUB_ID."
    )


def _line(error: Exception) -> str:
    """What went wrong, in one line; of torch's page about `weights_only` only the cause."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return (text.splitlines() or [type(error).__name__])[0][:200]


def _refused(error: Exception) -> str:
    """The function or class that a pickle wanted and torch refused; "" when the pickle is merely broken."""
    found = re.search(r"(?:GLOBAL|global:?|callable|class) [`'\"]?([\w.]+\.\w+)", str(error))
    return found.group(1) if found else ""
