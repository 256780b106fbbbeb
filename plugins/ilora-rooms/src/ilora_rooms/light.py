"""Shading: ambient × occlusion + ceiling light + window or lamp + sun through the window, all with shadows.

    S(p) = a · AO(p) + Σ_l  L_l · max(n·ω_l, 0) · V_l(p) / (d_l² + ε)

Soft shadows and occlusion cost one ray or one distance per sub-sample: sub-sample k of every pixel always looks at the
same k-th point of each light (and the k-th radius), so a box filter over sub-samples integrates them without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .parts import SceneSpec
from .scene import FACE_AXES
from .trace import Solids, _shell_exit, clearance, occluded

__all__ = ["Lights", "pack_lights", "shade"]

AO_RADII = (0.10, 0.65, 0.22, 0.40)


@dataclass(frozen=True)
class Lights:
    """All lights of S rooms; a power of zero switches one off. `has_*` spare the CPU whole kinds."""

    ceiling: Tensor  # (S,3)
    ceiling_radius: Tensor  # (S,1)
    ceiling_power: Tensor  # (S,3)
    area: Tensor  # (S,3)
    area_u: Tensor  # (S,3)
    area_v: Tensor  # (S,3)
    area_power: Tensor  # (S,3)
    sun: Tensor  # (S,3) unit, towards the sun
    sun_power: Tensor  # (S,3)
    window: Tensor  # (S,5): face, centre u, centre v, half u, half v
    ambient: Tensor  # (S,3)
    has_area: bool
    has_sun: bool


def _window_row(spec: SceneSpec) -> list[float]:
    panes = [d for d in spec.decals if d.pane]
    if spec.sun is None or not panes:
        return [-1.0, 0.0, 0.0, 0.0, 0.0]
    frame = spec.decals[spec.decals.index(panes[0]) - 1]
    return [float(frame.face), *frame.centre, *frame.half]


def pack_lights(specs: Sequence[SceneSpec], device: torch.device) -> Lights:
    zero, up = np.zeros(3), np.array([0.0, 1.0, 0.0])
    area: list[Any] = [s.area or (zero, zero, zero, zero) for s in specs]
    sun: list[Any] = [s.sun if s.sun is not None else (up, zero) for s in specs]
    ceiling: list[Any] = [s.ceiling for s in specs]

    def rows(values: Sequence) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(device)

    return Lights(
        rows([c[0] for c in ceiling]), rows([[c[1]] for c in ceiling]), rows([c[2] for c in ceiling]),
        rows([a[0] for a in area]), rows([a[1] for a in area]), rows([a[2] for a in area]), rows([a[3] for a in area]),
        rows([s[0] for s in sun]), rows([s[1] for s in sun]),
        rows([_window_row(s) for s in specs]), rows([s.ambient for s in specs]),
        any(s.area is not None for s in specs), any(s.sun is not None for s in specs),
    )  # fmt: skip


def _points_on_disc(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """n fixed points (a, b) of the unit disc, one per sub-sample."""
    k = torch.arange(n, device=device, dtype=torch.float32)
    r, phi = ((k + 0.5) / n).sqrt(), 2.399963 * k
    return r * phi.cos(), r * phi.sin()


def _from_light(groups, point: Tensor, normal: Tensor, where: Tensor, softening: float) -> Tensor:
    """Cosine over squared distance, zero in shadow; (S,R). `where` (S,3,R)."""
    to = where - point
    d2 = to.square().sum(1)
    cosine = (to * normal).sum(1).clamp_min(0) / d2.clamp_min(1e-6).sqrt()
    dark = occluded(groups, point, to)
    return torch.where(dark, 0.0, cosine / (d2 + softening))


def _sunlight(lights: Lights, groups, room: Tensor, point: Tensor, normal: Tensor) -> Tensor:
    """Lit when the ray to the sun leaves through the window and meets no solid on its way; (S,R)."""
    towards = lights.sun.unsqueeze(-1).expand_as(point)
    t, face = _shell_exit(room, point, towards)
    out = point + t.unsqueeze(1) * towards
    u_axis = torch.tensor([a for a, _ in FACE_AXES], device=point.device)[face]
    v_axis = torch.tensor([b for _, b in FACE_AXES], device=point.device)[face]
    u = out.gather(1, u_axis.unsqueeze(1)).squeeze(1)
    v = out.gather(1, v_axis.unsqueeze(1)).squeeze(1)
    window = lights.window.unsqueeze(-1)
    inside = (
        (face == window[:, 0]) & ((u - window[:, 1]).abs() < window[:, 3]) & ((v - window[:, 2]).abs() < window[:, 4])
    )
    cosine = (towards * normal).sum(1).clamp_min(0)
    dark = occluded(groups, point, towards, length=20.0)
    return torch.where(inside & ~dark, cosine, 0.0)


def shade(
    lights: Lights, groups: Sequence[Solids], room: Tensor, point: Tensor, normal: Tensor, samples: int
) -> Tensor:
    """Linear shading (S,3,R) before exposure; the R rays are ordered (pixel, sub-sample)."""
    device, rays = point.device, point.shape[2]
    a, b = (p.repeat(rays // samples) for p in _points_on_disc(samples, device))  # (R,)
    start = point + 2e-3 * normal
    radii = torch.tensor([AO_RADII[(k * 4) // samples if samples > 4 else k] for k in range(samples)], device=device)
    if samples == 1:
        radii = radii.new_tensor([0.3])
    radii = radii.repeat(rays // samples)
    ao = (clearance(groups, room, point + radii * normal) / radii).clamp(0, 1)
    sky = 0.85 + 0.15 * normal[:, 1]
    total = lights.ambient.unsqueeze(-1) * ((0.3 + 0.7 * ao) * sky).unsqueeze(1)
    flat = torch.stack([a, torch.zeros_like(a), b])
    where = lights.ceiling.unsqueeze(-1) + lights.ceiling_radius.unsqueeze(-1) * flat
    total = total + lights.ceiling_power.unsqueeze(-1) * _from_light(groups, start, normal, where, 0.6).unsqueeze(1)
    if lights.has_area:
        where = lights.area.unsqueeze(-1) + 0.8 * (lights.area_u.unsqueeze(-1) * a + lights.area_v.unsqueeze(-1) * b)
        total = total + lights.area_power.unsqueeze(-1) * _from_light(groups, start, normal, where, 0.4).unsqueeze(1)
    if lights.has_sun:
        total = total + lights.sun_power.unsqueeze(-1) * _sunlight(lights, groups, room, start, normal).unsqueeze(1)
    return total
