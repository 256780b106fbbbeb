"""How Marigold's labelers are made: from weights, or tiny at random."""

from __future__ import annotations

from typing import Any

from ilora_core.errors import ConfigError, WeightsError
from ilora_marigold.borders import DepthBorder, IntrinsicsBorder, NormalsBorder
from ilora_marigold.hub import PIPELINE, find_weights
from ilora_marigold.labeler import MarigoldLabeler
from ilora_marigold.miniature import tiny_pipeline
from ilora_marigold.pipelines import load_pipeline

__all__ = ["marigold_depth", "marigold_iid", "marigold_normals", "tiny_depth", "tiny_iid", "tiny_normals"]

_VARIANTS = ("lighting", "appearance")
_LINEAR = {"prediction_space": "linear", "up_to_scale": False}
_SCALED = {"prediction_space": "linear", "up_to_scale": True}
TARGETS: dict[str, dict[str, Any]] = {
    "lighting": {
        "target_names": ["albedo", "shading", "residual"],
        "albedo": _LINEAR,
        "shading": _SCALED,
        "residual": _SCALED,
    },
    "appearance": {
        "target_names": ["albedo", "material"],
        "albedo": {"prediction_space": "srgb"},
        "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    },
}
"""`target_properties` of both variants, for the miniatures; real weights bring their own."""


def marigold_depth(
    *,
    weights: str = "",
    steps: int | None = None,
    ensemble: int = 1,
    seed: int = 0,
    resolution: int | None = None,
    revision: str | None = None,
    local_only: bool = False,
) -> MarigoldLabeler:
    """Affine depth. weights: "" = the registry's, a hub id or a diffusers folder; see MarigoldLabeler for the others."""
    from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

    if ensemble > 1:
        import scipy.optimize  # noqa: F401  (diffusers aligns an ensemble's depths with it)
    folder, served = find_weights(weights or "marigold-depth", PIPELINE, revision=revision, local_only=local_only)
    pipe = load_pipeline(MarigoldDepthPipeline, folder)
    if not (pipe.scale_invariant and pipe.shift_invariant):
        raise WeightsError(f"{folder} gives depth that is not affine; marigold-depth reads affine-invariant weights.")
    return MarigoldLabeler(
        pipe, DepthBorder(), steps=steps, ensemble=ensemble, seed=seed, resolution=resolution, facts=served
    )


def marigold_normals(
    *,
    weights: str = "",
    steps: int | None = None,
    ensemble: int = 1,
    seed: int = 0,
    resolution: int | None = None,
    revision: str | None = None,
    local_only: bool = False,
) -> MarigoldLabeler:
    """Normals. The settings are those of `marigold_depth`."""
    from diffusers.pipelines.marigold.pipeline_marigold_normals import MarigoldNormalsPipeline

    folder, served = find_weights(weights or "marigold-normals", PIPELINE, revision=revision, local_only=local_only)
    pipe = load_pipeline(MarigoldNormalsPipeline, folder)
    return MarigoldLabeler(
        pipe, NormalsBorder(), steps=steps, ensemble=ensemble, seed=seed, resolution=resolution, facts=served
    )


def marigold_iid(
    *,
    variant: str = "lighting",
    weights: str = "",
    steps: int | None = None,
    ensemble: int = 1,
    seed: int = 0,
    resolution: int | None = None,
    revision: str | None = None,
    local_only: bool = False,
) -> MarigoldLabeler:
    """Albedo and shading (variant "lighting"), or albedo alone ("appearance").

    The variant names published weights; weights of your own say themselves what they give. The other settings are those of
    `marigold_depth`.
    """
    from diffusers.pipelines.marigold.pipeline_marigold_intrinsics import MarigoldIntrinsicsPipeline

    if variant not in _VARIANTS:
        raise ConfigError(f"labeler.variant is one of {', '.join(_VARIANTS)}, not {variant!r}.")
    name = weights or f"marigold-iid-{variant}"
    folder, served = find_weights(name, PIPELINE, revision=revision, local_only=local_only)
    pipe = load_pipeline(MarigoldIntrinsicsPipeline, folder)
    border = IntrinsicsBorder(pipe.target_properties or {})
    return MarigoldLabeler(pipe, border, steps=steps, ensemble=ensemble, seed=seed, resolution=resolution, facts=served)


def tiny_depth(*, ensemble: int = 1) -> MarigoldLabeler:
    """Random weights, CPU, under a second: for tests and the conformance checks."""
    from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

    return MarigoldLabeler(tiny_pipeline(MarigoldDepthPipeline, "depth"), DepthBorder(), ensemble=ensemble)


def tiny_normals() -> MarigoldLabeler:
    """As `tiny_depth`."""
    from diffusers.pipelines.marigold.pipeline_marigold_normals import MarigoldNormalsPipeline

    return MarigoldLabeler(tiny_pipeline(MarigoldNormalsPipeline, "normals"), NormalsBorder())


def tiny_iid(*, variant: str = "lighting") -> MarigoldLabeler:
    """As `tiny_depth`."""
    from diffusers.pipelines.marigold.pipeline_marigold_intrinsics import MarigoldIntrinsicsPipeline

    properties = TARGETS[variant]
    targets = len(properties["target_names"])
    pipe = tiny_pipeline(MarigoldIntrinsicsPipeline, "intrinsics", targets=targets, target_properties=properties)
    return MarigoldLabeler(pipe, IntrinsicsBorder(properties))
