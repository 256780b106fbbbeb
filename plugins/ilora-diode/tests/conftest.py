"""A small DIODE on the disk: both scene types, several float types and shapes, holes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ilora_core.files import write_json

SIZE = (24, 32)
NAMES = (
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_000",
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_010_000",
    "indoors/scene_00019/scan_00184/00019_00184_indoors_000_000",
    "indoors/scene_00019/scan_00183/00019_00183_indoors_020_000",
    "indoors/scene_00019/scan_00183/00019_00183_indoors_000_000",
)
EXTRA = "indoors/scene_00020/scan_00185/00020_00185_indoors_000_000"  # there, but not in the JSON


@dataclass
class Truth:
    """What the files of one picture hold, in DIODE's own convention."""

    depth: np.ndarray
    mask: np.ndarray
    normals: np.ndarray


@dataclass
class Archive:
    """Two flat archives and a folder in the reference code's layout with the same files; truth: name -> arrays."""

    depth: Path
    normals: Path
    reference: Path
    truth: dict[str, Truth]

    def file(self, name: str, ending: str) -> Path:
        """A file of the reference layout's val."""
        part = "normals" if ending == "_normal.npy" else "depths"
        return self.reference / part / "val" / f"{name}{ending}"


def _truth(index: int) -> Truth:
    draws = np.random.default_rng(index)
    depth = draws.uniform(2.0, 12.0, SIZE) * (1 + 39 * (index == 0))  # the first goes beyond 300 m
    mask = np.ones(SIZE)
    mask[3:7, 4:9] = 0
    depth[3:7, 4:9] = 0
    depth[20, 20:24] = 0.4
    depth[10, 10] = 0  # no return, though the mask says nothing
    normals = draws.normal(size=(*SIZE, 3))
    normals[..., 2] = np.abs(normals[..., 2]) + 0.2
    normals[12:15, 2:6] = 0
    normals[0, 0] = (1, -1, 0)  # its components sum to 0
    return Truth(depth, mask, normals)


def _write(base: Path, normals: Path, truth: Truth, index: int) -> None:
    for folder in (base.parent, normals.parent):
        folder.mkdir(parents=True, exist_ok=True)
    kind = (np.float32, np.float64)[index % 2]
    depth, mask = truth.depth.astype(kind), truth.mask.astype(kind)
    np.save(f"{base}_depth.npy", depth[..., None] if index % 3 else depth)
    np.save(f"{base}_depth_mask.npy", (mask, mask[..., None], mask.astype(np.uint8), mask.astype(bool))[index % 4])
    np.save(f"{normals}_normal.npy", truth.normals.astype((np.float64, np.float32)[index % 2]))
    grey = (np.clip(truth.depth / 20, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(np.stack([grey] * 3, -1)).save(f"{base}.png")


def _tree(names) -> dict:
    tree: dict = {}
    for name in names:
        scene_type, scene, scan, leaf = name.split("/")
        tree.setdefault(scene_type, {}).setdefault(scene, {}).setdefault(scan, []).append(leaf)
    return tree


@pytest.fixture
def archive(tmp_path) -> Archive:
    """May be damaged: each test has its own."""
    found = Archive(tmp_path / "depth", tmp_path / "normals", tmp_path / "reference", {})
    for index, name in enumerate((*NAMES, EXTRA)):
        found.truth[name] = _truth(index)
        _write(found.depth / "val" / name, found.normals / "val" / name, found.truth[name], index)
        layout = found.reference
        _write(layout / "depths" / "val" / name, layout / "normals" / "val" / name, found.truth[name], index)
    write_json(found.reference / "diode_meta.json", {"val": _tree(NAMES)})
    return found


@pytest.fixture
def names() -> tuple[str, ...]:
    """As the JSON lists them: outdoor first."""
    return NAMES
