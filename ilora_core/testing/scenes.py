"""Two scenes whose maps are known in closed form: a sphere before a tilted plane, seen by a pinhole camera.

    ray        d = ((u + ½ − W/2) / f, (v + ½ − H/2) / f, 1),  f = max(H, W), OpenCV frame (x right, y down, z forward)
    sphere     |t d − c| = r  →  t = (d·c − √((d·c)² − |d|² (|c|² − r²))) / |d|²,   n = (t d − c) / r
    plane      n·(t d) = k    →  t = k / n·d
    depth      z = t,  since d_z = 1
    shading    0.25 + 0.75 max(0, n·l)
    picture    sRGB(albedo · shading)

Everything is visible and lit, so every pixel is valid. `axis_correlations` tells a flipped axis or an inverted depth by
its sign: the commonest bug of this field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic, linear_to_srgb

__all__ = ["AXES", "INTRINSICS", "Scenes", "axis_correlations", "make_scenes"]

INTRINSICS = (NORMALS, DEPTH, ALBEDO, SHADING)
AXES = {
    "normals": ("x (right)", "y (down)", "z (forward)"),
    "depth": ("depth",),
    "albedo": ("red", "green", "blue"),
    "shading": ("red", "green", "blue"),
}

# Plane normals (towards the camera: z < 0) and distances, sphere centres and radii, one row per scene.
_PLANES = torch.tensor([[0.45, -0.30, -0.84, -4.2], [-0.35, 0.50, -0.79, -4.0]], dtype=torch.float64)
_SPHERES = torch.tensor([[0.25, -0.15, 3.0, 0.8], [-0.30, 0.20, 2.8, 0.7]], dtype=torch.float64)
_LIGHT = torch.tensor([-0.5, -0.6, -0.62], dtype=torch.float64)


@dataclass(frozen=True)
class Scenes:
    """pictures (B,3,H,W) in [0,1]; maps: name -> Map (B,C,H,W), OpenCV frame, metres, linear light; valid (B,1,H,W)."""

    pictures: Tensor
    maps: Mapping[str, Tensor]
    valid: Tensor


def make_scenes(height: int = 64, width: int = 64) -> Scenes:
    """Both scenes at a size of your choice."""
    rows = [_trace(plane, sphere, height, width) for plane, sphere in zip(_PLANES, _SPHERES, strict=True)]
    maps = {name: torch.stack([row[name] for row in rows]).float() for name in rows[0]}
    pictures = linear_to_srgb(maps["albedo"] * maps["shading"]).clamp(0, 1)
    return Scenes(pictures, maps, torch.ones(len(rows), 1, height, width, dtype=torch.bool))


def axis_correlations(intrinsic: Intrinsic, predicted: Tensor, scenes: Scenes, valid: Tensor) -> dict[str, float]:
    """Axis -> Pearson correlation of the prediction with the truth over the valid pixels of both scenes.

    An affine disparity is compared with 1 / z. A constant prediction correlates 0.
    """
    truth = scenes.maps[intrinsic.name]
    if intrinsic.kind == "affine_disparity":
        truth = 1 / truth
    if truth.shape[1] != predicted.shape[1]:
        truth = truth.mean(1, keepdim=True).expand_as(predicted)
    names = AXES[intrinsic.name] if predicted.shape[1] == len(AXES[intrinsic.name]) else ("value",)
    return {name: _correlation(predicted[:, c][valid[:, 0]], truth[:, c][valid[:, 0]]) for c, name in enumerate(names)}


def _trace(plane: Tensor, sphere: Tensor, height: int, width: int) -> dict[str, Tensor]:
    focal = max(height, width)
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    v, u = torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
    ray = torch.stack([(u - width / 2) / focal, (v - height / 2) / focal, torch.ones_like(u)])
    flat = plane[:3] / plane[:3].norm()
    t_plane = plane[3] / torch.einsum("c,chw->hw", flat, ray)
    centre, radius = sphere[:3], sphere[3]
    along, square = torch.einsum("c,chw->hw", centre, ray), ray.square().sum(0)
    under_root = along**2 - square * (centre.square().sum() - radius**2)
    hit = under_root > 0
    t_sphere = (along - under_root.clamp(min=0).sqrt()) / square
    depth = torch.where(hit, t_sphere, t_plane)
    normal = torch.where(hit, (depth * ray - centre[:, None, None]) / radius, flat[:, None, None])
    shading = 0.25 + 0.75 * torch.einsum("c,chw->hw", _LIGHT / _LIGHT.norm(), normal).clamp(min=0)
    return {
        "normals": normal / normal.norm(dim=0),
        "depth": depth[None],
        "albedo": _paint(depth * ray, hit),
        "shading": shading.expand(3, -1, -1),
    }


def _paint(points: Tensor, on_sphere: Tensor) -> Tensor:
    """Two coloured checks, one for each body, so that every channel varies and no two agree."""
    odd = (points * 1.7).floor().sum(0).long().remainder(2).bool()
    sphere = torch.where(odd, _colour(0.8, 0.25, 0.2), _colour(0.3, 0.6, 0.25))
    plane = torch.where(odd, _colour(0.2, 0.35, 0.75), _colour(0.7, 0.7, 0.4))
    return torch.where(on_sphere, sphere, plane)


def _colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64)[:, None, None]


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = a.norm() * b.norm()
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0
