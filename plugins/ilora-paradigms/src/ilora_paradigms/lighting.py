"""Light on facets: the shading half of a paradigm, as log shading (n,1,H,W).

    smooth   value noise of 2 and 4 cells, and a near lamp: -1.2 U · log(1 + d²/h²) in 80 % of the pictures
    facets   log(a + (1-a)·max(0, n·l)) with one light l per picture and a normal n per facet, a gradient across each
             facet and darker creases along the lines; in 75 % of the pictures, else the facets are paint on one wall
    shadows  a half-plane and a band, each in 35 % of the pictures, with edges from sharp to very soft

Steps in shading are deliberate: a world in which every sharp edge is paint teaches that every edge is paint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_paradigms.fields import Dice, coordinates, gather, value_noise
from ilora_paradigms.layout import FACETS, Layout

__all__ = ["Sun", "draw_sun", "facet_light", "lambert", "large_shadows", "smooth_light", "unit"]


@dataclass(frozen=True)
class Sun:
    """One light per picture. direction: to the light, unit (n,3), x right, y down, z into the scene; ambient (n,1,1,1)."""

    direction: Tensor
    ambient: Tensor


def unit(vector: Tensor, dim: int = 1) -> Tensor:
    """Length 1 along `dim`."""
    return vector / vector.norm(dim=dim, keepdim=True).clamp(min=1e-6)


def draw_sun(dice: Dice) -> Sun:
    """Somewhere before the picture, more often above than below."""
    vector = dice.normal(3)
    vector = torch.stack([vector[:, 0], vector[:, 1] - 0.5, -vector[:, 2].abs() - 0.2], 1)
    return Sun(unit(vector), dice.uniform(1, 1, 1, low=0.12, high=0.6))


def lambert(normal: Tensor, sun: Sun) -> Tensor:
    """log(ambient + (1 - ambient)·max(0, n·l)) of normals (n,3,H,W), as (n,1,H,W)."""
    facing = (normal * sun.direction[:, :, None, None]).sum(1, keepdim=True).clamp(min=0)
    return (sun.ambient + (1 - sun.ambient) * facing).log()


def smooth_light(dice: Dice, size: int) -> Tensor:
    """What varies slowly over the whole picture."""
    x, y = coordinates(size, dice.device)
    field = value_noise(dice, 2, size) * dice.uniform(1, 1, 1, high=0.5)
    field = field + value_noise(dice, 4, size) * dice.uniform(1, 1, 1, high=0.25)
    left, top = dice.uniform(1, 1, 1, low=-1.5, high=1.5), dice.uniform(1, 1, 1, low=-1.5, high=1.5)
    height = dice.uniform(1, 1, 1, low=0.3, high=1.5)
    fall = (1 + ((x - left) ** 2 + (y - top) ** 2) / height**2).log()
    return field - 1.2 * dice.uniform(1, 1, 1) * dice.chance(0.8, 1, 1, 1) * fall


def facet_light(dice: Dice, layout: Layout, sun: Sun) -> Tensor:
    """The facets' own shading; nought in a quarter of the pictures."""
    x, y = coordinates(layout.facet.shape[-1], dice.device)
    normal = _facet_normals(dice)
    slope = dice.normal(FACETS, 2, deviation=0.45) * dice.uniform(1, 1)
    own = dice.normal(FACETS, 1, deviation=0.2) * dice.uniform(1, 1)
    per_facet = gather(torch.cat([normal, slope, own], 2), layout.facet)
    light = lambert(per_facet[:, :3], sun) + per_facet[:, 3:4] * x + per_facet[:, 4:5] * y + per_facet[:, 5:]
    width = dice.uniform(1, 1, 1, low=0.03, high=0.25)
    crease = (-layout.distance.amin(1, keepdim=True) / width).exp() * dice.uniform(1, 1, 1, high=0.6)
    return (light - crease * dice.chance(0.6, 1, 1, 1)) * dice.chance(0.75, 1, 1, 1)


def large_shadows(dice: Dice, size: int) -> Tensor:
    """log of what a half-plane and a band of shadow leave of the light."""
    x, y = coordinates(size, dice.device)
    left = torch.zeros(dice.n, 1, size, size, device=dice.device)
    for kind in ("half-plane", "band"):
        angle = dice.uniform(1, 1, 1, high=2 * math.pi)
        across = angle.cos() * x + angle.sin() * y - dice.uniform(1, 1, 1, low=-0.7, high=0.7)
        if kind == "band":
            across = dice.uniform(1, 1, 1, low=0.05, high=0.4) - across.abs()
        softness = (2 / size) * 0.3 * (size / 3.0) ** dice.uniform(1, 1, 1)
        cover = (across / softness).sigmoid() * dice.uniform(1, 1, 1, low=0.2, high=0.85) * dice.chance(0.35, 1, 1, 1)
        left = left + (1 - cover).log()
    return left


def _facet_normals(dice: Dice) -> Tensor:
    """(n,FACETS,3): most facets share one of four directions per picture, as walls, floor and ceiling do."""
    few = dice.normal(4, 3)
    few = unit(torch.cat([few[..., :2], -few[..., 2:].abs() - 0.15], 2), 2)
    choice = F.one_hot(dice.integers(FACETS, count=4), 4).float()
    shared = choice @ few
    return unit(shared + dice.normal(FACETS, 3, deviation=0.35) * dice.chance(0.35, FACETS, 1), 2)
