"""Objects before the facets, painted from the back to the front: ellipses, boxes and cylinders with own shading.

A dead-leaves model (Lee, Mumford and Huang 2001) in which a leaf has an albedo of the palette (85 %), a shape that the
light models (75 %; sphere, cylinder, or a box of two planes), a soft shadow thrown away from the light (60 %) and a
Phong highlight (25 %). Without an albedo of its own a leaf is a bump in the wall; without a shape it is a sticker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_paradigms.fields import Dice, coordinates, gather
from ilora_paradigms.layout import PALETTE, TEXTURES
from ilora_paradigms.lighting import Sun, lambert, unit

__all__ = ["MOST_OBJECTS", "Canvas", "paint_objects"]

FEWEST_OBJECTS, MOST_OBJECTS = 4, 15


@dataclass(frozen=True)
class Canvas:
    """What is painted so far: log albedo (n,3,H,W), log shading (n,1,H,W), gloss (n,1,H,W), linear."""

    albedo: Tensor
    shading: Tensor
    gloss: Tensor


@dataclass(frozen=True)
class _Leaf:
    """u, v: position in the leaf's own frame (n,1,H,W), the leaf reaches to ±1; radius in pixels (n,1,1,1)."""

    u: Tensor
    v: Tensor
    round: Tensor
    radius_px: Tensor

    def reach(self) -> Tensor:
        """1 on the outline, less inside."""
        return torch.where(self.round > 0, (self.u**2 + self.v**2).sqrt(), torch.maximum(self.u.abs(), self.v.abs()))


def paint_objects(dice: Dice, canvas: Canvas, palette: Tensor, masks: Tensor, sun: Sun, smooth: Tensor) -> Canvas:
    """4 to 15 objects over the canvas. masks: `texture_masks`; smooth: the slow part of the log shading."""
    count = dice.integers(1, 1, 1, count=MOST_OBJECTS - FEWEST_OBJECTS + 1) + FEWEST_OBJECTS
    for number in range(MOST_OBJECTS):
        canvas = _paint_one(dice, canvas, palette, masks, sun, smooth, (number < count).float())
    return canvas


def _paint_one(
    dice: Dice, canvas: Canvas, palette: Tensor, masks: Tensor, sun: Sun, smooth: Tensor, exists: Tensor
) -> Canvas:
    size = smooth.shape[-1]
    centre, turn, reach, ellipse = _pose(dice)
    shift = reach.amax(1, keepdim=True) * dice.uniform(1, 1, 1, low=0.1, high=0.9)
    away = -sun.direction[:, :2, None, None]
    shadow = _leaf(size, centre + shift * away, turn, reach, ellipse)
    softness = (size / 6.0) ** dice.uniform(1, 1, 1)
    cover = ((1 - shadow.reach()) * shadow.radius_px / softness).sigmoid()
    cover = cover * dice.uniform(1, 1, 1, low=0.2, high=0.9) * dice.chance(0.6, 1, 1, 1) * exists
    shading = canvas.shading + (1 - cover).log()
    leaf = _leaf(size, centre, turn, reach, ellipse)
    inside = (leaf.reach() < 1).float() * exists
    normal = _normals(dice, leaf, turn, ellipse)
    own_shape, own_paint = dice.chance(0.75, 1, 1, 1), dice.chance(0.85, 1, 1, 1)
    level = dice.normal(1, 1, 1, deviation=0.15)
    shading = shading + inside * own_shape * (lambert(normal, sun) + smooth + level - shading)
    albedo = canvas.albedo + inside * own_paint * (_paint(dice, palette, masks) - canvas.albedo)
    shine = _highlight(dice, normal, sun) * dice.chance(0.25, 1, 1, 1) * own_shape
    return Canvas(albedo, shading, canvas.gloss + inside * (shine - canvas.gloss))


def _pose(dice: Dice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre (n,2,1,1), turn (n,1,1,1), half-axes (n,2,1,1) in units where the picture is 2 wide, ellipse or not."""
    centre = dice.uniform(2, 1, 1, low=-1.1, high=1.1)
    turn = dice.chance(0.6, 1, 1, 1) * dice.uniform(1, 1, 1, high=math.pi)
    radius = 0.06 + 0.5 * dice.uniform(1, 1, 1) ** 1.7
    aspect = dice.normal(1, 1, 1, deviation=0.35)
    return centre, turn, torch.cat([radius * aspect.exp(), radius * (-aspect).exp()], 1), dice.chance(0.4, 1, 1, 1)


def _leaf(size: int, centre: Tensor, turn: Tensor, reach: Tensor, ellipse: Tensor) -> _Leaf:
    x, y = coordinates(size, centre.device)
    x, y = x - centre[:, :1], y - centre[:, 1:]
    u = (turn.cos() * x + turn.sin() * y) / reach[:, :1]
    v = (turn.cos() * y - turn.sin() * x) / reach[:, 1:]
    return _Leaf(u, v, ellipse, reach.amin(1, keepdim=True) * size / 2)


def _normals(dice: Dice, leaf: _Leaf, turn: Tensor, ellipse: Tensor) -> Tensor:
    """(n,3,H,W), to the viewer. Ellipses bulge as spheres; of the rest half are cylinders, half boxes of two planes."""
    u, v = leaf.u, leaf.v
    upright = (1 - u**2).clamp(min=1e-4).sqrt()
    sphere = torch.cat([u, v, -(1 - u**2 - v**2).clamp(min=1e-4).sqrt()], 1)
    cylinder = torch.cat([u, torch.zeros_like(u), -upright], 1)
    planes = dice.normal(2, 3)[..., None, None]
    planes = torch.cat([planes[:, :, :2], -planes[:, :, 2:].abs() - 0.1], 2)
    second = (u > dice.uniform(1, 1, 1, low=-0.7, high=1.3)).float()
    box = planes[:, 0] + second * (planes[:, 1] - planes[:, 0])
    flat_or_curved = torch.where(dice.chance(0.5, 1, 1, 1) > 0, cylinder, box)
    own = torch.where(ellipse > 0, sphere, flat_or_curved)
    x = turn.cos() * own[:, :1] - turn.sin() * own[:, 1:2]
    y = turn.sin() * own[:, :1] + turn.cos() * own[:, 1:2]
    return unit(torch.cat([x, y, own[:, 2:]], 1))


def _paint(dice: Dice, palette: Tensor, masks: Tensor) -> Tensor:
    """log albedo (n,3,H,W): one colour of the palette, on a third of the objects with a texture of another."""
    index = dice.integers(1, 2, count=PALETTE)
    first, second = (gather(palette, index[..., k : k + 1, None]) for k in range(2))
    kind = F.one_hot(dice.integers(count=TEXTURES), TEXTURES).float()[..., None, None]
    strength = dice.chance(1 / 3, 1, 1, 1) * dice.uniform(1, 1, 1, low=0.3, high=1.0)
    return first + (kind * masks).sum(1, keepdim=True) * strength * (second - first)


def _highlight(dice: Dice, normal: Tensor, sun: Sun) -> Tensor:
    """k·max(0, r·v)ᵖ with r the light mirrored at the surface and v to the viewer, (n,1,H,W)."""
    light = sun.direction[:, :, None, None]
    mirrored = 2 * (normal * light).sum(1, keepdim=True) * normal - light
    towards = (-mirrored[:, 2:]).clamp(min=0)
    return dice.uniform(1, 1, 1, low=0.1, high=0.8) * towards ** dice.uniform(1, 1, 1, low=8, high=60)
