"""Renders rooms with exact intrinsics.

    picture = sRGB( clip( albedo × shading, 0, 1 ) )         in linear light, per pixel, by construction

Normals and depth are point samples at the pixel's centre; albedo and picture are box-filtered over sub-samples in
linear light, and shading is what is left: filtered light / filtered albedo. A pixel of an emitting window pane is not
valid: glass has no depth worth learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .light import pack_lights, shade
from .parts import SceneSpec
from .scene import WORLD, build_scene
from .textures import albedo_of
from .trace import Hit, Solids, cast, pack_solids, surface

__all__ = ["WORLD", "Rooms", "linear_to_srgb", "render", "render_scenes", "srgb_to_linear"]

SHADING_MAX = 8.0


def srgb_to_linear(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Rooms:
    """A batch of rooms, float32 on the device asked for."""

    picture: Tensor  # (B,3,H,W) sRGB-encoded, [0,1]
    normals: Tensor  # (B,3,H,W) unit, OpenCV camera frame: x right, y down, z forward
    depth: Tensor  # (B,1,H,W) z-depth, metres
    albedo: Tensor  # (B,3,H,W) linear, [0,1]
    shading: Tensor  # (B,3,H,W) linear, >= 0; the picture's exposure is in it
    valid: Tensor  # (B,1,H,W) bool
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Packed:
    """Everything of S rooms as tensors."""

    solids: list[Solids]
    room: Tensor  # (S,3)
    shell: Tensor  # (S,6) material of each face
    kind: Tensor  # (S,M)
    colours: Tensor  # (S,M,9)
    layout: Tensor  # (S,M,5): 1/period, cos, sin, offset u, offset v
    emission: Tensor  # (S,M)
    decals: Tensor  # (S,D,7): face, centre, half, material, pane
    eye: Tensor  # (S,3)
    camera: Tensor  # (S,3,3) rows right, down, forward
    focal: Tensor  # (S,1)
    exposure: Tensor  # (S,)
    present: frozenset[int]


def _pack(specs: Sequence[SceneSpec], device: torch.device) -> _Packed:
    count, most = len(specs), max(len(s.materials) for s in specs)
    kind, emission = np.zeros((count, most), np.int64), np.zeros((count, most), np.float32)
    colours, layout = np.full((count, most, 9), 0.5, np.float32), np.ones((count, most, 5), np.float32)
    decals = np.full((count, max(1, *(len(s.decals) for s in specs)), 7), -1, np.float32)
    for s, spec in enumerate(specs):
        for m, mat in enumerate(spec.materials):
            kind[s, m], emission[s, m], colours[s, m] = mat.kind, mat.emission, mat.colours.reshape(9)
            layout[s, m] = (1 / mat.period, np.cos(mat.angle), np.sin(mat.angle), *mat.offset)
        for d, decal in enumerate(spec.decals):
            decals[s, d] = (decal.face, *decal.centre, *decal.half, decal.material, decal.pane)

    def put(values: object, dtype: type = np.float32) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype)).to(device)

    return _Packed(
        pack_solids(specs, device), put([s.room for s in specs]), put([s.shell_material for s in specs], np.int64),
        put(kind, np.int64), put(colours), put(layout), put(emission), put(decals), put([s.eye for s in specs]),
        put([s.camera for s in specs]), put([[s.focal] for s in specs]), put([s.exposure for s in specs]),
        frozenset(int(k) for k in np.unique(kind)),
    )  # fmt: skip


def _camera_rays(scene: _Packed, size: int, sub: int, device: torch.device) -> Tensor:
    """World directions (S,3,size*size*sub*sub) with camera z = 1, ordered (row, column, sub-sample)."""
    inner = (torch.arange(sub, device=device, dtype=torch.float32) + 0.5) / sub
    ticks = torch.arange(size, device=device, dtype=torch.float32)
    ys = ticks[:, None, None, None] + inner[None, None, :, None]
    xs = ticks[None, :, None, None] + inner[None, None, None, :]
    ys, xs = torch.broadcast_tensors(ys, xs)
    x, y = (2 * xs.reshape(1, -1) / size - 1) / scene.focal, (2 * ys.reshape(1, -1) / size - 1) / scene.focal
    return torch.bmm(scene.camera.transpose(1, 2), torch.stack([x, y, torch.ones_like(x)], 1))


def _apply_decals(scene: _Packed, hit: Hit, u: Tensor, v: Tensor, material: Tensor) -> tuple[Tensor, Tensor]:
    """Material where a decal covers the shell, and which rays see a window pane."""
    pane = torch.zeros_like(hit.face, dtype=torch.bool)
    bare = hit.solid < 0
    for d in range(scene.decals.shape[1]):
        face, cu, cv, hu, hv, mat, is_pane = scene.decals[:, d].unsqueeze(-1).unbind(1)
        inside = bare & (hit.face == face) & ((u - cu).abs() < hu) & ((v - cv).abs() < hv)
        material = torch.where(inside, mat.long(), material)
        pane = torch.where(inside, is_pane > 0, pane)
    return material, pane


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """table (S,M,K) at index (S,R) -> (S,K,R)."""
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[2])).transpose(1, 2)


def _hit_points(scene: _Packed, rays: Tensor):
    """Trace and describe: hit, world point, normal, texture coordinates, material, pane."""
    origin = scene.eye.unsqueeze(-1)
    hit = cast(scene.solids, scene.room, origin, rays)
    point = origin + hit.t.unsqueeze(1) * rays
    normal, u, v, material = surface(scene.solids, scene.room, scene.shell, hit, point)
    material, pane = _apply_decals(scene, hit, u, v, material)
    return hit, point, normal, u, v, material, pane


def _beauty(scene: _Packed, lights, rays: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Albedo and unexposed light of each ray, both (S,3,R)."""
    _, point, normal, u, v, material, _ = _hit_points(scene, rays)
    scale, cos, sin, du, dv = _gather(scene.layout, material).unbind(1)
    uu, vv = (u * cos + v * sin) * scale + du, (v * cos - u * sin) * scale + dv
    colours = _gather(scene.colours, material)
    kind = scene.kind.gather(1, material)
    albedo = albedo_of(kind, (colours[:, :3], colours[:, 3:6], colours[:, 6:]), uu, vv, scene.present)
    glow = scene.emission.gather(1, material).unsqueeze(1)
    shading = shade(lights, scene.solids, scene.room, point, normal, samples)
    return albedo, albedo * torch.where(glow > 0, -glow, shading)


def _expose(light: Tensor, albedo: Tensor, target: Tensor) -> Tensor:
    """Scale lit surfaces to a mean of `target`; emitters (stored negative) shine near white whatever it is."""
    lit = light.clamp_min(0)
    mean = lit.mean((1, 2)).clamp_min(1e-4)
    return torch.where(light < 0, 1.05 * albedo, lit * (target / mean)[:, None, None])


def _render_specs(specs: Sequence[SceneSpec], size: int, sub: int, device: torch.device) -> list[Tensor]:
    """picture, normals, depth, albedo, shading, valid of a few rooms."""
    scene, lights, count = _pack(specs, device), pack_lights(specs, device), len(specs)
    square = (count, -1, size, size)
    hit, _, normal, *_, pane = _hit_points(scene, _camera_rays(scene, size, 1, device))
    normals = torch.bmm(scene.camera, normal).reshape(square)
    depth, valid = hit.t.unsqueeze(1).reshape(square), ~pane.unsqueeze(1).reshape(square)
    rays, step = _camera_rays(scene, size, sub, device), 4096 if device.type == "cpu" else 1 << 30
    chunks = [_beauty(scene, lights, r, sub * sub) for r in rays.split(step, dim=2)]
    albedo, light = (torch.cat(parts, 2) for parts in zip(*chunks, strict=True))
    light = _expose(light, albedo, scene.exposure)
    albedo, light = (x.reshape(count, 3, size * size, sub * sub).mean(-1).reshape(square) for x in (albedo, light))
    shading = (light / albedo).clamp(0, SHADING_MAX)
    picture = linear_to_srgb((albedo * shading).clamp(0, 1))
    return [picture, normals, depth, albedo, shading, valid]


def render(
    seeds: Sequence[int], *, size: int = 64, supersample: int = 2, look: str = "standard", device: str = "cpu"
) -> Rooms:
    """The rooms of these seeds. On a CPU one room at a time, so that a room never depends on its neighbours."""
    return render_scenes([build_scene(int(s), look) for s in seeds], size=size, supersample=supersample, device=device)


@torch.no_grad()
def render_scenes(specs: Sequence[SceneSpec], *, size: int = 64, supersample: int = 2, device: str = "cpu") -> Rooms:
    """`render` for scenes that are built already."""
    where = torch.device(device)
    together = 1 if where.type == "cpu" else 64
    parts = [_render_specs(specs[i : i + together], size, supersample, where) for i in range(0, len(specs), together)]
    maps = [torch.cat(values) for values in zip(*parts, strict=True)]
    return Rooms(*maps, captions=tuple(s.caption for s in specs))
