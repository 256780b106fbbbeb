"""Procedural rooms with exact maps, small generators trained to draw them, and a labeler: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_LICENCE = "Apache-2.0"

ILORA_KNOWN_FAILURES = {
    "rooms-samples:check_normals_agree_with_depth": "its maps are a network's opinions of samples, not one geometry",
}


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """Stable Diffusion's layout in miniature, in one step and in many, a GAN and a VQGAN; weights in this package."""
    yield Card(
        "rooms",
        "A 5 M parameter latent diffusion model that draws 64² rooms; weights included",
        _LICENCE,
        "ilora_rooms.generator:rooms",
        "ilora_rooms.generator:tiny",
        skeleton="ilora_rooms.generator:skeleton",
    )
    for name, summary, tiny, options in (
        ("rooms-aug", "The rooms model with a picture beside its latent, in many steps; weights included", "tiny", {}),
        (
            "rooms-sdedit",
            "The same by SDEdit, without seeing the picture",
            "tiny_blind",
            {"blind": True, "strength": 0.5},
        ),
    ):
        yield Card(
            name,
            summary,
            _LICENCE,
            "ilora_rooms.aug:augmented",
            f"ilora_rooms.aug:{tiny}",
            options=options,
            skeleton="ilora_rooms.aug:skeleton",
        )
    yield Card(
        "rooms-stylegan2",
        "A small StyleGAN2 that draws 64² rooms; weights included",
        _LICENCE,
        "ilora_rooms.gan:stylegan2",
        "ilora_stylegan.factories:tiny",
        skeleton="ilora_rooms.gan:skeleton",
    )
    yield Card(
        "rooms-vqgan",
        "A small VQGAN with its transformer prior that draws 64² rooms; weights included",
        _LICENCE,
        "ilora_rooms.vqgan:vqgan",
        "ilora_vqgan.factories:tiny",
        skeleton="ilora_rooms.vqgan:skeleton",
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
    yield Card(
        "rooms-samples",
        "Samples of a rooms generator with the rooms labeller's maps",
        _LICENCE,
        "ilora_rooms.samples:rooms_samples",
        "ilora_rooms.samples:tiny",
        intrinsics=("normals", "depth", "albedo", "shading"),
    )


@hookimpl
def ilora_labelers() -> Iterator[Card]:
    """`rooms`: all four maps in one pass, weights in this package."""
    yield Card(
        "rooms",
        "Normals, depth, albedo and shading of rooms, learnt from exact maps; weights included",
        _LICENCE,
        "ilora_rooms.labeller:labeler",
        "ilora_rooms.labeller:tiny",
        intrinsics=("normals", "depth", "albedo", "shading"),
    )
