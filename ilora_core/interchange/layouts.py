"""The names that tools give to the tensors of one LoRA, and the way between them.

    W' = W + (alpha / r) B A        A = "down" (r, in), B = "up" (out, r); alpha = r where a file does not say

    attention processors  PATH.processor.to_{q,k,v,out}_lora.{down,up}.weight     diffusers to 0.20: the released I-LoRA weights
    diffusers             PATH.to_q.lora.{down,up}.weight                         diffusers' save_lora_weights
    peft                  PATH.to_q.lora_{A,B}.weight                             peft; diffusers since 0.22
    kohya                 lora_unet_PATH_to_q.lora_{down,up}.weight, .alpha       sd-scripts, ComfyUI, A1111

PATH is the layer's in the network, behind "unet." or "transformer.", "base_model.model.", or nothing. kohya writes "_" for ".",
and files for SDXL count blocks as Stability's own code does (`_stability_names`). Names and rules as read from diffusers 0.20.2
and 0.42, peft, sd-scripts and ComfyUI's comfy/lora.py; the first layout was checked against a file that diffusers 0.20.2 wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ilora_core.errors import ArtefactError

__all__ = ["LAYOUTS", "Piece", "kohya_name", "kohya_paths", "listed", "sort_keys"]

LAYOUTS = ("attention processors", "diffusers", "peft", "kohya")

_PREFIX = re.compile(r"(?:base_model\.model\.)?(?:unet\.|transformer\.)?")
_PATTERNS = {
    "attention processors": re.compile(
        r"(?P<path>.+)\.processor\.(?P<layer>to_[qkv]|to_out)_lora\.(?P<part>down|up)\.weight"
    ),
    "diffusers": re.compile(r"(?P<path>.+)\.lora\.(?P<part>down|up)\.weight"),
    "peft": re.compile(r"(?P<path>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight"),
    "kohya": re.compile(
        r"lora_(?:unet|transformer)_(?P<path>[^.]+)\.(?:lora_(?P<part>down|up)\.weight|(?P<alpha>alpha))"
    ),
}
_ALPHA = re.compile(r"(?P<path>.+)\.alpha")
_OTHERS = (  # (a part of a key, what such a file is)
    ("hada_", "a LoHa"),
    ("lokr_", "a LoKr"),
    ("dora_scale", "a DoRA in kohya's layout"),
    ("lora_magnitude_vector", "a DoRA"),
    ("oft_", "an OFT"),
    ("lora_te", "a LoRA that changes the text encoder too"),
    ("text_encoder", "a LoRA that changes the text encoder too"),
    ("ia3", "an (IA)3"),
)


@dataclass(frozen=True)
class Piece:
    """One tensor of a LoRA file.

    path  of the layer in the network, as the layout spells it (kohya: with "_")
    part  "A", "B" or "alpha"
    """

    path: str
    part: str


def sort_keys(keys: Iterable[str], *, file: object) -> tuple[str, dict[str, Piece]]:
    """(layout, key -> what it is). Raises ArtefactError for keys of no layout, or of more than one."""
    found: dict[str, dict[str, Piece]] = {}
    unknown = []
    for key in sorted(keys):
        layout, piece = _read(key)
        if piece is None:
            unknown.append(key)
        else:
            found.setdefault(layout, {})[key] = piece
    alphas = found.pop("alpha", {})
    if unknown:
        raise ArtefactError(
            f"{file} is {_kind(unknown)}: {len(unknown)} of its tensors are none of a LoRA's that ilora can read "
            f"({listed(unknown)}). Known layouts: {', '.join(LAYOUTS)}."
        )
    if len(found) > 1:
        examples = "; ".join(f"{layout}: {next(iter(pieces))}" for layout, pieces in sorted(found.items()))
        raise ArtefactError(f"{file} mixes layouts and was not imported ({examples}). Give a file from one tool.")
    if not found:
        raise ArtefactError(f"{file} holds no LoRA. Known layouts: {', '.join(LAYOUTS)}.")
    layout, pieces = found.popitem()
    return layout, {**pieces, **alphas}


def kohya_name(path: str) -> str:
    """A layer's name in kohya's layout, block names as diffusers has them: what ComfyUI and diffusers read for any UNet."""
    return f"lora_unet_{path.replace('.', '_')}"


def kohya_paths(paths: Sequence[str]) -> dict[str, str]:
    """Both spellings of kohya's names without "lora_unet_" -> the layer's path. A name that two layers share is left out."""
    names: dict[str, set[str]] = {}
    for path in paths:
        for spelling in {path, *_stability_names(path, _layers_per_block(paths))}:
            names.setdefault(spelling.replace(".", "_"), set()).add(path)
    return {name: found.pop() for name, found in names.items() if len(found) == 1}


def listed(keys: Sequence[str], most: int = 10) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _read(key: str) -> tuple[str, Piece | None]:
    bare = key[_PREFIX.match(key).end() :] if not key.startswith("lora_") else key  # type: ignore[union-attr]
    for layout, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(bare):
            parts: dict[str, Any] = match.groupdict()
            path = parts["path"]
            if layer := parts.get("layer"):
                path = f"{path}.{'to_out.0' if layer == 'to_out' else layer}"
            part = "alpha" if parts.get("alpha") else "A" if parts["part"] in ("down", "A") else "B"
            return layout, Piece(path, part)
    if match := _ALPHA.fullmatch(bare):
        return "alpha", Piece(match["path"].removesuffix(".lora"), "alpha")
    return "", None


def _kind(keys: Sequence[str]) -> str:
    return next((kind for part, kind in _OTHERS if any(part in key for key in keys)), "no LoRA that ilora knows")


def _layers_per_block(paths: Sequence[str]) -> int:
    """Of a UNet: the highest number of a layer in a down block, plus one. 0 for a network that is no UNet."""
    numbers = [int(m[1]) for p in paths if (m := re.match(r"down_blocks\.\d+\.(?:resnets|attentions)\.(\d+)\.", p))]
    return max(numbers, default=-1) + 1


def _stability_names(path: str, layers: int) -> list[str]:
    """Where Stability's own UNet keeps an attention layer: blocks are counted through, with the convolutions between them.

    input_blocks: 0 is the first convolution; each level has its layers and a downsampler. output_blocks: one layer more.
    """
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", path):
        block, layer = int(match[2]), int(match[3])
        if match[1] == "down":
            return [f"input_blocks.{1 + block * (layers + 1) + layer}.1.{match[4]}"]
        return [f"output_blocks.{block * (layers + 1) + layer}.1.{match[4]}"]
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", path):
        return [f"middle_block.1.{match[1]}"]
    return []
