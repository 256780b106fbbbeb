"""Folders of pictures and maps, as a user has them.

    DIR/pictures/…  (or images/, rgb/)     any readable format, nested folders allowed
    DIR/normals/…, DIR/roughness/…         one folder per intrinsic; a map has its picture's path and stem
    DIR/mask/…                             optional: bright where every map is valid
    DIR/normals_mask/…                     optional: bright where that map is valid

A key is the path below its folder without the suffix: "kitchen/0001".
"""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ilora_core.errors import ConfigError, DataError
from ilora_core.intrinsics import BUILT_IN, Intrinsic
from ilora_core.mixes import DISAGREEMENT
from ilora_core.pixels import SUFFIXES, read_pixels

__all__ = [
    "PICTURE_FOLDERS",
    "find_pictures",
    "index_folder",
    "infer_intrinsic",
    "load_intrinsic",
    "map_folders",
    "picture_folder",
    "unique_paths",
]

PICTURE_FOLDERS = ("pictures", "images", "rgb")


def index_folder(folder: Path | str) -> dict[str, list[Path]]:
    """Key -> the files that have it, sorted by key. Hidden files and files of other kinds are passed over."""
    folder = Path(folder)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(p.startswith(".") for p in relative.parts):
            found.setdefault(relative.with_suffix("").as_posix(), []).append(path)
    return dict(sorted(found.items()))


def unique_paths(folder: Path | str) -> dict[str, Path]:
    """Key -> its one file. Raises DataError that names two files of one stem."""
    found = index_folder(folder)
    for key, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"{folder} holds {key!r} twice: {paths[0].name} and {paths[1].name}. Remove one of them.")
    return {key: paths[0] for key, paths in found.items()}


def picture_folder(directory: Path | str) -> Path:
    """DIR/pictures, DIR/images or DIR/rgb. Raises DataError that says what is there instead."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"there is no folder {directory}.")
    found = [directory / name for name in PICTURE_FOLDERS if (directory / name).is_dir()]
    if len(found) != 1:
        what = f"both {found[0].name}/ and {found[1].name}/" if found else f"none of {', '.join(PICTURE_FOLDERS)}"
        there = ", ".join(sorted(p.name + "/" for p in directory.iterdir() if p.is_dir())) or "no folders"
        raise DataError(f"{directory} has {what} (it holds {there}). Put the pictures in {directory / 'pictures'}.")
    return found[0]


def map_folders(directory: Path | str) -> list[str]:
    """Names of the folders beside the pictures that could hold maps: all but pictures, masks and labelers' disagreements."""
    folders = sorted(p.name for p in Path(directory).iterdir() if p.is_dir() and not p.name.startswith("."))
    taken = {*PICTURE_FOLDERS, "mask", *(f"{name}_mask" for name in folders)}
    return [name for name in folders if name not in taken and not name.startswith(DISAGREEMENT)]


def find_pictures(paths: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """Key -> picture for files, folders (searched through) and globs, in the order given.

    A folder laid out for pairs gives its pictures. Two files that would share a key are told apart by their folder.
    Raises DataError for something that matches nothing.
    """
    found: dict[str, Path] = {}
    for item in [paths] if isinstance(paths, str | Path) else paths:
        for key, path in _expand(Path(item)):
            while key in found and found[key].resolve() != path.resolve():
                key = f"{path.parent.name}/{key}" if path.parent.name and "/" not in key else f"{key}_"
            found[key] = path
    if not found:
        raise DataError("no pictures were given.")
    return found


def infer_intrinsic(directory: Path | str, name: str) -> tuple[Intrinsic, str]:
    """An undeclared user's intrinsic from the first map in DIR/name: one to three channels, linear, in [0,1].

    Returns it and what was assumed, in words to show. Raises DataError when there is no map.
    """
    if name in BUILT_IN:
        return BUILT_IN[name], f"{name} is built in"
    files = index_folder(Path(directory) / name)
    if not files:
        raise DataError(f"there are no maps in {Path(directory) / name}; readable are {', '.join(SUFFIXES)}.")
    first = next(iter(files.values()))[0]
    stored = read_pixels(first).stored
    grey = stored.shape[2] == 3 and (stored == stored[..., :1]).all()
    channels = 1 if grey else stored.shape[2]
    words = f"{name}: {channels} channel{'s' * (channels > 1)} (as in {first.name}), range 0 to 1, linear"
    return Intrinsic(name, channels, "", "linear"), f"{words}. Declare --channels, --range and --space to change that."


def load_intrinsic(path: Path | str) -> Intrinsic:
    """An intrinsic declared in a TOML file: the fields of `Intrinsic`, or range = [low, high] and space = "srgb".

    The fields stand at the top or under [intrinsic]. Raises ConfigError that names the file and the field.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        intrinsic = Intrinsic.from_json(_spelled_out(data.get("intrinsic", data)))
        return replace(intrinsic, low=float(intrinsic.low), high=float(intrinsic.high))
    except (TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _spelled_out(data: Mapping[str, object]) -> dict[str, object]:
    """The command line's words `range` and `space` in the fields' own names."""
    out = dict(data)
    if "range" in out:
        limits = out.pop("range")
        if not isinstance(limits, list) or len(limits) != 2:
            raise ConfigError("range is [low, high].")
        out["low"], out["high"] = limits
    if "space" in out:
        out["encoding"] = out.pop("space")
    return out


def _expand(item: Path) -> list[tuple[str, Path]]:
    if item.is_dir():
        folders = [item / name for name in PICTURE_FOLDERS if (item / name).is_dir()]
        found = list(unique_paths(folders[0] if len(folders) == 1 else item).items())
        if not found:
            raise DataError(f"there are no pictures in {item}; readable are {', '.join(SUFFIXES)}.")
        return found
    if item.is_file():
        return [(item.stem, item)]
    matches = [Path(p) for p in sorted(glob.glob(str(item), recursive=True)) if Path(p).is_file()]
    if not matches:
        raise DataError(f"{item} is neither a file nor a folder, and nothing matches it as a pattern.")
    return [(path.stem, path) for path in matches]
