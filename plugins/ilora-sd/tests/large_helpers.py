"""SDXL, Stable Diffusion 3 and FLUX.1 in tests: their parts, their folders, their counts."""

from __future__ import annotations

import json

from ilora_core.adapters import LoraAdapter
from ilora_sd.architectures_large import LARGE
from ilora_sd.loading import Components


def components_of(generator, **changes) -> Components:
    kept = {
        "unet": generator.unet,
        "vae": generator.vae,
        "text_encoder": generator.text_encoder,
        "tokenizer": generator.tokenizer,
        "scheduler_config": generator.scheduler_config,
        "further": tuple(zip(generator.more_text_encoders, generator.more_tokenizers, strict=True)),
    }
    return Components(**{**kept, **changes})


def save(generator, name: str, folder):
    """A diffusers folder."""
    architecture = LARGE[name]
    generator.unet.save_pretrained(folder / architecture.network)
    generator.vae.save_pretrained(folder / "vae")
    pairs = [
        (generator.text_encoder, generator.tokenizer),
        *zip(generator.more_text_encoders, generator.more_tokenizers, strict=True),
    ]
    for part, (encoder, words) in zip(architecture.texts, pairs, strict=True):
        encoder.save_pretrained(folder / part.folder)
        words.save_pretrained(folder / part.tokenizer)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(dict(generator.scheduler_config), default=str)
    )
    return folder


def count(generator) -> tuple[int, int, int]:
    """Parameters of the network and of a rank-8 LoRA, and its places."""
    base = sum(p.numel() for p in generator.unet.parameters())
    adapter = LoraAdapter(rank=8)
    adapter.attach(generator.net, generator.targets)
    places = sum(hasattr(module, "lora_A") for module in generator.net.modules())
    return base, sum(p.numel() for p in adapter.parameters()), places
