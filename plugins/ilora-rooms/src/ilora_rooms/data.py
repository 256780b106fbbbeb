"""Pre-training pictures, rendered from seeds and cached as uint8 shards.

A shard is `shard-00007.npz` = pictures (500,3,64,64) uint8 sRGB and captions; seed = 500 * shard + row. A shard appears
whole or not at all (write, then rename), so any number of writers and readers may share the folder, and a killed
writer loses only the shard in hand.

    python -m ilora_rooms.data --cache DIR --shards 24 --worker 0 --workers 2
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .render import WORLD, render
from .splits import SPLITS

__all__ = ["SHARD", "Pictures", "write_shard"]

SHARD = 500


def _path(cache: Path, shard: int) -> Path:
    return cache / f"{WORLD}-shard-{shard:05d}.npz"


def write_shard(cache: Path, shard: int, *, size: int = 64, device: str = "cpu", count: int = SHARD) -> Path:
    """Render one shard of the pretrain split, unless it is there already."""
    path = _path(cache, shard)
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    rooms = render(SPLITS["pretrain"][shard * SHARD : shard * SHARD + count], size=size, device=device)
    pictures = (rooms.picture * 255).round().to(torch.uint8).cpu().numpy()
    draft = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(draft, pictures=pictures, captions=np.array(rooms.captions))
    draft.replace(path)
    return path


class Pictures:
    """All shards present now; `rescan` picks up the ones written since."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.seen = cache, set[str]()
        self.pictures, self.captions = torch.empty(0, 3, 0, 0, dtype=torch.uint8), list[str]()

    def __len__(self) -> int:
        return len(self.captions)

    def rescan(self) -> bool:
        """True if anything new was found. Order follows the shard numbers within one scan."""
        fresh = [p for p in sorted(self.cache.glob(f"{WORLD}-shard-*.npz")) if p.name not in self.seen]
        blocks: list[Tensor] = [self.pictures] if len(self) else []
        for path in fresh:
            with np.load(path) as shard:
                blocks.append(torch.from_numpy(shard["pictures"]))
                self.captions += [str(c) for c in shard["captions"]]
            self.seen.add(path.name)
        if fresh:
            self.pictures = torch.cat(blocks)
        return bool(fresh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for shard in range(args.worker, args.shards, args.workers):
        print(write_shard(args.cache, shard, device=args.device), flush=True)


if __name__ == "__main__":
    main()
