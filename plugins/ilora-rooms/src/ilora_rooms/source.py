"""Rooms as a source: pictures and exact maps, rendered once and kept on disk.

Pictures are rounded to 8 bits, as any picture file would be; maps stay float32. A key is the scene's seed, so that a room
is the same wherever it is met. Rendered rooms live under `$ILORA_CACHE/rooms` (by default ~/.cache/ilora/rooms).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.files import atomic_path
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic
from ilora_core.protocols import Batch
from ilora_rooms.render import WORLD, render
from ilora_rooms.splits import SPLITS, seeds

__all__ = ["RoomsSource", "tiny"]

_CHUNK = 50
_MAPS = ("normals", "depth", "albedo", "shading")


class RoomsSource:
    """The first n rooms of a split, with their maps.

    split   "labels" to learn from, "test" to be judged on, "shifted" for a test in another look; also "pretrain" and
            "labeller"
    size    side of the square picture
    device  where they are rendered
    """

    intrinsics: tuple[Intrinsic, ...] = (NORMALS, DEPTH, ALBEDO, SHADING)

    def __init__(
        self, *, split: str = "labels", n: int = 250, size: int = 64, device: str = "cpu", batch_size: int = 8
    ):
        if split not in SPLITS:
            raise ConfigError(f"source.split is one of {', '.join(SPLITS)}, not {split!r}.")
        if not 1 <= n <= len(SPLITS[split]):
            raise ConfigError(f"source.n lies in 1 … {len(SPLITS[split])}, not at {n}.")
        if size < 8:
            raise ConfigError(f"source.size must be at least 8 pixels, not {size}.")
        self.size, self.device, self.batch_size = size, device, batch_size
        self.look = "shifted" if split == "shifted" else "standard"
        self.seeds = tuple(seeds(split, n))
        self.keys = tuple(f"room-{seed:08d}" for seed in self.seeds)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.seeds), _CHUNK):
            tensors = self._chunk(self.seeds[start : start + _CHUNK])
            keys = self.keys[start : start + _CHUNK]
            for first in range(0, len(keys), self.batch_size):
                part = slice(first, first + self.batch_size)
                maps = {name: (tensors[name][part], tensors["valid"][part]) for name in _MAPS}
                yield Batch(keys[part], tensors["picture"][part].float() / 255, maps)

    def _chunk(self, wanted: tuple[int, ...]) -> dict[str, Tensor]:
        """Rooms of consecutive seeds, from the disk or rendered and put there."""
        path = _cache() / f"{WORLD}-{self.look}-{self.size}" / f"{wanted[0]:08d}-{len(wanted)}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):  # not there yet, or damaged: both are mended by rendering
            tensors = self._render(wanted)
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
        return tensors

    def _render(self, wanted: tuple[int, ...]) -> dict[str, Tensor]:
        rooms = render(wanted, size=self.size, look=self.look, device=self.device)
        tensors = {name: getattr(rooms, name).cpu().contiguous() for name in (*_MAPS, "valid")}
        tensors["picture"] = (rooms.picture.cpu() * 255).round().to(torch.uint8).contiguous()
        return tensors


def tiny() -> RoomsSource:
    """Four rooms of 16² pixels."""
    return RoomsSource(n=4, size=16, batch_size=2)


def _cache() -> Path:
    root = os.environ.get("ILORA_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "ilora") / "rooms"
