"""Albedo and shading labelers for ilora learnt from authored paradigms, and the classic references: cards only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_LICENCE = "Apache-2.0"
_MAPS = ("albedo", "shading")


@hookimpl
def ilora_labelers() -> Iterator[Card]:
    """`paradigms`, and three that need no weights."""
    yield Card(
        "paradigms",
        "Albedo and shading by a network that learnt from authored paradigms alone; weights included",
        _LICENCE,
        "ilora_paradigms.labeller:paradigms_labeler",
        "ilora_paradigms.labeller:tiny",
        intrinsics=_MAPS,
    )
    yield _classic("sqrt-split", "Albedo and shading by the square root of intensity; nothing learnt", "sqrt_labeler")
    yield _classic("retinex", "Albedo and shading by colour Retinex; nothing learnt", "retinex_labeler")
    yield _classic(
        "retinex-blend", "Albedo and shading by the mean of square root and Retinex; nothing learnt", "blend_labeler"
    )


def _classic(name: str, summary: str, factory: str) -> Card:
    path = f"ilora_paradigms.labeller:{factory}"
    return Card(name, summary, _LICENCE, path, path, intrinsics=_MAPS)
