"""How the cards' generators are made: from weights, tiny at random, or weightless on the meta device."""

from __future__ import annotations

from typing import Any

import torch

from ilora_core.noise import mix_seeds
from ilora_vqgan.architecture import FFHQ, Architecture, FirstStage, Prior
from ilora_vqgan.loading import Components, empty_networks, load_components
from ilora_vqgan.model import VQGAN

__all__ = ["skeleton", "tiny", "untrained", "vqgan"]

_TINY = Architecture(FirstStage(32, (1, 1, 2), 1, (False, False, True), 16, 16, 32, 32), Prior(32, 64, 1, 2, 32))


def vqgan(
    *,
    weights: str = "",
    config: str | None = None,
    adapt: str = "attention",
    resolution: int | None = None,
    top_k: int = 250,
    temperature: float = 1.0,
    use_cache: bool = True,
    sample_batch: int = 0,
    revision: str | None = None,
    local_only: bool = False,
    random_decoder: bool = False,
    seed: int = 0,
) -> VQGAN:
    """A VQGAN from weights; see `load_components` and `VQGAN` for the settings. seed: of `random_decoder`'s weights."""
    return VQGAN(
        load_components(weights, config=config, revision=revision, local_only=local_only),
        adapt=adapt,
        resolution=resolution,
        top_k=top_k,
        temperature=temperature,
        use_cache=use_cache,
        sample_batch=sample_batch,
        random_decoder=seed if random_decoder else None,
    )


def skeleton(*, adapt: str = "attention", resolution: int | None = None, **_: Any) -> VQGAN:
    """The FFHQ model on the meta device: its shapes and counts, without a byte of weights."""
    first_stage, prior = empty_networks(FFHQ)
    with torch.device("meta"):
        return VQGAN(Components(first_stage, prior), adapt=adapt, resolution=resolution)


def tiny() -> VQGAN:
    """Random weights, 32² pictures of 8×8 codes, CPU, under a second: for tests and the conformance checks."""
    return VQGAN(untrained(_TINY), top_k=0)


def untrained(architecture: Architecture, seed: int = 0) -> Components:
    """Random weights in an architecture, with codes that differ from one another as trained ones do."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(seed, 0x717))
        first_stage: Any = VQModel.from_config(architecture.first_stage.config())
        torch.nn.init.normal_(first_stage.quantize.embedding.weight)
        prior = GPT2LMHeadModel(GPT2Config(**architecture.prior.config())) if architecture.prior else None
    start = architecture.prior.start if architecture.prior else 0
    return Components(first_stage, prior, start, architecture.without_prior, {"weights": "untrained"})
