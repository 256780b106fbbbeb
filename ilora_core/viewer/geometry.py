"""From a depth map to points and normals, in the OpenCV camera frame (x right, y down, z forward).

    focal    f = max(H, W) / (2 tan(fov / 2)): the field of view is that of the longer side, the principal point is central
    point    P = z ((u + ½ − W/2) / f, (v + ½ − H/2) / f, 1) of the pixel in column u, row v
    normal   ∂P/∂v × ∂P/∂u, normalised: it faces the camera

A relative map m has no metres. With t = (m − low) / (high − low), low and high its 0.5th and 99.5th percentiles, its nearest
depth is called 1 and its farthest r:

    affine_depth        z = 1 + (r − 1) t
    affine_disparity    z = 1 / (1/r + (1 − 1/r) t)

A pixel lies at a depth edge when the relative jump to one of its four neighbours exceeds 10 / f, as on a surface seen at
about 84°.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["EDGE_SLOPE", "FOV_DEG", "at_edges", "focal_px", "limits_of", "normals_of", "unproject", "z_of"]

FOV_DEG = 60.0
EDGE_SLOPE = 10.0
_LIMITS = (0.005, 0.995)
_NEAREST = 0.05  # what lies nearer than this share of `near`, or farther than its inverse of `far`, is an outlier


def focal_px(height: int, width: int, fov_deg: float) -> float:
    """Focal length in pixels."""
    return max(height, width) / (2 * math.tan(math.radians(fov_deg) / 2))


def limits_of(depth: Tensor) -> tuple[float, float]:
    """The map values (H,W) that count as the ends of its range; NaN is not valid. (0, 1) of a map without pixels."""
    known = depth[torch.isfinite(depth)].double().sort().values
    if not known.numel():
        return 0.0, 1.0
    low, high = (float(known[round(q * (known.numel() - 1))]) for q in _LIMITS)
    return (low, high) if high > low else (low, low + 1.0)


def z_of(depth: Tensor, kind: str, far_over_near: float, limits: tuple[float, float]) -> Tensor:
    """Depth along z (H,W); NaN where it is not known. Metric depth is returned in its own metres."""
    if kind == "metric":
        return torch.where((depth > 0) & torch.isfinite(depth), depth, torch.nan)
    low, high = limits
    t = (depth - low) / (high - low)
    r = far_over_near
    z = 1 + (r - 1) * t if kind == "affine_depth" else 1 / (1 / r + (1 - 1 / r) * t)
    return torch.where((z > _NEAREST) & (z < r / _NEAREST), z, torch.nan)


def unproject(z: Tensor, fov_deg: float) -> Tensor:
    """z (H,W) -> points (3,H,W)."""
    height, width = z.shape
    f = focal_px(height, width, fov_deg)
    v = (torch.arange(height, dtype=z.dtype, device=z.device) + 0.5 - height / 2) / f
    u = (torch.arange(width, dtype=z.dtype, device=z.device) + 0.5 - width / 2) / f
    return torch.stack([u.expand(height, -1) * z, v[:, None].expand(-1, width) * z, z])


def at_edges(z: Tensor, fov_deg: float) -> Tensor:
    """bool (H,W): the pixels at depth edges. A neighbour that is not known makes no edge."""
    most = EDGE_SLOPE / focal_px(z.shape[0], z.shape[1], fov_deg)
    found = torch.zeros_like(z, dtype=torch.bool)
    for dim in (0, 1):
        length = z.shape[dim] - 1
        before, after = z.narrow(dim, 0, length), z.narrow(dim, 1, length)
        jump = (after - before).abs() > most * torch.minimum(before, after)
        found.narrow(dim, 0, length).logical_or_(jump)
        found.narrow(dim, 1, length).logical_or_(jump)
    return found


def normals_of(points: Tensor) -> Tensor:
    """Unit normals (3,H-2,W-2) of the inner points by central differences; NaN where a neighbour is not known."""
    along_u = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    along_v = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    normal = torch.linalg.cross(along_v, along_u, dim=0)
    return normal / normal.norm(dim=0).clamp(min=1e-20)
