"""Names of an official ZoeDepth checkpoint -> the names that transformers' ZoeDepth has on disk.

Most are renamed one to one. Two kinds are cut in three, since transformers keeps query, key and value apart: the BEiT's
`qkv.weight`, and `in_proj_…` of NK's transformer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["to_disk"]

_DROPPED = re.compile(
    r"(\.relative_position_index|\.k_idx|\.K_minus_1)$"  # follow from the configuration
    r"|^core\.core\.pretrained\.model\.(head|fc_norm|norm)\."  # of the classifier that the BEiT once was
)
_THIRDS = ("query", "key", "value")
_BLOCK = r"core\.core\.pretrained\.model\.blocks\.(\d+)\."
_LAYER = r"backbone.encoder.layer.\1."
_POST = r"core\.core\.pretrained\.act_postprocess([1-4])\."
_REFINE = r"core\.core\.scratch\.refinenet([1-4])\."
_RULES: tuple[tuple[str, str], ...] = (
    (r"core\.core\.pretrained\.model\.cls_token", "backbone.embeddings.cls_token"),
    (r"core\.core\.pretrained\.model\.patch_embed\.proj", "backbone.embeddings.patch_embeddings.projection"),
    (_BLOCK + r"gamma_([12])", _LAYER + r"lambda_\2"),
    (_BLOCK + r"norm1", _LAYER + "layernorm_before"),
    (_BLOCK + r"norm2", _LAYER + "layernorm_after"),
    (_BLOCK + r"attn\.q_bias", _LAYER + "attention.attention.query.bias"),
    (_BLOCK + r"attn\.v_bias", _LAYER + "attention.attention.value.bias"),
    (_BLOCK + r"attn\.proj", _LAYER + "attention.output.dense"),
    (
        _BLOCK + r"attn\.relative_position_bias_table",
        _LAYER + "attention.attention.relative_position_bias.relative_position_bias_table",
    ),
    (_BLOCK + r"attn\.qkv\.", _LAYER + "attention.attention.{third}."),
    (_BLOCK + r"mlp\.fc1", _LAYER + "intermediate.dense"),
    (_BLOCK + r"mlp\.fc2", _LAYER + "output.dense"),
    (_POST + r"0\.project\.0", "neck.reassemble_stage.readout_projects.{below}.0"),
    (_POST + r"3", "neck.reassemble_stage.layers.{below}.projection"),
    (_POST + r"4", "neck.reassemble_stage.layers.{below}.resize"),
    (r"core\.core\.scratch\.layer([1-4])_rn", "neck.convs.{below}"),
    (_REFINE + r"out_conv", "neck.fusion_stage.layers.{mirrored}.projection"),
    (
        _REFINE + r"resConfUnit([12])\.conv([12])",
        r"neck.fusion_stage.layers.{mirrored}.residual_layer\2.convolution\3",
    ),
    (r"core\.core\.scratch\.output_conv\.0", "relative_head.conv1"),
    (r"core\.core\.scratch\.output_conv\.2", "relative_head.conv2"),
    (r"core\.core\.scratch\.output_conv\.4", "relative_head.conv3"),
    (r"mlp_classifier\.0", "metric_head.mlp_classifier.linear1"),
    (r"mlp_classifier\.2", "metric_head.mlp_classifier.linear2"),
    (
        r"patch_transformer\.transformer_encoder\.layers\.(\d+)\.self_attn\.in_proj_",
        r"metric_head.patch_transformer.transformer_encoder.\1.self_attn.{third}.",
    ),
    (r"patch_transformer\.transformer_encoder\.layers\.", "metric_head.patch_transformer.transformer_encoder."),
    (r"patch_transformer\.", "metric_head.patch_transformer."),
    (r"((?:seed_bin_regressors?|seed_projector|projectors|attractors)\b.*)\._net\.0", r"metric_head.\1.conv1"),
    (r"((?:seed_bin_regressors?|seed_projector|projectors|attractors)\b.*)\._net\.2", r"metric_head.\1.conv2"),
    (r"conditional_log_binomial\.", "metric_head.conditional_log_binomial."),
    (r"conv2\.", "metric_head.conv2."),
)
_COMPILED = tuple((re.compile(pattern), name) for pattern, name in _RULES)


def to_disk(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by transformers' names on disk, official names that no rule knows)."""
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        if _DROPPED.search(key):
            continue
        name = _rename(key)
        if name is None:
            unknown.append(key)
        elif "{third}" in name:
            found.update({name.format(third=t): part for t, part in zip(_THIRDS, value.chunk(3), strict=True)})
        else:
            found[name] = value
    return found, unknown


def _rename(key: str) -> str | None:
    for pattern, name in _COMPILED:
        if match := pattern.match(key):
            if (
                "{below}" in name or "{mirrored}" in name
            ):  # official levels count from 1, and the neck runs from the last
                level = int(match.group(1))
                name = name.format(below=level - 1, mirrored=4 - level)
            return match.expand(name) + key[match.end() :]
    return None
