"""Tiny models on disk, as diffusers keeps them, and helpers that test modules share."""

import importlib.util
import json
from pathlib import Path

import pytest

from ilora_sd.factories import tiny_components


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory) -> Path:
    """A complete Stable Diffusion folder of tiny random parts."""
    folder, parts = tmp_path_factory.mktemp("models") / "tiny-sd", tiny_components()
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(folder / name)
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(parts.scheduler_config), default=str))
    return folder


@pytest.fixture(scope="session")
def large():
    """The module large_helpers.py."""
    spec = importlib.util.spec_from_file_location("large_helpers", Path(__file__).with_name("large_helpers.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
