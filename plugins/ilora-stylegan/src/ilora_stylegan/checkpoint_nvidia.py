"""Pickles of stylegan2-ada-pytorch, stylegan3 and stylegan-xl: a dict with G_ema.

The architecture is read from the modules that are there and from their attributes, never rebuilt from the constructor's
arguments, which a super-resolution stage of StyleGAN-XL leaves stale. The family is told by the parts of `synthesis`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ilora_stylegan.checkpoint_nvidia2 import read_stylegan2
from ilora_stylegan.checkpoint_nvidia3 import read_stylegan3
from ilora_stylegan.configs import Config
from ilora_stylegan.official import Official
from ilora_stylegan.pickle_nodes import Broken, Dead, Record, StoredTensor
from ilora_stylegan.record_mapping import mapping_lr
from ilora_stylegan.record_modules import Module, collect

__all__ = ["read_nvidia"]


def read_nvidia(root: Mapping[str, Any]) -> Official:
    """The network under "G_ema". Raises Broken for one that is not of these families."""
    generator = Module(root["G_ema"], "G_ema")
    synthesis = generator["synthesis"]
    if "input" in synthesis and isinstance(synthesis.attributes.get("layer_names"), list):
        read = read_stylegan3
    elif "b4" in synthesis:
        read = read_stylegan2
    else:
        raise Broken(f"G_ema.synthesis ({synthesis.class_name}) has the parts of neither StyleGAN2 nor StyleGAN3")
    stored: dict[str, StoredTensor | Tensor] = {
        **collect(generator["mapping"], "mapping."),
        **collect(synthesis, "synthesis."),
    }
    config: Config = read(generator, stored)
    about = {"format": "nvidia", "class": generator.class_name, **_progress(root)}
    return Official(config, stored, about, mapping_lr=mapping_lr(generator["mapping"]))


def _progress(root: Mapping[str, Any]) -> dict[str, Any]:
    """How many pictures the network had seen, where the file says so."""
    progress = root.get("progress")
    progress = progress.state if isinstance(progress, Record | Dead) else progress
    seen = progress.get("cur_nimg") if isinstance(progress, dict) else None
    if isinstance(seen, StoredTensor) and seen.numel == 1:
        seen = int(seen.load().flatten()[0])
    return {"cur_nimg": seen} if isinstance(seen, int) and abs(seen) < 2**53 else {}
