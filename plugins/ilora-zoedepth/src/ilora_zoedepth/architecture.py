"""The sizes of a ZoeDepth: as published, as a checkpoint's tensors tell them, and as transformers' config.

    core   MiDaS 3.1: a BEiT (patch 16, relative positions) under a DPT neck
    heads  metric bins per pixel: N one head of 64 softplus bins to 10 m, K one of 64 normed bins to 80 m, NK one of each
           kind of place (softplus bins, 10 m and 80 m) and a small transformer that chooses between them

ZoeDepth: Bhat et al. 2023 (arXiv 2302.12288).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilora_core.errors import WeightsError

__all__ = ["FAR_M", "VARIANTS", "Architecture", "from_shapes", "variant_of"]

VARIANTS = ("nk", "n", "k")
FAR_M = {"n": 10.0, "k": 80.0}
"""Where a variant's range ends, in metres. N's bins are softplus and only start from it; K's are bounded by it."""

_NEAR_M = 1e-3
_PATCH = 16
_VIT = "core.core.pretrained.model."


@dataclass(frozen=True)
class Architecture:
    """Sizes; the defaults are those of all three published checkpoints, apart from `variant`.

    image      side in pixels that the table of relative positions was made for
    neck       channels of the four levels that leave the BEiT
    fusion     channels inside the DPT neck; bottleneck: of what enters the metric head
    relative   channels of the relative head's last layer; attractors: per level, of N and K
    """

    variant: str = "n"
    image: int = 384
    layers: int = 24
    width: int = 1024
    hidden: int = 4096
    heads: int = 16
    neck: tuple[int, ...] = (256, 512, 1024, 1024)
    fusion: int = 256
    bottleneck: int = 256
    relative: int = 32
    attractors: tuple[int, ...] = (16, 8, 4, 1)
    bins: int = 64
    embedding: int = 128

    def config(self) -> dict[str, Any]:
        """Keyword arguments of transformers' ZoeDepthConfig."""
        router = {
            "num_patch_transformer_layers": 4,
            "patch_transformer_hidden_size": 128,
            "patch_transformer_intermediate_size": 1024,
            "patch_transformer_num_attention_heads": 4,
        }
        return {
            "backbone_config": self._backbone(),
            "neck_hidden_sizes": list(self.neck),
            "fusion_hidden_size": self.fusion,
            "bottleneck_features": self.bottleneck,
            "num_relative_features": self.relative,
            "num_attractors": list(self.attractors),
            "bin_embedding_dim": self.embedding,
            "bin_centers_type": "normed" if self.variant == "k" else "softplus",
            "bin_configurations": self._bin_configurations(),
            **(router if self.variant == "nk" else {}),
        }

    def _backbone(self) -> dict[str, Any]:
        return {
            "model_type": "beit",
            "image_size": self.image,
            "patch_size": _PATCH,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_attention_heads": self.heads,
            "use_relative_position_bias": True,
            "reshape_hidden_states": False,
            "layer_norm_eps": 1e-6,  # the official network's; transformers' default of 1e-12 costs 4e-5
            "out_features": [f"stage{self.layers * quarter // 4}" for quarter in (1, 2, 3, 4)],
        }

    def _bin_configurations(self) -> list[dict[str, Any]]:
        if self.variant != "nk":
            return [{"n_bins": self.bins, "min_depth": _NEAR_M, "max_depth": FAR_M[self.variant]}]
        ranges = (("nyu", FAR_M["n"]), ("kitti", FAR_M["k"]))
        return [{"name": name, "n_bins": self.bins, "min_depth": _NEAR_M, "max_depth": far} for name, far in ranges]


def from_shapes(shapes: Mapping[str, tuple[int, ...]], where: object) -> Architecture:
    """The architecture of an official checkpoint, from its tensors' names and shapes. where: for the error's text.

    Raises WeightsError when these are not the tensors of a ZoeDepth on a BEiT.
    """
    try:
        return _read(shapes)
    except KeyError as error:
        raise WeightsError(
            f"{where} is no ZoeDepth: it has no tensor {error.args[0]!r}. Expected is an official ZoeD_M12_N.pt, "
            "ZoeD_M12_K.pt or ZoeD_M12_NK.pt."
        ) from error


def variant_of(config: Any) -> str:
    """Which of VARIANTS it is, from transformers' ZoeDepthConfig."""
    if len(config.bin_configurations) > 1:
        return "nk"
    return "k" if config.bin_centers_type == "normed" else "n"


def _read(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    width = shapes[f"{_VIT}patch_embed.proj.weight"][0]
    table, heads = shapes[f"{_VIT}blocks.0.attn.relative_position_bias_table"]
    router = any(key.startswith("patch_transformer.") for key in shapes)
    attractors = [] if router else [shapes[f"attractors.{i}._net.2.weight"][0] for i in range(4)]
    # A normed attractor has two numbers where a softplus one has one; the last level has one attractor.
    variant = "nk" if router else "k" if attractors[-1] == 2 else "n"
    per_attractor = 2 if variant == "k" else 1
    head = "seed_bin_regressors.nyu" if router else "seed_bin_regressor"
    return Architecture(
        variant=variant,
        image=_PATCH * round(((table - 3) ** 0.5 + 1) / 2),  # (2 g − 1)² + 3 entries for a grid of g × g patches
        layers=1 + max(int(key[len(_VIT) :].split(".")[1]) for key in shapes if key.startswith(f"{_VIT}blocks.")),
        width=width,
        hidden=shapes[f"{_VIT}blocks.0.mlp.fc1.weight"][0],
        heads=heads,
        neck=tuple(shapes[f"core.core.scratch.layer{i}_rn.weight"][1] for i in (1, 2, 3, 4)),
        fusion=shapes["core.core.scratch.layer1_rn.weight"][0],
        bottleneck=shapes["conv2.weight"][0],
        relative=shapes["core.core.scratch.output_conv.2.weight"][0],
        attractors=tuple(rows // per_attractor for rows in attractors) or Architecture.attractors,
        bins=shapes[f"{head}._net.2.weight"][0],
        embedding=shapes["projectors.0._net.2.weight"][0],
    )
