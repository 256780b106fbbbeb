"""What bench/predict_speed.py draws with: adapters of four maps on the rooms generator, or on networks of random weights.

Speed does not depend on what anything has learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cached_vs_uncached import build
from peft import get_peft_model_state_dict

from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import find_artefacts, save_adapter
from ilora_core.config import RuntimeConfig
from ilora_core.files import write_json
from ilora_core.fit import fit
from ilora_core.intrinsics import BUILT_IN
from ilora_core.predict import Predictor

__all__ = ["RESOLUTIONS", "drawer_of", "tiny_decoder"]

RESOLUTIONS = {"rooms": 64, "small": 128, "sd15": 512}


def drawer_of(size: str, folder: Path, runtime: RuntimeConfig) -> Predictor:
    """Four maps of the rooms generator, or of a random network of this size. folder: to write adapters in."""
    if size == "rooms":
        return Predictor(_fitted_for_a_step(folder), runtime=runtime)
    generator: Any = build(size)
    with torch.device("meta"):
        blank = type(generator.net).from_config(generator.net.config)
    for seed, (name, intrinsic) in enumerate(BUILT_IN.items()):
        adapter = LoraAdapter(rank=8, name=name)
        adapter.attach(blank, generator.targets)
        noise = torch.Generator().manual_seed(seed)
        shapes = get_peft_model_state_dict(blank, adapter_name=name)
        state = {key: 0.02 * torch.randn(value.shape, generator=noise) for key, value in shapes.items()}
        save_adapter(folder / name, state, adapter.config())
        write_json(
            folder / name / "run.json", {"intrinsic": intrinsic.to_json(), "generator": {"name": size, "settings": {}}}
        )
    host: Any = _Host(generator)
    return Predictor(find_artefacts(folder), runtime=runtime, host=host)


def tiny_decoder() -> Any:
    """TAESD's shape for Stable Diffusion 1.x, random weights."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny().eval().requires_grad_(False)


def _fitted_for_a_step(folder: Path) -> Any:
    from ilora_rooms.experiment import fit_config

    train = {"steps": 1, "batch": 1, "keep_every": 1}
    config = fit_config(list(BUILT_IN), labels=2, held_out=1, train=train, runtime={"device": "cpu"})
    for _ in fit(config, folder):
        pass
    return find_artefacts(folder)


class _Host:
    """In place of the plugins: the generator is here already."""

    def __init__(self, generator: Any):
        self.generator = generator

    def make(self, kind: str, name: str, /, **settings: Any) -> Any:
        return self.generator if kind == "generators" else LoraAdapter(**settings)
