"""The shipped rooms StyleGAN2 behind the same class that runs the published networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import WeightsError
from ilora_core.files import read_json
from ilora_stylegan.configs import from_json
from ilora_stylegan.factories import build, stylegan
from ilora_stylegan.generator import StyleGAN

__all__ = ["SHIPPED", "skeleton", "stylegan2"]

SHIPPED = Path(__file__).parent / "weights" / "stylegan2"


def stylegan2(
    *,
    weights: str = "",
    psi: float = 1.0,
    noise: str = "const",
    projection: int = 0,
    projection_lr: float = 0.05,
    random_weights: bool = False,
    seed: int = 0,
) -> StyleGAN:
    """The rooms GAN; see `ilora_stylegan.factories.stylegan` for the settings.

    weights  another folder in the same format, e.g. an earlier snapshot; "" = the shipped one
    """
    folder = Path(weights).expanduser() if weights else SHIPPED
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"there is no rooms GAN in {folder}. Reinstall ilora-rooms, or train one: python -m ilora_rooms.pretrain_gan"
        )
    made = stylegan(
        weights=str(folder),
        psi=psi,
        noise=noise,
        projection=projection,
        projection_lr=projection_lr,
        random_weights=random_weights,
        seed=seed,
    )
    made.provenance |= {"weights": weights or "shipped with ilora-rooms", **_facts(folder)}
    return made


def skeleton(*, weights: str = "", **_: Any) -> StyleGAN:
    """The network of config.json without its weights."""
    folder = Path(weights).expanduser() if weights else SHIPPED
    with torch.device("meta"):
        return StyleGAN(build(from_json(read_json(folder / "config.json")["config"])))


def _facts(folder: Path) -> dict[str, Any]:
    card = folder / "weights.json"
    facts = read_json(card) if card.is_file() else {}
    return {
        key: facts[key] for key in ("name", "world", "date", "visits", "images", "device", "licence") if key in facts
    }
