"""What an image or array file holds, as numbers, before anyone says what they mean.

png (8 and 16 bit), jpg, webp, bmp, gif, avif, tif, exr, npy and npz. EXIF orientation is applied. Colour profiles are
not: numbers are taken as they are stored. Every failure is one DataError that names the file.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ilora_core.errors import DataError, MissingDependency
from ilora_core.png16 import decode_png16, is_png16

__all__ = ["ARRAY_SUFFIXES", "IMAGE_SUFFIXES", "MAX_PIXELS", "SUFFIXES", "Pixels", "read_pixels"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".avif", ".tif", ".tiff")
ARRAY_SUFFIXES = (".exr", ".npy", ".npz")
SUFFIXES = IMAGE_SUFFIXES + ARRAY_SUFFIXES
MAX_PIXELS = 178_956_970
"""Files with more pixels are refused before they are unpacked: a small file can claim any size."""

_ORIENTATION = 0x0112
_FAILURES = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class Pixels:
    """The numbers of one file.

    stored  float32 (H,W,C), C in 1 to 3, as stored: 0 to `top` for integers
    top     the largest number of the file's integer type (1, 255 or 65535); None where the file holds plain numbers
    alpha   (H,W) in [0,1], or None
    """

    stored: np.ndarray
    top: int | None
    alpha: np.ndarray | None = None


def read_pixels(path: Path | str) -> Pixels:
    """Read any supported file. Raises DataError for a missing, foreign, damaged or too large one."""
    path = Path(path)
    readers = {".exr": _read_exr, ".npy": _read_npy, ".npz": _read_npz, ".tif": _read_tiff, ".tiff": _read_tiff}
    try:
        with warnings.catch_warnings():  # Pillow and numpy warn where this module raises or copes
            warnings.simplefilter("ignore")
            pixels = readers.get(path.suffix.lower(), _read_image)(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read; use one of {', '.join(SUFFIXES)}.") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise DataError(f"{path} has too many pixels ({error}); make it smaller first.") from error
    except _FAILURES as error:
        raise DataError(f"cannot read {path}: {error or type(error).__name__}. Replace or remove the file.") from error
    if 0 in pixels.stored.shape:
        raise DataError(f"{path} holds no pixels (shape {pixels.stored.shape}).")
    return pixels


def _read_image(path: Path) -> Pixels:
    with open(path, "rb") as file:
        head = file.read(32)
    with Image.open(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height}")
        if is_png16(head):
            pixels = _from_array(decode_png16(path.read_bytes(), max_pixels=MAX_PIXELS), grey_alpha=True)
        else:
            pixels = _from_array(_plain(image), grey_alpha=True)
    alpha = None if pixels.alpha is None else _orient(pixels.alpha, orientation)
    return Pixels(_orient(pixels.stored, orientation), pixels.top, alpha)


def _plain(image: Image.Image) -> np.ndarray:
    """Any Pillow mode -> an array whose dtype and channels say the rest."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("L", "LA", "RGB", "RGBA", "F", "I"):
        return np.asarray(image)
    see_through = image.mode in ("PA", "RGBa", "La") or "transparency" in image.info
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGBA" if see_through else "RGB"))


def _orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the camera's EXIF orientation, values 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.require(array, requirements=["C", "W"])  # torch wants arrays it could write to


def _read_tiff(path: Path) -> Pixels:
    try:
        return _read_image(path)
    except UnidentifiedImageError:  # Pillow does not know colour tiffs of 16 bits or floats
        if path.read_bytes()[:2] not in (b"II", b"MM"):
            raise
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependency(f"{path} is a kind of tiff that needs `pip install tifffile`.") from error
    return _from_array(np.asarray(tifffile.imread(path)))


def _read_npy(path: Path) -> Pixels:
    return _from_array(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> Pixels:
    """The array called "map" or "arr_0", or the only one besides an optional "valid" or "mask".

    Opened here, because np.load leaks the handle of a damaged archive.
    """
    with (
        open(path, "rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):  # np.load leaks a damaged file's handle
        mask = next((archive[name] for name in ("valid", "mask") if name in archive.files), None)
        names = [name for name in archive.files if name not in ("valid", "mask")]
        chosen = next((name for name in ("map", "arr_0") if name in names), names[0] if len(names) == 1 else None)
        if chosen is None:
            raise ValueError(f"it holds the arrays {', '.join(names) or 'none'}; call the right one 'map'")
        pixels = _from_array(archive[chosen])
    if mask is None:
        return pixels
    mask = np.squeeze(mask)
    if mask.shape != pixels.stored.shape[:2]:
        raise ValueError(f"its mask is {mask.shape}, its map {pixels.stored.shape[:2]}")
    return Pixels(pixels.stored, pixels.top, (mask != 0).astype(np.float32))


def _read_exr(path: Path) -> Pixels:
    if not path.is_file():
        raise FileNotFoundError(path)
    import OpenEXR

    limit = OpenEXR.File(str(path), separate_channels=True, header_only=True).header()["dataWindow"]
    height, width = (int(high - low) + 1 for low, high in zip(limit[0][::-1], limit[1][::-1], strict=True))
    if height * width > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width}x{height}")
    with OpenEXR.File(str(path), separate_channels=True) as file:
        planes = {name: np.asarray(channel.pixels) for name, channel in file.channels().items()}
    alpha = next((planes.pop(name) for name in list(planes) if name.split(".")[-1] == "A"), None)
    stored = np.stack([planes[name].astype(np.float32) for name in _in_order(planes)], -1)
    return Pixels(stored, None, None if alpha is None else alpha.astype(np.float32))


def _in_order(planes: dict[str, Any]) -> list[str]:
    """R, G, B or X, Y, Z or U, V; with any layer's name in front; or the only channel."""
    by_last = {name.split(".")[-1].upper(): name for name in planes}
    for wanted in ("RGB", "XYZ", "RG", "UV"):
        if len(planes) == len(wanted) and all(letter in by_last for letter in wanted):
            return [by_last[letter] for letter in wanted]
    if len(planes) == 1:
        return list(planes)
    for lone in ("Z", "V", "DEPTH", "Y"):
        if lone in by_last:
            return [by_last[lone]]
    raise ValueError(f"its channels {', '.join(planes)} are not R,G,B, X,Y,Z, one channel, or one called Z or Y")


def _from_array(array: np.ndarray, *, grey_alpha: bool = False) -> Pixels:
    if array.dtype == bool:
        array, top = array.astype(np.uint8), 1
    elif array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, not numbers")
    else:
        top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(array.dtype.newbyteorder("="))
    array = _height_width_channels(array)
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{array.shape[1]}x{array.shape[0]}")
    channels = array.shape[2]
    see_through = bool(top) and (channels == 4 or (channels == 2 and grey_alpha))
    alpha = array[..., -1] / top if see_through else None
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and so invalid
        stored = np.require(array[..., :-1] if alpha is not None else array, np.float32, ["C", "W"])
    if stored.shape[2] > 3:
        raise ValueError(f"it has {stored.shape[2]} channels; a picture or map has 1 to 3")
    return Pixels(stored, top, None if alpha is None else alpha.astype(np.float32))


def _height_width_channels(array: np.ndarray) -> np.ndarray:
    """(H,W), (H,W,C), (C,H,W) or either with a leading 1 -> (H,W,C)."""
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3 and array.shape[2] in (1, 2, 3, 4):
        return array
    if array.ndim == 3 and array.shape[0] in (1, 2, 3, 4):
        return array.transpose(1, 2, 0)
    raise ValueError(f"an array of shape {array.shape} is not (H,W), (H,W,C) or (C,H,W)")
