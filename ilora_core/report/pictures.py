"""Pictures inside a report, and preview grids as PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ilora_core.errors import DataError
from ilora_core.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["data_uri", "grid_png", "to_image"]

_LARGEST = 512
_PIXEL_ART = 128  # below this a picture is stored exactly and shown with hard pixels
_CELL = (128, 320)
_GAP, _BAR, _FONT = 6, 26, 15
_PAPER, _INK, _MUTED = (255, 255, 255), (28, 32, 38), (236, 238, 241)


def to_image(picture: Tensor) -> Image.Image:
    """(3,H,W) or (1,H,W) in [0,1] -> an 8-bit RGB image; what is outside is clipped, NaN turns black."""
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise DataError(f"a picture is (3,H,W) or (1,H,W), not {tuple(picture.shape)}.")
    values = np.nan_to_num(picture.detach().float().cpu().expand(3, -1, -1).numpy(), nan=0.0)
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))


def data_uri(picture: Tensor) -> tuple[str, int, int]:
    """A picture as a data URI with its width and height: PNG when small, else JPEG of at most 512 px a side."""
    image = to_image(picture)
    small = max(image.size) <= _PIXEL_ART
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=92, subsampling=0)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size


def grid_png(
    path: Path | str,
    rows: Sequence[Sequence[Tensor | None]],
    column_titles: Sequence[str],
    *,
    row_titles: Sequence[str] = (),
    title: str = "",
) -> None:
    """Write pictures (3,H,W) in rows under captions as one PNG; None leaves a gap. Small pictures are enlarged by whole
    factors, so that each pixel stays visible. Raises DataError when a row does not fit the captions."""
    if not rows or any(len(row) != len(column_titles) for row in rows):
        raise DataError(f"a grid needs rows of {len(column_titles)} pictures, as many as it has captions.")
    if row_titles and len(row_titles) != len(rows):
        raise DataError(f"{len(rows)} rows have {len(row_titles)} titles.")
    images = [[None if p is None else _fit(to_image(p)) for p in row] for row in rows]
    sizes = [image.size for row in images for image in row if image]
    width, height = (max(side) for side in zip(*(sizes or [(_CELL[0], _CELL[0])]), strict=True))
    width = max(width, min(max(int(_font().getlength(t)) + 2 for t in column_titles), 2 * width))
    left = _GAP + (max(int(_font().getlength(t)) for t in row_titles) + 2 * _GAP if row_titles else 0)
    top = _GAP + (_BAR if title else 0)
    size = (left + len(column_titles) * (width + _GAP), top + _BAR + len(rows) * (height + _GAP))
    canvas = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, title, _GAP, _GAP, size[0] - 2 * _GAP)
    for column, caption in enumerate(column_titles):
        _write(draw, caption, left + column * (width + _GAP), top, width, centred=True)
    for line, row in enumerate(images):
        y = top + _BAR + line * (height + _GAP)
        if row_titles:
            _write(draw, row_titles[line], 2 * _GAP, y + height // 2 - _FONT // 2, left)
        for column, image in enumerate(row):
            x = left + column * (width + _GAP)
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=_MUTED)
            if image:
                canvas.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
    with atomic_path(path) as temporary:
        canvas.save(temporary, "PNG", optimize=True)


def _fit(image: Image.Image) -> Image.Image:
    least, most = _CELL
    side = max(image.size)
    if side > most:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
        return image
    factor = max(1, round(least / side))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=_FONT)


def _write(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int, *, centred: bool = False) -> None:
    """One line, shortened with dots where it does not fit."""
    font = _font()
    while text and font.getlength(text) > width:
        text = text.rstrip("…")[:-1] + "…" if len(text) > 1 else ""
    shift = (width - font.getlength(text)) / 2 if centred else 0
    draw.text((x + shift, y), text, fill=_INK, font=font)
