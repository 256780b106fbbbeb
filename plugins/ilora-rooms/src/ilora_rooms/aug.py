"""The rooms model that draws in many steps beside a picture, behind the class that runs Stable Diffusion's AUG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import WeightsError
from ilora_rooms.codec import PatchCodec
from ilora_rooms.generator import provenance_of, untrained
from ilora_rooms.model import WIDTHS
from ilora_sd.augmented import Augmented
from ilora_sd.loading import Components, load_folder, randomise
from ilora_sd.sampler import Sampling
from ilora_sd.widening import widen

__all__ = ["SHIPPED", "augmented", "skeleton", "tiny", "tiny_blind"]

SHIPPED = Path(__file__).parent / "weights" / "aug"


def augmented(
    *,
    weights: str = "",
    steps: int = 25,
    cfg: float = 3.0,
    image_guidance: float = 1.0,
    guidance_rescale: float = 0.7,
    spacing: str = "linspace",
    strength: float = 1.0,
    blind: bool = False,
    seeds: int = 1,
    noise_seed: int = 0,
    random_unet: bool = False,
    seed: int = 0,
) -> Augmented:
    """The multi-step rooms model; see `ilora_sd.sampler.Sampling` for how a map is drawn.

    weights      another folder in the same format, e.g. an earlier export; "" = the shipped one
    blind        SDEdit: the network never sees the picture; strength says how much of it the trajectory starts with
    random_unet  the control: same architecture, same codec, a UNet that never saw a room
    """
    sampling = Sampling(
        steps, cfg, image_guidance, guidance_rescale, spacing, strength=strength, seeds=seeds, noise_seed=noise_seed
    )
    folder = Path(weights).expanduser() if weights else SHIPPED
    components = _load(folder, weights)
    components = randomise(components, seed) if random_unet else components
    return Augmented(components, sampling=sampling, blind=blind)


def tiny() -> Augmented:
    """The same parts, narrow and untrained, four steps."""
    return Augmented(_widened(untrained((16, 32, 32))), sampling=Sampling(steps=4))


def tiny_blind() -> Augmented:
    """`tiny` by SDEdit: the last two steps, from the picture's noised latent."""
    return Augmented(_widened(untrained((16, 32, 32))), sampling=Sampling(steps=4, strength=0.5), blind=True)


def skeleton(
    *,
    steps: int = 25,
    cfg: float = 3.0,
    image_guidance: float = 1.0,
    strength: float = 1.0,
    seeds: int = 1,
    **_: Any,
) -> Augmented:
    """The full-size parts without weights; the sampling settings that cost evaluations count."""
    sampling = Sampling(steps, cfg, image_guidance, strength=strength, seeds=seeds)
    with torch.device("meta"):
        return Augmented(_widened(untrained(WIDTHS)), sampling=sampling)


def _widened(components: Components) -> Components:
    unet: Any = components.unet
    return widen(components, 0.5 * unet.conv_in.weight, "untrained")


def _load(folder: Path, weights: str) -> Components:
    if not (folder / "unet").is_dir():
        raise WeightsError(
            f"there is no multi-step rooms model in {folder}. Reinstall ilora-rooms, or train one: "
            "python -m ilora_rooms.pretrain_aug"
        )
    return load_folder(folder, vae_class=PatchCodec, provenance=provenance_of(folder, weights), latents=2)
