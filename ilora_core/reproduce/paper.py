"""The paper's own world: Stable Diffusion, StyleGAN2 and -XL, VQGAN, pseudo-labels by Omnidata, ZoeDepth and Paradigms, DIODE.

It needs the published weights, DIODE (`--data`) and a GPU. Rates, batches and steps are the paper's (Table 5, text); the rates
of full fine-tuning, a tenth of the adapter's, and of the alternatives to LoRA are ours, since none are stated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ilora_core.errors import ConfigError
from ilora_core.reproduce.world import UNET_LAYERS, Family, Quality, World

__all__ = ["COUNTS", "world"]

_LABELERS = {"normals": "omnidata-normal", "depth": "zoedepth", "albedo": "paradigms", "shading": "paradigms"}
_UNKNOWN = {"albedo": "", "shading": ""}  # DIODE has no truth of them: agreement with the labeler on held-out pictures

COUNTS = (
    ("VQGAN, FFHQ", "vqgan-ffhq"),
    ("StyleGAN2, FFHQ", "stylegan2-ffhq"),
    ("StyleGAN2, bedroom", "stylegan2-bedroom"),
    ("StyleGAN-XL, FFHQ", "styleganxl-ffhq"),
    ("StyleGAN-XL, ImageNet", "styleganxl-imagenet"),
    ("Stable Diffusion 1.5", "sd15"),
    ("Stable Diffusion 2.1, many steps", "sd21-aug"),
)
"""The paper's generators, by name and card."""


def world(*, quick: bool, data: str, device: str) -> World:
    """data: DIODE's folder. Raises ConfigError without it."""
    if not data:
        raise ConfigError(
            "the world 'paper' learns from DIODE: give its folder with --data FOLDER (see plugins/ilora-diode)."
        )
    root = str(Path(data).expanduser().resolve())
    tested = 50 if quick else 0
    common = {"preset": "none", "runtime.device": device or "auto", "runtime.precision": "fp32"}

    def train(steps: int, batch: int) -> dict[str, Any]:
        return {**common, "train.steps": 1_000 if quick else steps, "train.batch": batch}

    def photographs(name: str, card: str, steps: int) -> Family:
        settings = {"generator": card, "source": "diode", "source.root": root}
        test = f"diode:val:root={root}{f':{tested}' if tested else ''}"
        return Family(name, settings, "limit", test, train(steps, 4), {"lora": 1e-4, "full": 1e-5}, _LABELERS, _UNKNOWN)

    def samples(name: str, card: str) -> Family:
        rates = {"lora": 1e-3, "full": 1e-4}
        return Family(
            name, {"generator": card}, "samples", f"samples:{tested or 500}", train(4_000, 1), rates, _LABELERS
        )

    sd15 = photographs("Stable Diffusion 1.5", "sd15", 15_000)
    versions = {card: {"generator": card} for card in ("sd11", "sd12", "sd15", "sd21", "sd-turbo")}
    many = photographs("SD 2.1, many steps", "sd21-aug", 30_000)
    return World(
        "paper",
        "The paper's generators, labelers and DIODE. The bedroom StyleGAN2 is a public stand-in, Paradigms our own in its style.",
        quick,
        (
            sd15,
            samples("StyleGAN2, FFHQ", "stylegan2-ffhq"),
            samples("StyleGAN2, bedroom", "stylegan2-bedroom"),
            samples("StyleGAN-XL, FFHQ", "styleganxl-ffhq"),
            samples("StyleGAN-XL, ImageNet", "styleganxl-imagenet"),
            samples("VQGAN, FFHQ", "vqgan-ffhq"),
        ),
        usual=250 if quick else 4_000,
        labels=(250, 1_000) if quick else (250, 1_000, 4_000, 16_000),
        seeds=(0,) if quick else (0, 1, 2),
        ranks=(2, 8) if quick else (1, 2, 4, 8, 16, 32),
        validation=16,
        layers=UNET_LAYERS,
        many=many,
        sdedit=photographs("SD 2.1, SDEdit", "sd21-sdedit", 30_000),
        steps=(1, 25) if quick else (1, 2, 5, 10, 25),
        guidance=(1.0, 3.0) if quick else (1.0, 2.0, 3.0, 5.0, 7.0),
        strengths=(0.5, 0.9) if quick else (0.3, 0.5, 0.7, 0.9),
        quality=Quality(sd15, {"random weights": {"generator": "sd15", "generator.random_unet": True}, **versions}),
        judges={"normals": "omnidata-normal", "depth": "zoedepth"},
        prompts={"normals": "turn it into a surface normal map"},
        others={
            "textual inversion": {"adapter": "textual-inversion", "train.lr": 5e-3},
            "VISII-like": {"adapter": "visii", "train.lr": 1e-3},
            "DoRA, rank 8": {"adapter": "dora", "train.lr": 1e-4},
            "LoHa, rank 4": {"adapter": "loha", "adapter.rank": 4, "train.lr": 1e-4},
        },
        others_many={"VISII-like on AUG": {"adapter": "visii", "train.lr": 1e-3}},
        lengths=(500, 1_000) if quick else (1_500, 15_000),
        counts=COUNTS,
        notes=(
            "Pseudo-labels to learn from. Judged by DIODE's scanner; by agreement with the labeler where that has no truth.",
        ),
        device=device or "auto",
    )
