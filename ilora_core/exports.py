"""Write a source with maps as a folder of pairs that `--pairs` reads back to the same numbers.

Pictures get the smallest format that keeps them exactly: 8-bit PNG for values k/255, 16-bit PNG for k/65535, else float
npy. Maps are float files, exr by default, NaN where they are not valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ilora_core.errors import ConfigError, DataError
from ilora_core.maps_io import MAP_SUFFIXES, PictureFormat, write_map, write_picture
from ilora_core.protocols import Batch, Source

__all__ = ["check_suffix", "export_pairs", "iter_export"]


def export_pairs(
    source: Source,
    directory: Path | str,
    *,
    formats: Mapping[str, str] | None = None,
    pictures: PictureFormat = "auto",
    frame: str = "opencv",
) -> int:
    """Write DIR/pictures/ and one folder per intrinsic; returns the number of pictures.

    formats   intrinsic's name -> "exr" (default), "npy" or "png" (16 bits; depth loses its unit, shading its scale)
    pictures  "auto", "png8", "png16" or "npy"
    frame     the axes that normals are written in
    """
    return sum(iter_export(source, directory, formats=formats, pictures=pictures, frame=frame))


def check_suffix(suffix: str, what: str) -> None:
    """Raise ConfigError for a format (with or without its dot) that maps cannot be written in."""
    if f".{suffix.lstrip('.')}" not in MAP_SUFFIXES:
        raise ConfigError(f"{what}: cannot write maps as .{suffix.lstrip('.')}; use one of {', '.join(MAP_SUFFIXES)}.")


def iter_export(
    source: Source,
    directory: Path | str,
    *,
    formats: Mapping[str, str] | None = None,
    pictures: PictureFormat = "auto",
    frame: str = "opencv",
) -> Iterator[int]:
    """As `export_pairs`, a batch at a time: yields how many pictures each one wrote."""
    directory = Path(directory)
    suffixes = {i.name: "." + (formats or {}).get(i.name, "exr").lstrip(".") for i in source.intrinsics}
    for name, suffix in suffixes.items():
        check_suffix(suffix, name)
    if unknown := sorted(set(formats or {}) - set(suffixes)):
        raise ConfigError(f"the source has no {unknown[0]!r}; it has {', '.join(suffixes) or 'no maps'}.")
    for batch in source:
        for row, key in enumerate(batch.keys):
            check_key(key)
            write_picture(directory / "pictures" / key, batch.pictures[row], format=pictures)
            _write_maps(batch, row, key, directory, source, suffixes, frame)
        yield len(batch.keys)


def check_key(key: str) -> None:
    """Raise DataError for a key that would leave the folder it is written to."""
    path = PurePosixPath(key)
    if not key or path.is_absolute() or ".." in path.parts or "\\" in key:
        raise DataError(f"the key {key!r} is not a file name; a key is a relative path without '..'.")


def _write_maps(
    batch: Batch, row: int, key: str, directory: Path, source: Source, suffixes: Mapping[str, str], frame: str
) -> None:
    for intrinsic in source.intrinsics:
        value, valid = batch.maps[intrinsic.name]
        path = directory / intrinsic.name / f"{key}{suffixes[intrinsic.name]}"
        write_map(path, value[row], valid[row], intrinsic, frame=frame)
