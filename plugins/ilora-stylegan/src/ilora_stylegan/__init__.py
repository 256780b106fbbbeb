"""StyleGAN2, StyleGAN3 and StyleGAN-XL as intrinsic generators: cards and hooks only."""

from collections.abc import Iterator, Mapping

from ilora_core import Card, hookimpl

_NVIDIA = "NVIDIA Source Code License (non-commercial)"
_FILE = "that of the checkpoint you give; NVIDIA's are non-commercial"
_NAMED = (
    ("stylegan2-ffhq", "stylegan2", "stylegan2-256", "tiny", _NVIDIA, "StyleGAN2, FFHQ 256²: the paper's"),
    (
        "stylegan2-bedroom",
        "stylegan2",
        "stylegan2-256",
        "tiny",
        "non-commercial: trained with NVIDIA's code (Diffusion-GAN's authors)",
        "StyleGAN2, LSUN bedroom 256²: a public stand-in for the paper's private one",
    ),
    ("styleganxl-ffhq", "stylegan3", "styleganxl-ffhq-256", "tiny_xl", _NVIDIA, "StyleGAN-XL, FFHQ 256²: the paper's"),
    (
        "styleganxl-imagenet",
        "stylegan3",
        "styleganxl-imagenet-256",
        "tiny_xl",
        _NVIDIA,
        "StyleGAN-XL, ImageNet 256², 1,000 classes: the paper's",
    ),
)
_GENERIC = (
    ("stylegan2", "stylegan2", "stylegan2-256", "tiny", "Any StyleGAN2"),
    ("stylegan3", "stylegan3", "stylegan3-t-256", "tiny3", "Any StyleGAN3"),
    ("styleganxl", "stylegan3", "styleganxl-ffhq-256", "tiny_xl", "Any StyleGAN-XL"),
)


@hookimpl
def ilora_generators() -> Iterator[Card]:
    """The paper's four networks, and one card per family for any other checkpoint."""
    for name, family, architecture, tiny, licence, summary in _NAMED:
        options = {"weights": name, "family": family, "architecture": architecture}
        yield _card(name, summary, licence, tiny, options)
    for name, family, architecture, tiny, summary in _GENERIC:
        options = {"family": family, "architecture": architecture}
        yield _card(name, f"{summary}: --set generator.weights=FILE.pkl|FILE.pt|FOLDER", _FILE, tiny, options)


def _card(name: str, summary: str, licence: str, tiny: str, options: Mapping[str, object]) -> Card:
    return Card(
        name,
        summary,
        licence,
        "ilora_stylegan.factories:stylegan",
        f"ilora_stylegan.factories:{tiny}",
        options=options,
        skeleton="ilora_stylegan.factories:skeleton",
        convert="ilora_stylegan.factories:convert",
    )
