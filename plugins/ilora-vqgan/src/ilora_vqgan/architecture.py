"""What a VQGAN consists of, from three places: a project's yaml, the shapes of a checkpoint, or by heart (FFHQ).

The tensors say everything but three things: the prior's number of heads, the first token of a sequence, and the picture's
size (which follows from the prior's length, where there is a prior). Those come from the yaml.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isqrt
from pathlib import Path
from typing import Any

from ilora_core.errors import WeightsError

__all__ = ["FFHQ", "Architecture", "FirstStage", "Prior", "from_shapes", "from_yaml", "reconcile"]

Shapes = Mapping[str, tuple[int, ...]]
_ALONE = "the checkpoint is of the first stage alone"


@dataclass(frozen=True)
class FirstStage:
    """Encoder, codebook and decoder. attention: per level, finest first, whether it has attention blocks."""

    ch: int
    mult: tuple[int, ...]
    layers: int
    attention: tuple[bool, ...]
    z_channels: int
    embed_dim: int
    n_embed: int
    resolution: int = 256

    @property
    def stride(self) -> int:
        """Pixels per code along one side."""
        return 2 ** (len(self.mult) - 1)

    def config(self) -> dict[str, Any]:
        """For diffusers' VQModel."""
        down = ["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in self.attention]
        up = ["AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D" for attends in reversed(self.attention)]
        return {
            "down_block_types": down,
            "up_block_types": up,
            "block_out_channels": [self.ch * factor for factor in self.mult],
            "layers_per_block": self.layers,
            "latent_channels": self.z_channels,
            "vq_embed_dim": self.embed_dim,
            "num_vq_embeddings": self.n_embed,
            "sample_size": self.resolution,
            "norm_num_groups": 32,
            "norm_type": "group",
            "lookup_from_codebook": True,
            "scaling_factor": 1.0,
        }


@dataclass(frozen=True)
class Prior:
    """minGPT. start: the token in front of every sequence, in taming an ordinary code."""

    vocab: int
    length: int
    layers: int
    heads: int
    width: int
    start: int = 0

    def config(self) -> dict[str, Any]:
        """For transformers' GPT2Config. "gelu" is the exact one; GPT-2's own default is an approximation."""
        return {
            "vocab_size": self.vocab,
            "n_positions": self.length,
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "activation_function": "gelu",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": False,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": None,
            "eos_token_id": None,
            "start_token": self.start,
        }


@dataclass(frozen=True)
class Architecture:
    """A first stage, its prior if there is one, and why there is none if there is none."""

    first_stage: FirstStage
    prior: Prior | None = None
    without_prior: str = ""


FFHQ = Architecture(
    FirstStage(128, (1, 1, 2, 2, 4), 2, (False, False, False, False, True), 256, 256, 1024, 256),
    Prior(1024, 256, 24, 16, 1664),
)
"""2021-04-23T18-19-01_ffhq_transformer, the model of I-LoRA's Tables 2 and 5."""


def from_yaml(config: Any, where: Path | str) -> Architecture:
    """Of a project's configuration (plain data). Raises WeightsError for what this plugin cannot hold."""
    try:
        model = config["model"]
        given = model["params"]
        stage = given.get("first_stage_config", model)
        _require_plain(stage, where)
        first_stage = _stage(stage["params"])
        if "transformer_config" not in given:
            return Architecture(first_stage, None, _ALONE)
        if reason := _conditional(given):
            return Architecture(first_stage, None, reason)
        return Architecture(first_stage, _prior(given))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{where} is not the configuration of a VQGAN: {type(error).__name__}: {error}. Give the *-project.yaml that "
            "was published with the checkpoint, by --set generator.config=FILE."
        ) from error


def from_shapes(shapes: Shapes, where: Path | str) -> Architecture:
    """Of a checkpoint's tensors, by their names there (first_stage_model.* and transformer.*, or the first stage bare).

    heads is 0 where only a yaml can tell, and the resolution 256 where there is no prior.
    """
    whole = any(key.startswith("first_stage_model.") for key in shapes)
    stage = {k.removeprefix("first_stage_model."): v for k, v in shapes.items() if not k.startswith("transformer.")}
    try:
        first_stage = _stage_from_shapes(stage)
        prior = _prior_from_shapes(shapes) if whole and "transformer.tok_emb.weight" in shapes else None
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{where} does not hold a VQGAN as taming-transformers writes it: {error} is missing or has another shape. "
            "Is the file complete, and is it a VQGAN?"
        ) from error
    if prior is None:
        return Architecture(first_stage, None, _ALONE)
    if prior.vocab == FFHQ.first_stage.n_embed and replace(prior, heads=16) == FFHQ.prior:
        prior = replace(prior, heads=16)
    side = isqrt(prior.length)
    size = side * first_stage.stride if side * side == prior.length else first_stage.resolution
    return Architecture(replace(first_stage, resolution=size), prior)


def reconcile(said: Architecture, found: Architecture, where: Path | str) -> Architecture:
    """What the yaml says, once it agrees with the tensors. Raises WeightsError that names the first difference."""
    pairs: list[tuple[str, Any, Any]] = [("first stage", said.first_stage, found.first_stage)]
    if said.prior is not None and found.prior is not None:
        pairs.append(("prior", said.prior, found.prior))
    for part, one, other in pairs:
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if field.name not in ("resolution", "heads", "start") and a != b:
                raise WeightsError(
                    f"{where} says that the {part}'s {field.name} is {a}, but in the checkpoint it is {b}: the "
                    "configuration belongs to another model. Give its own with --set generator.config=FILE."
                )
    if found.prior is not None and said.without_prior == _ALONE:
        raise WeightsError(
            f"{where} describes a first stage alone, but the checkpoint holds a transformer, too. Give the transformer's own "
            "*-project.yaml with --set generator.config=FILE."
        )
    if said.prior is not None and found.prior is None:
        return replace(said, prior=None, without_prior=found.without_prior)
    return said


def _stage(params: Mapping[str, Any]) -> FirstStage:
    dd = params["ddconfig"]
    mult = tuple(int(factor) for factor in dd["ch_mult"])
    at = set(dd["attn_resolutions"])
    return FirstStage(
        ch=int(dd["ch"]),
        mult=mult,
        layers=int(dd["num_res_blocks"]),
        attention=tuple(dd["resolution"] // 2**level in at for level in range(len(mult))),
        z_channels=int(dd["z_channels"]),
        embed_dim=int(params["embed_dim"]),
        n_embed=int(params["n_embed"]),
        resolution=int(dd["resolution"]),
    )


def _require_plain(stage: Mapping[str, Any], where: Path | str) -> None:
    """Raise WeightsError for a first stage of another kind."""
    dd, target = stage["params"]["ddconfig"], str(stage.get("target", ""))
    odd = {
        "is a KL autoencoder or another codec, not a VQGAN": "VQModel" not in target and target != "",
        "is a GumbelVQ, whose codes are drawn otherwise": "Gumbel" in target,
        "has double_z": dd.get("double_z", False),
        "resamples without convolutions": not dd.get("resamp_with_conv", True),
        "reads or draws something else than three channels": (dd.get("in_channels", 3), dd.get("out_ch", 3)) != (3, 3),
        f"has attention of type {dd.get('attn_type')!r}": dd.get("attn_type", "vanilla") not in ("vanilla", "none"),
    }
    if reasons := [reason for reason, holds in odd.items() if holds]:
        raise WeightsError(f"{where}: the first stage {' and '.join(reasons)}, which ilora-vqgan cannot hold.")


def _conditional(given: Mapping[str, Any]) -> str:
    """Why a prior is not one over pictures alone; "" when it is."""
    condition = given.get("cond_stage_config", "__is_unconditional__")
    if condition != "__is_unconditional__":
        kind = condition.get("target", "?") if isinstance(condition, Mapping) else condition
        return f"its prior is conditional ({kind}) and cannot draw by itself"
    permuter = given.get("permuter_config") or {}
    if str(permuter.get("target", "Identity")).rpartition(".")[2] != "Identity":
        return f"its prior orders the codes by {permuter['target']}"
    return ""


def _prior(given: Mapping[str, Any]) -> Prior:
    params = given["transformer_config"]["params"]
    if params.get("n_unmasked", 0):
        raise ValueError("n_unmasked is set")
    return Prior(
        vocab=int(params["vocab_size"]),
        length=int(params["block_size"]),
        layers=int(params["n_layer"]),
        heads=int(params["n_head"]),
        width=int(params["n_embd"]),
        start=int(given.get("sos_token", 0)),
    )


def _stage_from_shapes(shapes: Shapes) -> FirstStage:
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    ch = shapes["encoder.conv_in.weight"][0]
    widths = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    n_embed, embed_dim = shapes["quantize.embedding.weight"]
    return FirstStage(
        ch=ch,
        mult=tuple(width // ch for width in widths),
        layers=_count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        attention=tuple(f"encoder.down.{i}.attn.0.q.weight" in shapes for i in range(levels)),
        z_channels=shapes["decoder.conv_in.weight"][1],
        embed_dim=embed_dim,
        n_embed=n_embed,
    )


def _prior_from_shapes(shapes: Shapes) -> Prior:
    vocab, width = shapes["transformer.tok_emb.weight"]
    length = shapes["transformer.pos_emb"][1]
    return Prior(vocab, length, _count(shapes, r"transformer\.blocks\.(\d+)\."), 0, width)


def _count(shapes: Shapes, pattern: str) -> int:
    """How many there are of something numbered."""
    numbers: Sequence[int] = [int(match[1]) for key in shapes if (match := re.match(pattern, key))]
    return max(numbers) + 1 if numbers else 0
