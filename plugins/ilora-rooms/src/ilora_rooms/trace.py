"""Ray casting over batches of rooms: every solid is convex, so a ray meets it in one interval [t0, t1].

Tensors are (S, N, R): S rooms, N solids, R rays. Boxes intersect slabs, cylinders a slab and a quadric, spheres a
quadric, each in its own frame. Rays need not be unit length: with a camera ray whose forward component is 1, t IS the
z-depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .parts import BOX, CYLINDER, SPHERE, SceneSpec

__all__ = ["Hit", "Solids", "cast", "clearance", "occluded", "pack_solids", "surface"]

FAR = 1e6
TINY = 1e-9


@dataclass(frozen=True)
class Solids:
    """Solids of one shape over S rooms. `rotation` rows are local axes in the world; `index` is the material."""

    shape: int
    rotation: Tensor  # (S,N,3,3)
    centre: Tensor  # (S,N,3)
    half: Tensor  # (S,N,3)
    material: Tensor  # (S,N)
    casts: Tensor  # (S,N) bool

    def local(self, vectors: Tensor, *, points: bool) -> list[Tensor]:
        """World (S,3,R) to local coordinates, a list of three (S,N,R)."""
        out = []
        for axis in range(3):
            rows = self.rotation[:, :, axis]  # (S,N,3)
            q = torch.bmm(rows, vectors)
            if points:
                q = q - (rows * self.centre).sum(-1, keepdim=True)
            out.append(q)
        return out


@dataclass(frozen=True)
class Hit:
    """Nearest surfaces: distance (S,R), number of the solid over all shapes (-1: the shell), face of the shell."""

    t: Tensor
    solid: Tensor
    face: Tensor


def pack_solids(specs: Sequence[SceneSpec], device: torch.device) -> list[Solids]:
    """One Solids per shape, padded over rooms with specks far below the floor that no ray meets."""
    packed = []
    for shape in (BOX, CYLINDER, SPHERE):
        chosen = [[i for i, s in enumerate(spec.shape) if s == shape] for spec in specs]
        n = max(map(len, chosen))
        if n == 0:
            continue
        rotation = np.tile(np.eye(3, dtype=np.float32), (len(specs), n, 1, 1))
        centre = np.full((len(specs), n, 3), -1000.0, np.float32)
        half = np.full((len(specs), n, 3), 1e-3, np.float32)
        material = np.zeros((len(specs), n), np.int64)
        casts = np.zeros((len(specs), n), bool)
        for s, (spec, which) in enumerate(zip(specs, chosen, strict=True)):
            for k, i in enumerate(which):
                rotation[s, k], centre[s, k], half[s, k] = spec.rotation[i].T, spec.centre[i], spec.half[i]
                material[s, k], casts[s, k] = spec.part_material[i], spec.casts[i]
        arrays = (torch.from_numpy(a).to(device) for a in (rotation, centre, half, material, casts))
        packed.append(Solids(shape, *arrays))
    return packed


def _slab(o: Tensor, d: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / (d + TINY)
    middle, reach = -o * inverse, inverse.abs() * half
    return middle - reach, middle + reach


def _quadric(o: Sequence[Tensor], d: Sequence[Tensor], radius: Tensor) -> tuple[Tensor, Tensor]:
    """|o + t d| = radius over the axes given (two: a cylinder's side, three: a sphere)."""
    a = sum(x * x for x in d) + 1e-12
    b = sum(p * x for p, x in zip(o, d, strict=True))
    c = sum(p * p for p in o) - radius * radius
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    miss = disc < 0
    return ((-b - root) / a).masked_fill(miss, FAR), ((-b + root) / a).masked_fill(miss, -FAR)


def _interval(solids: Solids, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit (S,N,R); empty when entry > exit."""
    o, d = solids.local(origin, points=True), solids.local(direction, points=False)
    half = solids.half.unsqueeze(-1)  # (S,N,3,1)
    if solids.shape == SPHERE:
        return _quadric(o, d, half[:, :, 0])
    if solids.shape == CYLINDER:
        spans = [_quadric((o[0], o[2]), (d[0], d[2]), half[:, :, 0]), _slab(o[1], d[1], half[:, :, 1])]
    else:
        spans = [_slab(o[k], d[k], half[:, :, k]) for k in range(3)]
    t0, t1 = spans[0]
    for a, b in spans[1:]:
        t0, t1 = torch.maximum(t0, a), torch.minimum(t1, b)
    return t0, t1


def cast(groups: Sequence[Solids], room: Tensor, origin: Tensor, direction: Tensor) -> Hit:
    """First hit of rays from inside the room. `room` (S,3); origin (S,3,R) or (S,3,1); direction (S,3,R)."""
    t, face = _shell_exit(room, origin, direction)
    solid = torch.full_like(face, -1)
    base = 0
    for group in groups:
        t0, t1 = _interval(group, origin, direction)
        t0 = torch.where((t0 <= t1) & (t0 > 1e-4), t0, FAR)
        near, which = t0.min(dim=1)
        closer = near < t
        t = torch.where(closer, near, t)
        solid = torch.where(closer, which + base, solid)
        base += group.half.shape[1]
    return Hit(t, solid, face)


def _shell_exit(room: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where a ray leaves the shell, and through which face (-x, +x, -y, +y, -z, +z)."""
    lo = torch.stack([-room[:, 0] / 2, torch.zeros_like(room[:, 0]), -room[:, 2] / 2], 1).unsqueeze(-1)
    hi = lo + room.unsqueeze(-1)
    d = torch.where(direction.abs() < TINY, TINY, direction)
    t = (torch.where(d > 0, hi, lo) - origin) / d
    t, axis = t.min(dim=1)
    positive = torch.gather(d, 1, axis.unsqueeze(1)).squeeze(1) > 0
    return t, 2 * axis + positive.long()


def occluded(groups: Sequence[Solids], origin: Tensor, direction: Tensor, length: float = 1.0) -> Tensor:
    """True where a shadow caster cuts the segment origin .. origin + length * direction; (S,R)."""
    dark = None
    for group in groups:
        t0, t1 = _interval(group, origin, direction)
        cut = (t0.clamp_min(0) < t1.clamp_max(length)) & group.casts.unsqueeze(-1)
        found = cut.any(dim=1)
        dark = found if dark is None else dark | found
    if dark is None:
        return torch.zeros(direction.shape[0], direction.shape[2], dtype=torch.bool, device=direction.device)
    return dark


def clearance(groups: Sequence[Solids], room: Tensor, point: Tensor) -> Tensor:
    """Distance from a point inside the room to the nearest surface; (S,R)."""
    x, y, z = point.unbind(1)
    w, h, d = (room[:, k : k + 1] for k in range(3))
    best = torch.minimum(torch.minimum(w / 2 - x.abs(), d / 2 - z.abs()), torch.minimum(y, h - y))
    for group in groups:
        q = group.local(point, points=True)
        half = group.half.unsqueeze(-1)
        if group.shape == SPHERE:
            away = (q[0].square() + q[1].square() + q[2].square()).sqrt() - half[:, :, 0]
        elif group.shape == CYLINDER:
            side = ((q[0].square() + q[2].square()).sqrt() - half[:, :, 0]).clamp_min(0)
            away = (side.square() + (q[1].abs() - half[:, :, 1]).clamp_min(0).square()).sqrt()
        else:
            beyond = [(q[k].abs() - half[:, :, k]).clamp_min(0).square() for k in range(3)]
            away = (beyond[0] + beyond[1] + beyond[2]).sqrt()
        best = torch.minimum(best, away.amin(dim=1))
    return best.clamp_min(0)


def surface(groups: Sequence[Solids], room: Tensor, shell: Tensor, hit: Hit, point: Tensor):
    """World normal (S,3,R), texture coordinates u, v in metres (S,R), and material index (S,R) at the hits."""
    inward = torch.tensor(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=point.dtype, device=point.device
    )
    normal = inward[hit.face].transpose(1, 2)
    x, y, z = point.unbind(1)
    u = torch.where(hit.face < 2, z, x)
    v = torch.where((hit.face >= 2) & (hit.face < 4), z, y)
    material = torch.gather(shell, 1, hit.face)
    base = 0
    for group in groups:
        n = group.half.shape[1]
        mine = (hit.solid >= base) & (hit.solid < base + n)
        which = (hit.solid - base).clamp(0, n - 1)
        frame = group.rotation.flatten(2).gather(1, which.unsqueeze(-1).expand(-1, -1, 9)).unflatten(2, (3, 3))
        centre = group.centre.gather(1, which.unsqueeze(-1).expand(-1, -1, 3))
        half = group.half.gather(1, which.unsqueeze(-1).expand(-1, -1, 3))
        local = (frame @ (point.transpose(1, 2) - centre).unsqueeze(-1)).squeeze(-1)  # (S,R,3)
        n_local, gu, gv = _local_surface(group.shape, local, half)
        n_world = (frame.transpose(2, 3) @ n_local.unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        normal = torch.where(mine.unsqueeze(1), n_world, normal)
        u, v = torch.where(mine, gu, u), torch.where(mine, gv, v)
        material = torch.where(mine, group.material.gather(1, which), material)
        base += n
    return normal / normal.norm(dim=1, keepdim=True), u, v, material


def _local_surface(shape: int, p: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outward normal and (u, v) of a surface point p (S,R,3) in the solid's frame."""
    x, y, z = p.unbind(-1)
    if shape == SPHERE:
        n = p / half
        return n, torch.atan2(z, x) * half[..., 0], torch.asin(n[..., 1].clamp(-1, 1)) * half[..., 0]
    if shape == CYLINDER:
        cap = (y.abs() / half[..., 1]) >= (x.square() + z.square()).sqrt() / half[..., 0]
        side = torch.stack([x, torch.zeros_like(x), z], -1)
        top = torch.stack([torch.zeros_like(x), y.sign(), torch.zeros_like(x)], -1)
        return (
            torch.where(cap.unsqueeze(-1), top, side),
            torch.where(cap, x, torch.atan2(z, x) * half[..., 0]),
            torch.where(cap, z, y),
        )
    axis = (p.abs() / half).argmax(-1)
    n = torch.nn.functional.one_hot(axis, 3).to(p.dtype) * p.sign()
    u = torch.where(axis == 0, z, x)
    v = torch.where(axis == 1, z, y)
    return n, u, v
