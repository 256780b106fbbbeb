"""A picture and its maps as JSON data for the page: small, integers, deflated, base64.

picture, albedo   8 bits a channel, sRGB-encoded
normals           round(127 n) + 128 per axis, 1 … 255; (0,0,0) = not valid
depth             1 + round(65534 (m − low) / (high − low)), little endian; 0 = not valid
"""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import DEPTH_KINDS, linear_to_srgb
from ilora_core.viewer.agree import agreement
from ilora_core.viewer.geometry import EDGE_SLOPE, FOV_DEG, limits_of

__all__ = ["scene_data"]

_START_RATIO = 4.0  # far/near of relative depth where no normals say better


def scene_data(
    *,
    picture: Tensor,
    depth: Tensor | None,
    depth_kind: str,
    normals: Tensor | None,
    albedo: Tensor | None = None,
    title: str = "",
    side: int = 256,
    fov_deg: float = FOV_DEG,
) -> dict[str, Any]:
    """What the page needs of one picture, at most `side` pixels on its longer side. Arguments as in `scene_html`.

    Raises DataError for maps that do not fit the picture, or when there is neither depth nor normals.
    """
    _check(picture, depth, depth_kind, normals, albedo)
    if not 1 <= fov_deg <= 170:
        raise DataError(f"a field of view lies between 1 and 170 degrees, not at {fov_deg:g}.")
    # No larger than the coarsest map: enlarged without blending it would have steps.
    finest = [max(value.shape[-2:]) for value in (depth, normals) if value is not None]
    height, width = _size(picture.shape[1], picture.shape[2], min(side, *finest))
    data: dict[str, Any] = {"title": title, "width": width, "height": height, "fov": fov_deg, "edge_slope": EDGE_SLOPE}
    data["picture"] = _bytes(_eight_bits(_smooth(picture, height, width)))
    if albedo is not None:
        data["albedo"] = _bytes(_eight_bits(linear_to_srgb(_smooth(albedo, height, width))))
    if normals is not None:
        data["normals"] = _bytes(_normals(_picked(normals, height, width)))
    if depth is not None:
        data["depth"] = {"kind": depth_kind, "ratio": _START_RATIO, **_depth(_picked(depth, height, width)[0])}
    if depth is not None and normals is not None:
        same = depth if depth.shape[-2:] == normals.shape[-2:] else _picked(depth, normals.shape[1], normals.shape[2])
        found = agreement(same, normals, fov_deg, kind=depth_kind)
        data["agreement"] = asdict(found)
        if found.far_over_near is not None and found.suspect not in ("unexplained", "depth"):
            data["depth"]["ratio"] = round(found.far_over_near, 2)
            data["depth"]["fitted"] = True
    return data


def _check(picture: Tensor, depth: Tensor | None, kind: str, normals: Tensor | None, albedo: Tensor | None) -> None:
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise DataError(f"the viewer's picture is (3,H,W), not {tuple(picture.shape)}.")
    if depth is None and normals is None:
        raise DataError("the viewer needs depth or normals; it got neither.")
    if kind not in DEPTH_KINDS and depth is not None:
        raise DataError(f"no depth kind is called {kind!r}; known are {', '.join(DEPTH_KINDS)}.")
    aspect = picture.shape[2] / picture.shape[1]
    for name, value, channels in (("depth", depth, 1), ("normals", normals, 3), ("albedo", albedo, 3)):
        if value is None:
            continue
        if value.ndim != 3 or value.shape[0] != channels:
            raise DataError(f"the viewer's {name} is ({channels},H,W), not {tuple(value.shape)}.")
        if abs(math.log(value.shape[2] / value.shape[1] / aspect)) > 0.05:
            sizes = [f"{m.shape[2]}x{m.shape[1]}" for m in (picture, value)]
            raise DataError(f"the picture is {sizes[0]} and its {name} {sizes[1]}: they are not of one view.")


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    shrink = min(1.0, side / max(height, width))
    return max(2, round(height * shrink)), max(2, round(width * shrink))


def _smooth(picture: Tensor, height: int, width: int) -> Tensor:
    whole = picture.detach().float().cpu().nan_to_num()[None]
    if whole.shape[-2:] != (height, width):
        whole = F.interpolate(whole, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return whole[0].clamp(0, 1)


def _picked(value: Tensor, height: int, width: int) -> Tensor:
    """At another size without blending: a mean over a depth edge is a point where nothing is."""
    return F.interpolate(value.detach().float().cpu()[None], (height, width), mode="nearest-exact")[0]


def _eight_bits(picture: Tensor) -> np.ndarray:
    return (picture * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def _normals(n: Tensor) -> np.ndarray:
    length = n.norm(dim=0, keepdim=True)
    known = torch.isfinite(n).all(0, keepdim=True) & (length > 1e-3)
    stored = torch.where(known, (n / length * 127).round() + 128, 0)
    return stored.permute(1, 2, 0).contiguous().numpy().astype(np.uint8)


def _depth(depth: Tensor) -> dict[str, Any]:
    known = torch.isfinite(depth)
    if not known.any():
        raise DataError("the viewer's depth has no finite pixel.")
    low, high = float(depth[known].min()), float(depth[known].max())
    span = high - low if high > low else 1.0
    stored = torch.where(known, 1 + ((depth.double() - low) / span * 65534).round(), 0)
    limits = limits_of(depth)
    return {"data": _bytes(stored.numpy().astype("<u2")), "low": low, "high": low + span, "limits": list(limits)}


def _bytes(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
