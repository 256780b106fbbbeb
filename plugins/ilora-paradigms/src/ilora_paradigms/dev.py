"""Development pictures: rendered rooms with exact maps, by which thresholds and checkpoints are chosen.

They come from the split `labeller` of the plugin ilora-rooms, which is set aside for training labelers; its test split and
the path-traced set of this package are for final figures only. Without ilora-rooms there is nothing to choose by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ilora_core.errors import MissingDependency

__all__ = ["Truth", "rooms"]


@dataclass(frozen=True)
class Truth:
    """keys, scenes: one name per picture (pictures of one scene share theirs); pictures (N,3,H,W) sRGB; albedo (N,3,H,W)
    and shading (N,1|3,H,W), linear; valid bool (N,1,H,W)."""

    keys: tuple[str, ...]
    scenes: tuple[str, ...]
    pictures: Tensor
    albedo: Tensor
    shading: Tensor
    valid: Tensor


def rooms(split: str = "labeller", n: int = 50, size: int = 64) -> Truth:
    """The first n rooms of a split. Raises MissingDependency without ilora-rooms."""
    try:
        from ilora_rooms.source import RoomsSource
    except ImportError as error:
        raise MissingDependency(
            "rendered rooms come from the plugin ilora-rooms, which is not installed: pip install ilora-rooms."
        ) from error
    batches = list(RoomsSource(split=split, n=n, size=size, batch_size=50))
    keys = tuple(key for batch in batches for key in batch.keys)
    albedo, shading = (torch.cat([b.maps[name][0] for b in batches]) for name in ("albedo", "shading"))
    valid = torch.cat([b.maps["albedo"][1] for b in batches])
    return Truth(keys, keys, torch.cat([b.pictures for b in batches]), albedo, shading, valid)
