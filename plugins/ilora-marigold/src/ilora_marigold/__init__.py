"""Marigold's and Depth Anything's networks as labelers for ilora: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_MARIGOLD = "CreativeML-OpenRAIL++-M"


@hookimpl
def ilora_labelers() -> Iterator[Card]:
    """Marigold's three tasks, and Depth Anything V2 in all sizes and kinds."""
    yield Card(
        "marigold-depth",
        "Marigold v1-1: depth up to scale and shift, by diffusion",
        _MARIGOLD,
        "ilora_marigold.factories:marigold_depth",
        "ilora_marigold.factories:tiny_depth",
        intrinsics=("depth",),
    )
    yield Card(
        "marigold-normals",
        "Marigold v1-1: surface normals, by diffusion",
        _MARIGOLD,
        "ilora_marigold.factories:marigold_normals",
        "ilora_marigold.factories:tiny_normals",
        intrinsics=("normals",),
    )
    yield Card(
        "marigold-iid",
        "Marigold v1-1: albedo and shading, by diffusion. variant=appearance gives albedo alone",
        _MARIGOLD,
        "ilora_marigold.factories:marigold_iid",
        "ilora_marigold.factories:tiny_iid",
        intrinsics=("albedo", "shading"),
    )
    yield Card(
        "depth-anything-v2",
        "Depth Anything V2: disparity up to scale and shift; kind=metric-indoor or metric-outdoor: metres",
        "Apache-2.0 (variant=small); CC-BY-NC-4.0 (base and large)",
        "ilora_marigold.depth_anything:depth_anything_v2",
        "ilora_marigold.depth_anything:tiny",
        intrinsics=("depth",),
    )
