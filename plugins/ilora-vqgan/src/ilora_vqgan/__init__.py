"""VQGAN with its transformer prior as an intrinsic generator: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """The paper's FFHQ model, and `vqgan` for any other of the family."""
    yield _card(
        "vqgan-ffhq",
        "VQGAN, FFHQ 256², with its transformer prior: the paper's",
        "MIT code (taming-transformers); the pictures it was trained on, FFHQ, are non-commercial",
        {"weights": "vqgan-ffhq"},
    )
    yield _card(
        "vqgan",
        "Any VQGAN: --set generator.weights=FILE.ckpt|FOLDER|HUB_ID",
        "that of the weights you give",
        {},
    )


def _card(name: str, summary: str, licence: str, options: dict[str, object]) -> Card:
    return Card(
        name,
        summary,
        licence,
        "ilora_vqgan.factories:vqgan",
        "ilora_vqgan.factories:tiny",
        options=options,
        skeleton="ilora_vqgan.factories:skeleton",
        convert="ilora_vqgan.loading:convert",
    )
