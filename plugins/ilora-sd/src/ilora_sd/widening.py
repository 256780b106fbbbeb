"""A UNet that also sees a picture: its first convolution widened from C to 2C input channels.

    conv_in(x, c) = W_base ∗ x + W_picture ∗ c + bias_base

W_base and the bias are the text-to-image model's, W_picture the last C channels of InstructPix2Pix's first convolution
(Brooks et al., arXiv 2211.09800), which has the same 320 output channels in SD1.x and SD2.x.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import WeightsError
from ilora_sd.hub import find_weights
from ilora_sd.loading import Components

__all__ = ["read_picture_channels", "widen"]

_log = logging.getLogger("ilora")
_NAMES = ("conv_in.weight", "unet.conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight")
_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)


def widen(components: Components, picture: Tensor | None, served_by: str = "") -> Components:
    """The same parts with a widened UNet; its configuration says so too. The given UNet is changed in place.

    picture    (O,C,k,k) weights for the picture's channels, or None for zeros
    served_by  where they come from, for the provenance
    Zeros in a frozen convolution show the network nothing: an adapter must then be put on conv_in too.
    """
    unet: Any = components.unet
    old: nn.Conv2d = unet.conv_in
    if picture is not None and picture.shape != old.weight.shape:
        raise WeightsError(
            f"the picture's channels from {served_by} are {tuple(picture.shape)}, but the UNet's first convolution needs "
            f"{tuple(old.weight.shape)}. Give an InstructPix2Pix of the same family with generator.image_weights=…"
        )
    if picture is None and not old.weight.is_meta:
        _log.warning(
            "the picture's channels of conv_in are zeros: the network sees no picture unless the adapter reaches conv_in "
            "(--set adapter.targets=…,conv_in) or generator.image_weights names an InstructPix2Pix."
        )
    unet.conv_in = _joined(old, picture)
    # Setting `config.in_channels` would change the view of it alone, and not what is saved.
    unet.register_to_config(in_channels=unet.conv_in.in_channels)
    told = served_by or ("given" if picture is not None else "zeros")
    return replace(components, unet=unet, provenance={**components.provenance, "picture_channels": told})


def read_picture_channels(
    weights: str, *, revision: str | None = None, variant: str | None = None, local_only: bool = False
) -> tuple[Tensor, str]:
    """(the last half of conv_in's input channels, float32; where it was found) of an InstructPix2Pix.

    weights  a registry name, hub id, diffusers folder, or a .safetensors/.ckpt file
    Raises WeightsError where there is none, or its first convolution has no even number of channels above 4.
    """
    path, told = Path(weights).expanduser(), weights
    if path.suffix not in (".safetensors", ".ckpt"):
        folder, provenance = find_weights(
            weights, revision=revision, variant=variant, local_only=local_only, parts=("unet",)
        )
        told = f"{weights} ({provenance['served_by']})"
        unet = folder / "unet" if (folder / "unet").is_dir() else folder
        present = [unet / name for name in _FILES if (unet / name).is_file()]
        if not present:
            raise WeightsError(f"{unet} has no {_FILES[0]}. Give an InstructPix2Pix with generator.image_weights=…")
        path = present[0]
    found = _first_convolution(path)
    channels = found.shape[1]
    if channels < 6 or channels % 2:
        raise WeightsError(
            f"{path} takes {channels} input channels: no InstructPix2Pix, which takes the picture's latent as the second "
            "half of an even number. Give another with generator.image_weights=…"
        )
    return found[:, channels // 2 :].float().clone(), told


def _first_convolution(path: Path) -> Tensor:
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                for name in _NAMES:
                    if name in file.keys():  # noqa: SIM118, it is no mapping
                        return file.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(
                f"{path} cannot be read: {error}. It is probably incomplete: download it again."
            ) from error
        raise WeightsError(f"{path} has no first convolution ({_NAMES[0]}): it is no UNet.")
    from ilora_sd.single_file import read_checkpoint

    state: Mapping[str, Tensor] = read_checkpoint(path)[0]
    for name in _NAMES:
        if name in state:
            return state[name]
    raise WeightsError(f"{path} has no first convolution ({_NAMES[0]}): it is no UNet.")


def _joined(old: nn.Conv2d, picture: Tensor | None) -> nn.Conv2d:
    """The wider convolution, frozen."""
    with torch.no_grad():
        beside = torch.zeros_like(old.weight) if picture is None else picture.to(old.weight)
        weight = torch.cat([old.weight, beside], 1)
    made = nn.Conv2d(
        weight.shape[1],
        old.out_channels,
        _pair(old.kernel_size),
        stride=_pair(old.stride),
        padding=_pair(tuple(old.padding)),
        bias=old.bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = old.bias
    return made


def _pair(values: tuple[Any, ...]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
