"""taming-transformers' names -> those of diffusers' VQModel and transformers' GPT2LMHeadModel.

    decoder.up.i    ->  up_blocks.(L-1-i)          diffusers counts the decoder's levels from the coarsest
    attn.{q,k,v}    ->  to_{q,k,v}                 1×1 convolutions (C,C,1,1) become matrices (C,C)
    attn.{query,key,value}  ->  c_attn             three (C,C) matrices, transposed, side by side: (C,3C)

Dropped on purpose: loss.* (a perceptual network and a discriminator), and the prior's causal masks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["dropped", "first_stage_name", "map_first_stage", "map_prior", "prior_names"]

_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
_RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
_MID = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
_LEVEL = re.compile(r"(encoder|decoder)\.(down|up)\.(\d+)\.(block|attn|downsample|upsample)\.(.+)")
_OUTER = {
    "tok_emb.weight": "transformer.wte.weight",
    "pos_emb": "transformer.wpe.weight",
    "head.weight": "lm_head.weight",
}
_INNER = {"ln1": "ln_1", "ln2": "ln_2", "attn.proj": "attn.c_proj", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}
_QKV = ("query", "key", "value")


def dropped(key: str) -> bool:
    """Whether a tensor of a checkpoint is left out on purpose."""
    bare = key.removeprefix("first_stage_model.")
    return bare.startswith("loss.") or bool(re.fullmatch(r"transformer\.blocks\.\d+\.attn\.mask", key))


def first_stage_name(key: str, levels: int) -> str | None:
    """diffusers' name of a first stage's tensor (without a prefix), or None for one it does not know."""
    if key.startswith(("quantize.embedding.", "quant_conv.", "post_quant_conv.")):
        return key
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return None
    if rest.startswith(("conv_in.", "conv_out.")):
        return key
    if rest.startswith("norm_out."):
        return f"{side}.conv_{rest}"
    if match := re.fullmatch(r"mid\.(block_1|attn_1|block_2)\.(.+)", rest):
        inner = _within(match[1], match[2])
        return inner and f"{side}.mid_block.{_MID[match[1]]}{inner}"
    match = _LEVEL.fullmatch(key)
    if match is None or (match[1], match[2]) not in (("encoder", "down"), ("decoder", "up")):
        return None
    _, way, level, kind, rest = match.groups()
    number = int(level) if way == "down" else levels - 1 - int(level)
    if kind in ("downsample", "upsample"):
        return f"{side}.{way}_blocks.{number}.{kind}rs.0.{rest}"
    index, _, leaf = rest.partition(".")
    part = "resnets" if kind == "block" else "attentions"
    inner = _within(kind, leaf)
    return inner and f"{side}.{way}_blocks.{number}.{part}.{index}{inner}"


def map_first_stage(state: Mapping[str, Tensor], levels: int) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by diffusers' names, names that have none)."""
    made: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        name = first_stage_name(key, levels)
        if name is None:
            unknown.append(key)
            continue
        square = ".attentions." in name and ".to_" in name and name.endswith("weight")
        made[name] = value.reshape(value.shape[:2]) if square else value
    return made, unknown


def prior_names(key: str) -> str | None:
    """transformers' name of a prior's tensor ("transformer." taken off), or None. Query, key and value share one."""
    if key in _OUTER:
        return _OUTER[key]
    if match := re.fullmatch(r"ln_f\.(weight|bias)", key):
        return f"transformer.{key}"
    match = re.fullmatch(r"blocks\.(\d+)\.(ln1|ln2|attn\.\w+|mlp\.[02])\.(weight|bias)", key)
    if match is None:
        return None
    number, part, leaf = match.groups()
    inner = "attn.c_attn" if part.rpartition(".")[2] in _QKV else _INNER.get(part)
    return inner and f"transformer.h.{number}.{inner}.{leaf}"


def map_prior(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by transformers' names, names that have none)."""
    made: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        name = prior_names(key)
        if name is None:
            unknown.append(key)
        elif ".attn.c_attn." in name:
            if f".{_QKV[0]}." in key:  # the other two come with it; if one lacks, the whole is missing
                three = [state.get(key.replace(f".{_QKV[0]}.", f".{other}.")) for other in _QKV]
                if all(part is not None for part in three):
                    made[name] = torch.cat([_turned(part) for part in three if part is not None], dim=-1)
        elif name == "transformer.wpe.weight":
            made[name] = value[0]
        else:
            made[name] = _turned(value) if ".h." in name and value.ndim == 2 else value
    return made, unknown


def _turned(value: Tensor) -> Tensor:
    """GPT-2 keeps its matrices as (in, out)."""
    return value.t() if value.ndim == 2 else value


def _within(kind: str, leaf: str) -> str | None:
    """A tensor's name inside its residual or attention block, or None."""
    part, _, end = leaf.rpartition(".")
    name = (_ATTENTION if kind.startswith("attn") else _RESIDUAL).get(part)
    return name and f".{name}.{end}"
