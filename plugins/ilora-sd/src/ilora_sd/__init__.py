"""Stable Diffusion 1.x to 3, SDXL and FLUX.1 as intrinsic generators, in one step or in many: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_RAIL, _RAIL_PP = "CreativeML-OpenRAIL-M", "CreativeML-OpenRAIL++-M"
_MODELS = (
    ("sd15", "sd1", _RAIL, "Stable Diffusion 1.5: the paper's single-step model"),
    ("sd11", "sd1", _RAIL, "Stable Diffusion 1.1, for the quality curve"),
    ("sd12", "sd1", _RAIL, "Stable Diffusion 1.2, for the quality curve"),
    ("sd14", "sd1", _RAIL, "Stable Diffusion 1.4"),
    ("sd21", "sd2", _RAIL_PP, "Stable Diffusion 2.1 (768, v-prediction), single step"),
    ("sd21-base", "sd2", _RAIL_PP, "Stable Diffusion 2.1 base (512), single step"),
    ("sd-turbo", "sd2", "Stability AI Community", "SD-Turbo, single step"),
)
_NATIVE = {"sd21": {"resolution": 768}}  # the others were made for 512
_AUGMENTED = (
    ("sd21-aug", "sd21", "sd2", _RAIL_PP, "Stable Diffusion 2.1 in many steps: the paper's AUG"),
    ("sd15-aug", "sd15", "sd1", _RAIL, "Stable Diffusion 1.5 in many steps"),
)
_BLIND = (
    (
        "sd21-sdedit",
        "sd21",
        "sd2",
        _RAIL_PP,
        "Stable Diffusion 2.1 in many steps, by SDEdit: what AUG is compared with",
    ),
    ("sd15-sdedit", "sd15", "sd1", _RAIL, "Stable Diffusion 1.5 in many steps, by SDEdit"),
)
_LARGE = (
    ("sdxl", "sdxl", 1024, _RAIL_PP, "SDXL 1.0 base, single step"),
    ("sdxl-turbo", "sdxl", 512, "Stability AI Non-Commercial Research Community", "SDXL-Turbo, single step"),
    ("sd3-medium", "sd3", 1024, "Stability AI Community", "Stable Diffusion 3 medium, a transformer, single step"),
)
_FLUX = (
    ("flux1-dev", "FLUX.1 [dev] Non-Commercial", "FLUX.1 [dev], a transformer of 12 billion parameters, single step"),
    ("flux1-schnell", "Apache-2.0", "FLUX.1 [schnell], as large as [dev] and without guidance, single step"),
)


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """One card per set of weights, and `sd` for any others of the first two generations."""
    yield from _first_generations()
    yield from _augmented()
    yield from _blind()
    yield from _large()
    yield from _flux()


@hookimpl
def ilora_adapters() -> Iterator[Card]:
    """The paper's trainable alternatives to LoRA: every network stays frozen, what it is told is learnt."""
    for name, summary in (
        ("textual-inversion", "Embeddings of new prompt tokens, before the frozen text encoder (adapter.tokens)"),
        ("visii", "The prompt's embedding itself, after the text encoder: VISII without its CLIP loss"),
    ):
        word = name.replace("-", "_")
        kind = "".join(part.capitalize() for part in name.split("-"))
        yield Card(
            name,
            summary,
            "Apache-2.0",
            f"ilora_sd.instructions:{kind}",
            f"ilora_sd.instructions:tiny_{word}",
            adopts="ilora_sd.factories:tiny",
        )


def _first_generations() -> Iterator[Card]:
    for name, architecture, licence, summary in _MODELS:
        yield Card(
            name,
            summary,
            licence,
            "ilora_sd.factories:stable_diffusion",
            "ilora_sd.factories:tiny",
            options={"weights": name, "architecture": architecture, **_NATIVE.get(name, {})},
            skeleton="ilora_sd.factories:skeleton",
        )
    yield Card(
        "sd",
        "Any SD 1.x/2.x weights: --set generator.weights=HUB_ID|FOLDER|FILE",
        "that of the weights you give",
        "ilora_sd.factories:stable_diffusion",
        "ilora_sd.factories:tiny",
        skeleton="ilora_sd.factories:skeleton",
    )


def _augmented() -> Iterator[Card]:
    for name, weights, architecture, licence, summary in _AUGMENTED:
        yield Card(
            name,
            summary,
            f"{licence}, and that of InstructPix2Pix for the channels that read the picture",
            "ilora_sd.factories:augmented",
            "ilora_sd.factories:tiny_augmented",
            options={"weights": weights, "architecture": architecture, "image_weights": "instruct-pix2pix"},
            skeleton="ilora_sd.factories:augmented_skeleton",
        )


def _blind() -> Iterator[Card]:
    for name, weights, architecture, licence, summary in _BLIND:
        yield Card(
            name,
            summary,
            licence,
            "ilora_sd.factories:augmented",
            "ilora_sd.factories:tiny_blind",
            options={"weights": weights, "architecture": architecture, "blind": True, "strength": 0.5},
            skeleton="ilora_sd.factories:augmented_skeleton",
        )


def _large() -> Iterator[Card]:
    for name, family, resolution, licence, summary in _LARGE:
        yield Card(
            name,
            summary,
            licence,
            f"ilora_sd.factories_large:{family}",
            f"ilora_sd.factories_large:tiny_{family}",
            options={"weights": name, "resolution": resolution},
            skeleton=f"ilora_sd.factories_large:{family}_skeleton",
        )


def _flux() -> Iterator[Card]:
    for name, licence, summary in _FLUX:
        yield Card(
            name,
            summary,
            licence,
            "ilora_sd.factories_flux:flux",
            f"ilora_sd.factories_flux:{'tiny_flux1' if name == 'flux1-dev' else 'tiny_flux1_schnell'}",
            options={"weights": name, "architecture": name, "resolution": 1024},
            skeleton="ilora_sd.factories_flux:flux_skeleton",
        )
