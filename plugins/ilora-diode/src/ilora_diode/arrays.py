"""DIODE's arrays as ilora's maps.

    depth    metres, (H,W) or (H,W,1), any float type; valid where the mask is > 0 and the depth is > 0 and finite
    normals  (H,W,3), x right, y up, z to the viewer -> (x, -y, -z), to unit length; (0,0,0) = not valid

With `paper` the reference code's two peculiarities: depth is valid by the mask alone, and a normal counts as missing where
its three components SUM to 0.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import convert_normals, unit_vectors
from ilora_core.pixels import Pixels, read_pixels

__all__ = ["read_depth", "read_normals"]

_FRAME = "opengl"
_SHORTEST = 1e-6


def read_depth(depth: Path, mask: Path, *, paper: bool = False) -> tuple[Tensor, Tensor]:
    """Metres (1,H,W), 0 where not valid, and Valid (1,H,W). Raises DataError that names the file."""
    value, allowed = _floats(depth, 1), _numbers(mask, 1) > 0
    if allowed.shape != value.shape:
        raise DataError(f"{mask} is {_size(allowed)}, its depth {depth} {_size(value)}. Download both again.")
    valid = allowed & torch.isfinite(value)
    if not paper:
        valid &= value > 0
    return torch.where(valid, value, torch.zeros_like(value)), valid


def read_normals(path: Path, *, paper: bool = False) -> tuple[Tensor, Tensor]:
    """Unit normals (3,H,W) in ilora's frame, 0 where not valid, and Valid (1,H,W). Raises DataError that names the file."""
    stored = _floats(path, 3)
    known = stored.sum(0, keepdim=True) != 0 if paper else (stored.norm(dim=0, keepdim=True) > _SHORTEST)
    valid = known & torch.isfinite(stored).all(0, keepdim=True)
    clean = torch.where(valid, stored, torch.zeros_like(stored))
    n = convert_normals(unit_vectors(clean[None]), _FRAME)[0]
    return torch.where(valid, n, torch.zeros_like(n)), valid


def _numbers(path: Path, channels: int) -> Tensor:
    """(C,H,W) float32."""
    return _planes(read_pixels(path), path, channels)


def _floats(path: Path, channels: int) -> Tensor:
    pixels = read_pixels(path)
    if pixels.top is not None:
        raise DataError(f"{path} holds integers; DIODE's depth and normals are floats. Is it DIODE's?")
    return _planes(pixels, path, channels)


def _planes(pixels: Pixels, path: Path, channels: int) -> Tensor:
    stored = torch.from_numpy(pixels.stored).permute(2, 0, 1)
    if stored.shape[0] != channels:
        raise DataError(f"{path} has {stored.shape[0]} channel(s), not {channels}. Is it DIODE's?")
    return stored


def _size(array: Tensor) -> str:
    return f"{array.shape[-1]}x{array.shape[-2]}"
