"""Numbers of a map for the page: tiles of float32, so that a map of any size is read where the pointer is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ilora_cli.web.files import Result
from ilora_core.intrinsics import Intrinsic

__all__ = ["SIDE", "reading", "tile"]

SIDE = 256
"""Pixels of a tile's side; smaller at the right and lower edge."""


def tile(result: Result, name: str, column: int, row: int) -> bytes | None:
    """Little-endian float32, row by row, channels together. None where there is no such tile."""
    if name not in result.intrinsics or column < 0 or row < 0:
        return None
    part = result.array(name)[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
    return np.ascontiguousarray(part, dtype="<f4").tobytes() if part.size else None


def reading(intrinsic: Intrinsic) -> dict[str, Any]:
    """What the numbers at a pixel are called, and their unit."""
    drawn = intrinsic.predicted()
    if drawn.encoding == "unit_vector":
        return {"names": ["x", "y", "z"], "unit": "unit vector: x right, y down, z forward"}
    if drawn.encoding == "relative_depth":
        unit = {
            "metric": "m",
            "affine_depth": "relative, far = large",
            "affine_disparity": "relative, near = large",
        }[drawn.kind]
        return {"names": [drawn.name], "unit": unit}
    names = {1: [drawn.name], 2: ["1", "2"], 3: ["R", "G", "B"]}[drawn.channels]
    colour = drawn.channels == 3 and drawn.encoding in ("srgb", "shading")
    return {"names": names, "unit": "linear RGB" if colour else drawn.unit or drawn.name}
