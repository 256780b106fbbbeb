"""A small folder in DIODE's layout with scenes whose maps are known in closed form: for the checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ilora_core.files import write_json
from ilora_core.maps_io import write_picture
from ilora_core.testing.scenes import make_scenes

__all__ = ["NAMES", "write_example"]

NAMES = (
    "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "indoors/scene_00019/scan_00183/00019_00183_indoors_010_020",
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_000",
)


def write_example(root: Path, *, split: str = "val", height: int = 48, width: int = 64, meta: bool = True) -> None:
    """Write NAMES as ROOT/depths, ROOT/normals and ROOT/diode_meta.json, with a hole in each depth and normal map.

    As DIODE has them: depth float32 (H,W,1) in metres, 0 and mask 0 in the hole; normals x right, y up, z to the viewer,
    (0,0,0) in the hole.
    """
    scenes = make_scenes(height, width)
    for index, name in enumerate(NAMES):
        row, hole = index % 2, (slice(4 + index, 9 + index), slice(6, 14))
        depth = scenes.maps["depth"][row, 0].numpy()[..., None] * (1 + index)
        right, down, forward = scenes.maps["normals"][row].numpy()
        normals = np.stack([right, -down, -forward], -1)
        mask = np.ones((height, width), np.float32)
        for array in (depth, normals, mask):
            array[hole] = 0
        picture = torch.where(torch.from_numpy(mask) > 0, scenes.pictures[row], 0.0)
        base, normals_base = root / "depths" / split / name, root / "normals" / split / name
        for folder in (base.parent, normals_base.parent):
            folder.mkdir(parents=True, exist_ok=True)
        write_picture(base, picture, format="png8")
        np.save(f"{base}_depth.npy", depth)
        np.save(f"{base}_depth_mask.npy", mask)
        np.save(f"{normals_base}_normal.npy", normals)
    if meta:
        write_json(root / "diode_meta.json", {split: _tree()})


def _tree() -> dict:
    tree: dict = {}
    for name in NAMES:
        scene_type, scene, scan, leaf = name.split("/")
        tree.setdefault(scene_type, {}).setdefault(scene, {}).setdefault(scan, []).append(leaf)
    return tree
