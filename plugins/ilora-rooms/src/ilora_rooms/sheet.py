"""Contact sheets: a grid of pictures and maps in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .render import Rooms, linear_to_srgb

__all__ = ["depth_picture", "grid", "rooms_sheet", "save"]


def depth_picture(depth: Tensor, valid: Tensor) -> Tensor:
    """[0,1], near = bright, per-picture min-max over valid pixels; (B,1,H,W)."""
    far = depth.masked_fill(~valid, -torch.inf).amax((1, 2, 3), keepdim=True)
    near = depth.masked_fill(~valid, torch.inf).amin((1, 2, 3), keepdim=True)
    return ((far - depth) / (far - near).clamp_min(1e-6)).clamp(0, 1)


def grid(pictures: Tensor, columns: int) -> Tensor:
    """(B,3,H,W) to one picture (3, rows*H, columns*W), the rest black."""
    b, c, h, w = pictures.shape
    rows = -(-b // columns)
    full = pictures.new_zeros(rows * columns, c, h, w)
    full[:b] = pictures
    return full.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)


def rooms_sheet(rooms: Rooms, columns: int = 2) -> Tensor:
    """Picture, normals, depth, albedo, shading of each room in a row."""
    views: Sequence[Tensor] = (
        rooms.picture,
        (rooms.normals + 1) / 2,
        depth_picture(rooms.depth, rooms.valid).expand(-1, 3, -1, -1),
        linear_to_srgb(rooms.albedo),
        linear_to_srgb((rooms.shading / 1.5).clamp(0, 1)),
    )
    return grid(torch.stack(list(views), 1).flatten(0, 1), columns * len(views))


def save(picture: Tensor, path: str | Path) -> None:
    """(3,H,W) in [0,1] to an 8-bit PNG."""
    array = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(np.ascontiguousarray(array)).save(path, optimize=True)
