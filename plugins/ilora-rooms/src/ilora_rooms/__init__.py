"""Procedural rooms with exact maps, and a small latent diffusion model trained to draw them: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_LICENCE = "Apache-2.0"


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """`rooms`: Stable Diffusion's layout in miniature, weights in this package."""
    yield Card(
        "rooms",
        "A 5 M parameter latent diffusion model that draws 64² rooms; weights included",
        _LICENCE,
        "ilora_rooms.generator:rooms",
        "ilora_rooms.generator:tiny",
        skeleton="ilora_rooms.generator:skeleton",
    )


@hookimpl
def ilora_sources() -> Iterator[Card]:
    """`rooms`: pictures with exact normals, depth, albedo and shading."""
    yield Card(
        "rooms",
        "Rendered rooms with exact normals, depth, albedo and shading",
        _LICENCE,
        "ilora_rooms.source:RoomsSource",
        "ilora_rooms.source:tiny",
        intrinsics=("normals", "depth", "albedo", "shading"),
    )
