"""The shipped rooms model behind the same class that runs Stable Diffusion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import WeightsError
from ilora_rooms.codec import PatchCodec
from ilora_rooms.model import WIDTHS, build
from ilora_sd.loading import Components, check_timestep, load_folder, randomise
from ilora_sd.model import StableDiffusion

__all__ = ["CHECKPOINTS", "SHIPPED", "provenance_of", "rooms", "skeleton", "tiny", "untrained"]

SHIPPED = Path(__file__).parent / "weights" / "ldm"
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
"""Earlier states of the shipped model; in a clone of the repository, not in a wheel."""


def rooms(
    *,
    weights: str = "",
    timestep: int | None = None,
    output: str = "raw",
    loss: str = "latent",
    random_unet: bool = False,
    seed: int = 0,
) -> StableDiffusion:
    """The rooms model.

    weights      another folder in the same layout, or the name of one in CHECKPOINTS; "" = the shipped one
    timestep     at which the UNet is read; None = the last one, as in the paper
    output       "raw": the UNet's output is the map's latent; "clean": the clean latent that it stands for is
    loss         "latent", or "decoded": through the codec (`ilora_sd.decoded`)
    random_unet  the control: same architecture, same codec, a UNet that never saw a room
    """
    folder = Path(weights).expanduser() if weights else SHIPPED
    folder = folder if folder.is_dir() else CHECKPOINTS / weights
    if not (folder / "unet").is_dir():
        raise WeightsError(
            f"there is no rooms model in {folder}. Reinstall ilora-rooms, or train one: python -m ilora_rooms.pretrain"
        )
    components = load_folder(folder, vae_class=PatchCodec, provenance=provenance_of(folder, weights))
    components = randomise(components, seed) if random_unet else components
    check_timestep(timestep, components.timesteps)
    return StableDiffusion(components, timestep=timestep, output=output, loss=loss)


def tiny() -> StableDiffusion:
    """The same parts, narrow and untrained."""
    return StableDiffusion(untrained((16, 32, 32)))


def skeleton(*, loss: str = "latent", **_: Any) -> StableDiffusion:
    """The full-size parts without weights."""
    with torch.device("meta"):
        return StableDiffusion(untrained(WIDTHS), loss=loss)


def untrained(widths: tuple[int, ...]) -> Components:
    """The parts with random weights."""
    codec = PatchCodec()
    made = build(codec, "epsilon", widths=widths)
    parts = Components(made.unet, codec, made.text, made.tokenizer, dict(made.scheduler.config))
    return replace(parts, provenance={"weights": "untrained"})


def provenance_of(folder: Path, weights: str) -> dict[str, Any]:
    """For run.json, from the folder's weights.json. weights: what the user gave; "" = the shipped ones."""
    card = folder / "weights.json"
    facts = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    kept = {key: facts[key] for key in ("name", "world", "date", "visits", "device", "licence") if key in facts}
    return {"weights": weights or "shipped with ilora-rooms", **kept}
