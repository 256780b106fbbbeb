"""Stable Diffusion 1.x and 2.x as one-step intrinsic generators: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_RAIL = "CreativeML-OpenRAIL-M"
_MODELS = (
    ("sd15", "sd1", _RAIL, "Stable Diffusion 1.5: the paper's single-step model"),
    ("sd11", "sd1", _RAIL, "Stable Diffusion 1.1, for the quality curve"),
    ("sd12", "sd1", _RAIL, "Stable Diffusion 1.2, for the quality curve"),
    ("sd14", "sd1", _RAIL, "Stable Diffusion 1.4"),
    ("sd21", "sd2", "CreativeML-OpenRAIL++-M", "Stable Diffusion 2.1 (768, v-prediction), single step"),
    ("sd21-base", "sd2", "CreativeML-OpenRAIL++-M", "Stable Diffusion 2.1 base (512), single step"),
    ("sd-turbo", "sd2", "Stability AI Community", "SD-Turbo, single step"),
)
_NATIVE = {"sd21": {"resolution": 768}}  # the others were made for 512


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """One card per set of weights, and `sd` for any others of the family."""
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
