"""The shipped rooms VQGAN and its prior behind the same class that runs the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import WeightsError
from ilora_core.files import read_json
from ilora_vqgan.factories import vqgan as from_weights
from ilora_vqgan.loading import Components
from ilora_vqgan.model import VQGAN

__all__ = ["SHIPPED", "skeleton", "vqgan"]

SHIPPED = Path(__file__).parent / "weights" / "vqgan"


def vqgan(
    *,
    weights: str = "",
    adapt: str = "attention",
    top_k: int = 250,
    temperature: float = 1.0,
    use_cache: bool = True,
    sample_batch: int = 0,
    random_decoder: bool = False,
    seed: int = 0,
) -> VQGAN:
    """The rooms VQGAN; see `ilora_vqgan.factories.vqgan` for the settings.

    weights  another folder in the same format, e.g. an earlier export; "" = the shipped one
    """
    folder = _folder(weights)
    made = from_weights(
        weights=str(folder),
        adapt=adapt,
        top_k=top_k,
        temperature=temperature,
        use_cache=use_cache,
        sample_batch=sample_batch,
        random_decoder=random_decoder,
        seed=seed,
    )
    made.provenance |= {"weights": weights or "shipped with ilora-rooms", **_facts(folder)}
    return made


def skeleton(*, weights: str = "", adapt: str = "attention", **_: Any) -> VQGAN:
    """Both networks of the folder's config.json without their weights."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = _folder(weights)
    stage, prior = (read_json(folder / part / "config.json") for part in ("first_stage", "prior"))
    with torch.device("meta"):
        first_stage: Any = VQModel.from_config(stage)
        return VQGAN(Components(first_stage, GPT2LMHeadModel(GPT2Config(**prior))), adapt=adapt)


def _folder(weights: str) -> Path:
    folder = Path(weights).expanduser() if weights else SHIPPED
    if not (folder / "first_stage" / "config.json").is_file() or not (folder / "prior" / "config.json").is_file():
        raise WeightsError(
            f"there is no rooms VQGAN in {folder}. Reinstall ilora-rooms, or train one: "
            "python -m ilora_rooms.pretrain_vqgan, then pretrain_prior."
        )
    return folder


def _facts(folder: Path) -> dict[str, Any]:
    card = folder / "weights.json"
    facts = read_json(card) if card.is_file() else {}
    kept = {key: facts[key] for key in ("name", "world", "date", "licence") if key in facts}
    return kept | {
        f"{part}_visits": facts[part]["visits"] for part in ("first_stage", "prior") if "visits" in facts.get(part, {})
    }
