"""Files of the app: what may be uploaded, and results, each under a name that cannot be guessed.

Everything lies in one temporary folder that is removed when the server ends.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ilora_cli.predict_work import Writer
from ilora_cli.web.models import Drawn
from ilora_core.errors import DataError
from ilora_core.files import write_text
from ilora_core.intrinsics import Intrinsic
from ilora_core.maps_io import MAP_SUFFIXES, read_picture, write_map
from ilora_core.viewer import scene_html

__all__ = ["FORMATS", "MAX_PIXELS", "Result", "Results", "accepted_picture"]

FORMATS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "AVIF": ".avif",
}
"""What an upload may be, by its content, and the suffix it is read under."""

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are unpacked."""

_KEPT = 8  # results; a map of 12 Mpixel takes 144 MB on disk
_FRAME = "opencv"


def accepted_picture(path: Path | str, *, max_bytes: int) -> Tensor:
    """An upload as a picture (3,H,W) in [0,1]. Raises DataError that names the file, not where it lies."""
    path = Path(path)
    if path.stat().st_size > max_bytes:
        raise DataError(f"{path.name} is larger than {max_bytes / 1e6:.0f} MB (--max-upload-mb).")
    try:
        with warnings.catch_warnings():  # Pillow warns of sizes that are refused below
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(FORMATS)) as image:
                suffix, pixels = FORMATS[image.format or ""], image.width * image.height
                if pixels > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width}×{image.height}")
                image.verify()
    except Image.DecompressionBombError as error:
        raise DataError(f"{path.name} has more than {MAX_PIXELS / 1e6:.0f} million pixels ({error}).") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise DataError(
            f"{path.name} is not a picture that can be read. Give png, jpeg, webp, avif, bmp, gif or tiff."
        ) from error
    return _decoded(path, suffix)


def _decoded(path: Path, suffix: str) -> Tensor:
    """Every pixel of it. Readers go by the suffix, which the user chose: it is read under that of its content."""
    named = path.with_name(f"{secrets.token_hex(8)}{suffix}")
    named.hardlink_to(path)
    try:
        return read_picture(named)
    except DataError as error:
        raise DataError(f"{path.name} is damaged or incomplete: not every pixel can be read.") from error
    finally:
        named.unlink()


@dataclass(frozen=True)
class Result:
    """A picture's maps on disk: <folder>/<map>/<key>.npy and <folder>/<map>_preview/<key>.png."""

    token: str
    key: str
    folder: Path
    size: tuple[int, int]
    intrinsics: Mapping[str, Intrinsic]
    note: str

    @property
    def picture(self) -> Path:
        """The input, or the sample, as 8-bit PNG."""
        return self.folder / "pictures" / f"{self.key}.png"

    def preview(self, name: str) -> Path:
        """A map as `ilora predict` shows it."""
        return self.folder / f"{name}_preview" / f"{self.key}.png"

    def array(self, name: str) -> np.ndarray:
        """A map (H,W,C), read from the disk where it is looked at."""
        stored = np.load(self.folder / name / f"{self.key}.npy", mmap_mode="r")
        return stored[..., None] if stored.ndim == 2 else stored

    def map(self, name: str) -> Tensor:
        """A map (C,H,W)."""
        return torch.from_numpy(np.array(self.array(name))).permute(2, 0, 1)

    @property
    def has_scene(self) -> bool:
        """Whether it can be shown in three dimensions."""
        return {"depth", "normals"} <= set(self.intrinsics)


class Results:
    """The last results. Nothing is found but by a token and the names in its result."""

    def __init__(self, folder: Path):
        self._folder, self._lock = folder, threading.Lock()
        self._kept: dict[str, Result] = {}

    def add(self, drawn: Drawn, *, key: str, note: str) -> Result:
        """Write a result; the oldest one goes when there are too many."""
        token = secrets.token_urlsafe(12)
        intrinsics = {name: drawn.intrinsics[name] for name in drawn.maps}
        size = (drawn.picture.shape[-2], drawn.picture.shape[-1])
        result = Result(token, _plain(key), self._folder / token, size, intrinsics, note)
        writer, drawer = Writer(result.folder, ["npy"], _FRAME, preview=True), SimpleNamespace(intrinsics=intrinsics)
        for name, value in {**drawn.maps, "": drawn.picture}.items():
            writer.write(result.key, name, value, drawer)  # type: ignore[arg-type]  # it asks for the intrinsics only
        with self._lock:
            self._kept[token] = result
            while len(self._kept) > _KEPT:
                old = self._kept.pop(next(iter(self._kept)))
                shutil.rmtree(old.folder, ignore_errors=True)
        return result

    def get(self, token: str) -> Result | None:
        """A result that is still kept."""
        return self._kept.get(token)

    def file(self, result: Result, name: str, suffix: str) -> Path | None:
        """A map in one of the formats of `ilora predict`, written when it is first asked for."""
        if name not in result.intrinsics or suffix not in MAP_SUFFIXES:
            return None
        path = result.folder / name / f"{result.key}{suffix}"
        with self._lock:
            if not path.is_file():
                write_map(path, result.map(name), None, result.intrinsics[name], frame=_FRAME)
        return path

    def scene(self, result: Result) -> Path | None:
        """The page in three dimensions, where there are depth and normals."""
        if not result.has_scene:
            return None
        path = result.folder / "scene.html"
        with self._lock:
            if not path.is_file():
                write_text(path, _scene(result))
        return path


def _scene(result: Result) -> str:
    albedo = result.intrinsics.get("albedo")
    linear_colour: Any = result.map("albedo") if albedo and albedo.channels == 3 else None
    return scene_html(
        picture=read_picture(result.picture),
        depth=result.map("depth"),
        depth_kind=result.intrinsics["depth"].predicted().kind,
        normals=result.map("normals"),
        albedo=linear_colour,
    )


def _plain(key: str) -> str:
    """A file's name of letters that no shell, URL or file system minds."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:60] or "picture"
