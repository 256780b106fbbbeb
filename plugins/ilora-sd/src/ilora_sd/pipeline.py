"""A generator's parts as the folder of a diffusers pipeline."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ilora_core.errors import ConfigError

__all__ = ["save_pipeline"]


def save_pipeline(generator: Any, folder: Path, kind: str) -> None:
    """Write what `kind`, a class of diffusers, loads with `from_pretrained`: every part, and no safety checker.

    Raises ConfigError for a codec that diffusers does not have.
    """
    import diffusers
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    codec = type(generator.vae)
    if not codec.__module__.startswith("diffusers."):
        raise ConfigError(
            f"diffusers cannot load this model's codec, a {codec.__name__}, so there is no pipeline to merge into."
        )
    settings = dict(generator.scheduler_config)
    scheduler = getattr(diffusers, str(settings.get("_class_name", "")), DDIMScheduler)
    parts: dict[str, Any] = {
        "vae": generator.vae,
        "scheduler": scheduler.from_config(settings),
        generator.network: generator.net,
    }
    for name, (encoder, tokenizer) in generator.encoders().items():
        parts |= {name: encoder, name.replace("text_encoder", "tokenizer"): tokenizer}
    pipeline: Any = getattr(diffusers, kind)
    takes = inspect.signature(pipeline.__init__).parameters
    absent = {
        name: None
        for name in takes
        if name not in parts and takes[name].default is inspect.Parameter.empty and name != "self"
    }
    extra = {"requires_safety_checker": False} if "requires_safety_checker" in takes else {}
    pipeline(**parts, **absent, **extra).save_pretrained(folder)
