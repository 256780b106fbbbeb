"""The rooms world for `ilora reproduce`: no download, exact truth, minutes on a CPU.

Diffusion model and VQGAN learn from rooms with exact maps and are judged on others. The GAN has no encoder: it learns from its
own samples, labelled by the rooms labeler, and is judged by agreement with it on other samples. Rates were chosen on held-out
label rooms by 120 steps (LoRA on GAN and VQGAN among 1e-2 and 3e-2; full fine-tuning of the GAN among 3e-4 to 1e-2, of the VQGAN
among 3e-4 to 3e-3); the diffusion model's are the quickstart's.
"""

from __future__ import annotations

from typing import Any

from ilora_core.reproduce.paper import COUNTS
from ilora_core.reproduce.world import UNET_LAYERS, Family, World
from ilora_rooms.world_quality import states

__all__ = ["world"]


def world(*, quick: bool, data: str, device: str) -> World:
    """quick: fewer steps, labels, seeds and test rooms, for a look at everything within an hour; its figures mean little."""
    common = {
        "preset": "none",
        "runtime.device": device or "cpu",
        "train.batch": 4,
        "train.schedule": "cosine",
        "train.warmup": 20,
    }
    tested = 24 if quick else 100

    def train(steps: int) -> dict[str, Any]:
        steps = 60 if quick else steps
        return {**common, "train.steps": steps, "train.keep_every": steps // 4}

    rooms = f"rooms:test:{tested}"
    diffusion = Family(
        "diffusion",
        {"generator": "rooms", "source": "rooms", "generator.timestep": 300},
        "source.n",
        rooms,
        train(400),
        {"lora": 5e-3, "lora.depth": 3e-3, "full": 5e-4},
    )
    gan = Family(
        "StyleGAN2",
        {"generator": "rooms-stylegan2", "source": "rooms-samples", "source.generator": "rooms-stylegan2"},
        "source.n",
        f"rooms-samples:{tested}:seed=1000",
        train(400),
        {"lora": 1e-2, "full": 3e-3},
    )
    vqgan = Family(
        "VQGAN",
        {"generator": "rooms-vqgan", "source": "rooms"},
        "source.n",
        rooms,
        train(200),
        {"lora": 1e-2, "full": 3e-3},
    )
    clipped = {**train(400), "train.clip": 1.0, "train.batch": 8}
    many, sdedit = (
        Family(name, {"generator": card, "source": "rooms"}, "source.n", rooms, clipped, {"lora": 2e-3})
        for name, card in (("many steps", "rooms-aug"), ("SDEdit", "rooms-sdedit"))
    )
    return World(
        "rooms",
        "64² rooms that a program draws, with exact maps, and small generators that were trained to draw them (docs/rooms.md).",
        quick,
        (diffusion, gan, vqgan),
        usual=50 if quick else 250,
        labels=(50, 250) if quick else (50, 250, 1_000, 4_000),
        seeds=(0,) if quick else (0, 1, 2),
        ranks=(1, 8) if quick else (1, 2, 4, 8, 16, 32),
        validation=16,
        layers=UNET_LAYERS,
        many=many,
        sdedit=sdedit,
        steps=(1, 5) if quick else (1, 5, 25),
        guidance=(1.0, 3.0) if quick else (1.0, 3.0, 7.0),
        strengths=(0.5, 0.9) if quick else (0.3, 0.5, 0.7, 0.9),
        quality=states(diffusion, quick=quick),
        judges={"normals": "rooms", "depth": "rooms"},
        prompts={"normals": "surface normal"},
        others={
            "textual inversion": {"adapter": "textual-inversion", "train.lr": 1e-1},
            "VISII-like": {"adapter": "visii", "train.lr": 1.0},
            "DoRA, rank 8": {"adapter": "dora", "train.lr": 5e-3},
            "LoHa, rank 4": {"adapter": "loha", "adapter.rank": 4, "train.lr": 1e-2},
        },
        others_many={"VISII-like on AUG": {"adapter": "visii", "train.lr": 1e-1}},
        lengths=(20, 60) if quick else (100, 400),
        counts=(
            ("rooms, diffusion", "rooms"),
            ("rooms, many steps", "rooms-aug"),
            ("rooms, StyleGAN2", "rooms-stylegan2"),
            ("rooms, VQGAN", "rooms-vqgan"),
            *COUNTS,
        ),
        notes=(
            "400 steps of batch 4 (the VQGAN 200) show 1,600 pictures (800): of 4,000 labels the trained methods see a part, "
            "and more labels than that can help the probe alone.",
        ),
        device=device or "cpu",
    )
