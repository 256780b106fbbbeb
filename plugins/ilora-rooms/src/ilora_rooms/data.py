"""Pre-training pictures, rendered from seeds and cached as uint8 shards.

A shard is `shard-00007.npz` = pictures (500,3,64,64) uint8 sRGB and captions; seed = 500 * shard + row. A shard appears
whole or not at all (write, then rename), so any number of writers and readers may share the folder, and a killed
writer loses only the shard in hand. With `styles` = V > 1 a shard holds V pictures of each of 500 / V rooms one after the
other: as built, then restyled (`restyle`).

    python -m ilora_rooms.data --cache DIR --shards 24 --worker 0 --workers 2
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .render import WORLD, render_scenes
from .restyle import restyle
from .scene import build_scene
from .splits import SPLITS

__all__ = ["SHARD", "Pictures", "write_shard"]

SHARD = 500


def _stem(styles: int) -> str:
    return f"{WORLD}-shard-" if styles == 1 else f"{WORLD}-{styles}-styles-shard-"


def write_shard(
    cache: Path, shard: int, *, size: int = 64, device: str = "cpu", count: int = SHARD, styles: int = 1
) -> Path:
    """Render one shard of the pretrain split, unless it is there already."""
    path = cache / f"{_stem(styles)}{shard:05d}.npz"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    count //= styles
    first = shard * (SHARD // styles)
    scenes = [(seed, build_scene(seed)) for seed in SPLITS["pretrain"][first : first + count]]
    rooms = render_scenes(
        [restyle(spec, v, seed=seed) if v else spec for seed, spec in scenes for v in range(styles)],
        size=size,
        device=device,
    )
    pictures = (rooms.picture * 255).round().to(torch.uint8).cpu().numpy()
    draft = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(draft, pictures=pictures, captions=np.array(rooms.captions))
    draft.replace(path)
    return path


class Pictures:
    """All shards present now; `rescan` picks up the ones written since."""

    def __init__(self, cache: Path, *, styles: int = 1) -> None:
        self.cache, self.styles, self.seen = cache, styles, set[str]()
        self.pictures, self.captions = torch.empty(0, 3, 0, 0, dtype=torch.uint8), list[str]()

    def __len__(self) -> int:
        return len(self.captions)

    def rescan(self) -> bool:
        """True if anything new was found. Order follows the shard numbers within one scan."""
        fresh = [p for p in sorted(self.cache.glob(f"{_stem(self.styles)}*.npz")) if p.name not in self.seen]
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
    parser.add_argument("--styles", type=int, default=1, help="pictures of each room")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for shard in range(args.worker, args.shards, args.workers):
        print(write_shard(args.cache, shard, device=args.device, styles=args.styles), flush=True)


if __name__ == "__main__":
    main()
