"""DIODE as a source: pictures with depth in metres and, where their archive is there, normals.

Files are read when their batch is due; which there are is checked at once. With `size`, the shorter side is brought to it
and the centre cut out; maps are averaged over valid pixels alone, so that holes do not bleed into their surroundings.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ilora_core.errors import ConfigError, DataError
from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic
from ilora_core.maps_io import read_picture
from ilora_core.protocols import Batch
from ilora_core.sources import Size, at_size, in_batches
from ilora_diode.arrays import read_depth, read_normals
from ilora_diode.layout import MAPS, META, SCENES, Entry, Folders, choose, find_folders, list_keys, parse_words, present

__all__ = ["DiodeSource", "tiny"]

_log = logging.getLogger("ilora")


class DiodeSource:
    """Pictures of a split with their maps.

    root          DIODE's depth archive, or the reference code's folder with depths/ and normals/
    normals_root  the normals archive where it lies elsewhere
    split         "train" or "val"
    scenes        "indoors", "outdoor" or both with a comma; they come in the order given
    maps          "depth", "normals" or both with a comma; "auto": depth, and normals where their archive is
    listing       "meta": what diode_meta.json names; "glob": what lies there; "auto": meta where there is one
    meta          the JSON, where it is not ROOT/diode_meta.json
    missing       "error", or "skip" to leave out pictures that lack a file, as the reference does
    n, seed       n pictures drawn as the reference draws them; 0: all
    paper         the reference's limits for depth pictures (rule = "paper") and its masks
    size          see `ilora_core.sources.Size`

    Raises DataError that names the first file that is not there.
    """

    def __init__(
        self,
        *,
        root: str,
        normals_root: str = "",
        split: str = "train",
        scenes: str = "indoors,outdoor",
        maps: str = "auto",
        listing: str = "auto",
        meta: str = "",
        missing: str = "error",
        n: int = 0,
        seed: int = 1234,
        paper: bool = False,
        size: Size = None,
        batch_size: int = 8,
    ) -> None:
        _check_settings(split, listing, missing, n)
        base = Path(root).expanduser()
        folders = find_folders(base, Path(normals_root).expanduser() if normals_root else None, split)
        self.scenes = parse_words(scenes, SCENES, "scenes")
        names = _chosen_maps(maps, folders, base)
        self.listing = _meta_file(listing, meta, base)
        keys = list_keys(folders, self.scenes, self.listing)
        entries = _complete([present(folders, key, names) for key in keys], missing, folders)
        self._entries = {entry.key: entry for entry in entries}
        self.size, self.batch_size, self.paper = size, batch_size, paper
        self.keys: Sequence[str] = tuple(choose(list(self._entries), n, seed))
        known = {"depth": replace(DEPTH, rule="paper") if paper else DEPTH, "normals": NORMALS}
        self.intrinsics: tuple[Intrinsic, ...] = tuple(known[name] for name in names)
        self._tell(folders, len(keys), names)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        return in_batches((self._read(self._entries[key]) for key in self.keys), self.batch_size)

    def select(self, keys: Sequence[str]) -> DiodeSource:
        """The same archive, these pictures only."""
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__, keys=tuple(keys))
        return part

    def _read(self, entry: Entry) -> tuple[str, Tensor, dict[str, tuple[Tensor, Tensor]]]:
        picture = read_picture(entry.picture)
        maps = {}
        if entry.depth is not None and entry.mask is not None:
            maps["depth"] = read_depth(entry.depth, entry.mask, paper=self.paper)
        if entry.normals is not None:
            maps["normals"] = read_normals(entry.normals, paper=self.paper)
        for name, path in (("depth", entry.depth), ("normals", entry.normals)):
            if name in maps and maps[name][0].shape[-2:] != picture.shape[-2:]:
                own, its = maps[name][0].shape, picture.shape
                raise DataError(
                    f"{path} is {own[-1]}x{own[-2]}, its picture {entry.picture} {its[-1]}x{its[-2]}. Download both again."
                )
        return entry.key, *at_size(picture, maps, self.intrinsics, self.size)

    def _tell(self, folders: Folders, listed: int, names: Sequence[str]) -> None:
        """How many pictures, by which list: counts of DIODE's val differ between papers for this reason."""
        how = f"named by {self.listing}" if self.listing else f"found in {folders.depth}"
        lines = [f"DIODE {folders.split}, {' and '.join(self.scenes)}: {listed} pictures {how}"]
        if len(self._entries) < listed:
            lines.append(f"{listed - len(self._entries)} lack a file and are left out")
        if len(self) < len(self._entries):
            lines.append(f"{len(self)} drawn")
        if self.listing:
            there = len(list_keys(folders, self.scenes, None))
            if there != listed:
                lines.append(f"the folder holds {there} (source.listing=glob takes those)")
        _log.info("%s; maps: %s.", "; ".join(lines), ", ".join(names))


def tiny() -> DiodeSource:
    """Three small analytic scenes in DIODE's layout, written to a temporary folder that goes with the object."""
    from ilora_diode.example import write_example

    folder = tempfile.mkdtemp(prefix="ilora-diode-")
    try:
        write_example(Path(folder))
        source = DiodeSource(root=folder, split="val", size=32, batch_size=2)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # The finaliser hangs on what every part of the source shares, so that a part may outlive the whole.
    weakref.finalize(next(iter(source._entries.values())), shutil.rmtree, folder, ignore_errors=True)
    return source


def _check_settings(split: str, listing: str, missing: str, n: int) -> None:
    for name, value, allowed in (
        ("split", split, ("train", "val")),
        ("listing", listing, ("auto", "meta", "glob")),
        ("missing", missing, ("error", "skip")),
    ):
        if value not in allowed:
            raise ConfigError(f"source.{name} is one of {', '.join(allowed)}, not {value!r}.")
    if n < 0:
        raise ConfigError(f"source.n is a number of pictures, or 0 for all; not {n}.")


def _chosen_maps(maps: str, folders: Folders, root: Path) -> tuple[str, ...]:
    if maps == "auto":
        return MAPS if folders.normals else ("depth",)
    names = parse_words(maps, MAPS, "maps")
    if "normals" in names and folders.normals is None:
        raise DataError(
            f"{root} holds no normals of {folders.split}; they are an archive of their own. Give it with "
            "--set source.normals_root=FOLDER."
        )
    return names


def _meta_file(listing: str, meta: str, root: Path) -> Path | None:
    """The JSON to list by, or None to list by what lies there."""
    if listing == "glob":
        return None
    file = Path(meta).expanduser() if meta else root / META
    if file.is_file():
        return file
    if listing == "meta" or meta:
        raise DataError(f"there is no {file}. Get {META} from DIODE's devkit, or use --set source.listing=glob.")
    return None


def _complete(entries: list[Entry], missing: str, folders: Folders) -> list[Entry]:
    """The entries whose files are all there. Raises DataError that names the first gap, unless gaps are to be skipped."""
    lacking = {e.key: [f for f in e.files if not f.is_file()] for e in entries}
    gaps = [files[0] for files in lacking.values() if files]
    if gaps and (missing == "error" or len(gaps) == len(entries)):
        raise DataError(
            f"{len(gaps)} of {len(entries)} pictures lack a file; the first is {gaps[0]}. Unpack the archive again, or leave "
            "such pictures out with --set source.missing=skip."
        )
    if not entries:
        raise DataError(f"there are no pictures scene_*/scan_*/*.png of the chosen scenes in {folders.depth}.")
    return [e for e in entries if not lacking[e.key]]
