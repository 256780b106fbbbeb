"""Where DIODE's files lie and which of them a split has.

    DEPTH/<split>/{indoors,outdoor}/scene_*/scan_*/NAME.png, NAME_depth.npy, NAME_depth_mask.npy
    NORMALS/<split>/{indoors,outdoor}/scene_*/scan_*/NAME_normal.npy         a separate archive

DEPTH and NORMALS are ROOT/depths and ROOT/normals (the reference code's layout, with ROOT/diode_meta.json), or ROOT itself
and a folder of its own. The list of a split is diode_meta.json's, {split: {type: {scene: {scan: [name, …]}}}}, or what lies
there: they differ. The published val has 771 pictures, and the JSON names 612 of them.

DIODE: Vasiljevic et al. 2019 (arXiv 1908.00463).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilora_core.errors import ConfigError, DataError
from ilora_core.files import read_json

__all__ = [
    "MAPS",
    "META",
    "SCENES",
    "Entry",
    "Folders",
    "choose",
    "find_folders",
    "list_keys",
    "parse_words",
    "present",
]

SCENES = ("indoors", "outdoor")
MAPS = ("depth", "normals")
META = "diode_meta.json"


@dataclass(frozen=True)
class Folders:
    """depth and normals: the folders of the split; normals is None where there is no such archive."""

    depth: Path
    normals: Path | None
    split: str


@dataclass(frozen=True)
class Entry:
    """The files of one picture. normals is None where they are not wanted."""

    key: str
    picture: Path
    depth: Path | None
    mask: Path | None
    normals: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it needs."""
        return tuple(path for path in (self.picture, self.depth, self.mask, self.normals) if path is not None)


def parse_words(text: str | Sequence[str], allowed: Sequence[str], what: str) -> tuple[str, ...]:
    """ "outdoor,indoors" -> its words, in that order. Raises ConfigError for one that is not allowed."""
    words = tuple(word.strip() for word in text.split(",")) if isinstance(text, str) else tuple(text)
    for word in words:
        if word not in allowed:
            raise ConfigError(f"source.{what} is {' or '.join(allowed)}, or both with a comma, not {word!r}.")
    return tuple(dict.fromkeys(words))


def find_folders(root: Path, normals_root: Path | None, split: str) -> Folders:
    """The split's folders. Raises DataError for a root or split that is not there."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}. Give DIODE's with --set source.root=FOLDER.")
    depth = _split_folder((root / "depths", root), split)
    if depth is None:
        there = ", ".join(sorted(p.name + "/" for p in root.iterdir() if p.is_dir())) or "no folders"
        raise DataError(
            f"{root} has neither {split}/ nor depths/{split}/ with {' or '.join(f'{s}/' for s in SCENES)} in it (it holds "
            f"{there}). Unpack DIODE's depth archive there."
        )
    if normals_root is not None:
        normals = _split_folder((normals_root, normals_root / "normals"), split)
        if normals is None:
            raise DataError(f"{normals_root} has no {split}/. Unpack DIODE's normals archive there.")
        return Folders(depth, normals, split)
    own = _split_folder((root / "normals",), split)
    beside = depth if own is None and next(depth.glob("*/*/*/*_normal.npy"), None) else None
    return Folders(depth, own or beside, split)


def list_keys(folders: Folders, scenes: Sequence[str], meta: Path | None) -> list[str]:
    """Keys `<split>/<type>/<scene>/<scan>/<name>`: of the JSON in its order, or without one of the pictures there, sorted."""
    if meta is None:
        return [
            f"{folders.split}/{path.relative_to(folders.depth).with_suffix('').as_posix()}"
            for scene_type in scenes
            for path in sorted((folders.depth / scene_type).glob("scene_*/scan_*/*.png"))
        ]
    tree = read_json(meta)
    if not isinstance(tree, Mapping) or folders.split not in tree:
        known = ", ".join(tree) if isinstance(tree, Mapping) else "none"
        raise DataError(f"{meta} lists no split {folders.split!r}; it has {known}. Use --set source.listing=glob.")
    listed = tree[folders.split]
    keys = []
    for scene_type in scenes:
        if scene_type not in listed:
            raise DataError(f"{meta} lists no {scene_type!r} in {folders.split!r}; it has {', '.join(listed)}.")
        keys += [f"{folders.split}/{scene_type}/{tail}" for tail in _leaves(listed[scene_type], meta)]
    return keys


def choose(keys: list[str], n: int, seed: int) -> list[str]:
    """n of the keys as the reference draws them: `random.sample` after `random.seed(seed)`; all of them, in order, for 0.

    A generator of its own draws the same, and leaves Python's alone.
    """
    return random.Random(seed).sample(keys, n) if 0 < n < len(keys) else keys


def present(folders: Folders, key: str, maps: Sequence[str]) -> Entry:
    """The files that a key stands for, whether they exist or not."""
    tail = Path(*key.split("/")[1:])
    base, name = folders.depth / tail.parent, tail.name
    depth = "depth" in maps
    normals = folders.normals / tail.parent / f"{name}_normal.npy" if "normals" in maps and folders.normals else None
    return Entry(
        key,
        base / f"{name}.png",
        base / f"{name}_depth.npy" if depth else None,
        base / f"{name}_depth_mask.npy" if depth else None,
        normals,
    )


def _split_folder(places: Sequence[Path], split: str) -> Path | None:
    """Where the split's scene types lie: under its name, or at the top."""
    for place in places:
        for folder in (place / split, place):
            if any((folder / scene_type).is_dir() for scene_type in SCENES):
                return folder
    return None


def _leaves(node: Any, meta: Path) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from (f"{name}/{tail}" for tail in _leaves(child, meta))
    elif isinstance(node, list) and all(isinstance(name, str) for name in node):
        yield from node
    else:
        raise DataError(
            f"{meta} is not DIODE's list: it holds {type(node).__name__} where names of pictures should be."
        )
