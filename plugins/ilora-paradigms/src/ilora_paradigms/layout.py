"""Facets and what they are painted with: the albedo half of a paradigm.

    facets    the cells between up to five random lines, 40 % of them nearly upright or level, bent by smooth noise
    palette   six colours per picture, used again and again: log a = L + c₁·(1,0,-1)/√2 + c₂·(1,-2,1)/√6,
              L ~ N(-1.35, 0.75); c₁, c₂ ~ N(0, 0.28), N(0, 0.16) times one U(0, 1.8) per picture, in half of them
              U(1, 4.5): muted and gaudy pictures; two fifths of the facets share the palette's first colour
    texture   a second colour of the palette through stripes, checks, tiles or 1/f blots, the regular ones foreshortened

Few colours, piecewise constant, with texture: Land and McCann 1971 for the Mondrian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_paradigms.fields import Dice, coordinates, gather, pink_noise, value_noise

__all__ = ["FACETS", "PALETTE", "TEXTURES", "Layout", "draw_layout", "draw_palette", "paint_facets", "texture_masks"]

PALETTE, TEXTURES = 6, 4
_LINES, _TILES = 5, 37
FACETS = 2**_LINES
_DARKEST, _BRIGHTEST = 0.02, 0.92


@dataclass(frozen=True)
class Layout:
    """facet: int64 (n,1,H,W), 0 … FACETS-1; distance to each line (n,5,H,W), large where a line does not exist."""

    facet: Tensor
    distance: Tensor


def draw_layout(dice: Dice, size: int) -> Layout:
    """Random facets."""
    x, y = coordinates(size, dice.device)
    bend = value_noise(dice, 4, size, channels=2) * dice.uniform(1, 1, 1, high=0.1) * dice.chance(0.5, 1, 1, 1)
    x, y = x + bend[:, :1], y + bend[:, 1:]
    aligned = dice.chance(0.4, _LINES)
    upright = dice.chance(0.5, _LINES) * (math.pi / 2) + dice.normal(_LINES, deviation=0.06)
    angle = torch.where(aligned > 0, upright, dice.uniform(_LINES, high=math.pi))[..., None, None]
    offset = dice.uniform(_LINES, low=-0.8, high=0.8)[..., None, None]
    exists = dice.chance(0.8, _LINES)[..., None, None]
    signed = angle.cos() * x + angle.sin() * y - offset
    side = (signed > 0).float() * exists
    bits = 2 ** torch.arange(_LINES, device=dice.device).view(1, -1, 1, 1)
    facet = (side * bits).sum(1, keepdim=True).long()
    return Layout(facet, signed.abs() + 10 * (1 - exists))


def draw_palette(dice: Dice) -> Tensor:
    """log colours (n,PALETTE,3) of linear albedo."""
    root2, root6 = math.sqrt(2), math.sqrt(6)
    axes = torch.tensor([[1 / root2, 0, -1 / root2], [1 / root6, -2 / root6, 1 / root6]], device=dice.device)
    muted, gaudy = dice.uniform(1, 1, high=1.8), dice.uniform(1, 1, low=1.0, high=4.5)
    spread = torch.tensor([0.28, 0.16], device=dice.device) * torch.where(dice.chance(0.5, 1, 1) > 0, muted, gaudy)
    lightness = dice.normal(PALETTE, 1, deviation=0.75) - 1.35
    colours = lightness + (dice.normal(PALETTE, 2) * spread) @ axes
    return colours.clamp(math.log(_DARKEST), math.log(_BRIGHTEST))


def texture_masks(dice: Dice, size: int) -> Tensor:
    """Stripes and checks (0 or 1), tiles and blots (0 to 1): (n,4,size,size)."""
    x, y = coordinates(size, dice.device)
    far = 1 + dice.uniform(1, 1, 1, low=-0.5, high=0.5) * x + dice.uniform(1, 1, 1, low=-0.3, high=0.3) * y
    x, y = x / far, y / far
    angle = dice.uniform(1, 1, 1, high=math.pi)
    pitch = dice.uniform(1, 1, 1, low=2.5, high=14) * math.pi / 2
    u, v = (angle.cos() * x + angle.sin() * y) * pitch, (angle.cos() * y - angle.sin() * x) * pitch
    duty = dice.uniform(1, 1, 1, low=-0.6, high=0.6)
    stripes = ((2 * u).sin() > duty).float()
    checks = (u.sin() * v.sin() > 0).float()
    cell = (u / 2).floor().long() * 7 + (v / 2).floor().long() * 11
    tiles = gather(dice.uniform(_TILES, 1), cell.remainder(_TILES))
    blots = (pink_noise(dice, size) * dice.uniform(1, 1, 1, low=2, high=12)).sigmoid()
    return torch.cat([stripes, checks, tiles, blots], 1)


def paint_facets(dice: Dice, layout: Layout, palette: Tensor, masks: Tensor) -> Tensor:
    """log albedo (n,3,H,W). About 45 % of the facets get a texture, 30 % of all get a second one over it."""
    colours = _pick(dice, palette)
    painted = gather(colours, layout.facet)
    for share, shift in ((0.45, 0), (0.3, 1)):
        second = gather(_pick(dice, palette), layout.facet)
        kind = gather(F.one_hot(dice.integers(FACETS, count=TEXTURES), TEXTURES).float(), layout.facet)
        strength = dice.chance(share, FACETS, 1) * dice.uniform(FACETS, 1, low=0.3, high=1.0)
        mask = (kind * masks.roll(shift, 0)).sum(1, keepdim=True) * gather(strength, layout.facet)
        painted = painted + mask * (second - painted)
    return painted


def _pick(dice: Dice, palette: Tensor) -> Tensor:
    """A colour of the palette for every facet, (n,FACETS,3)."""
    index = dice.integers(FACETS, 1, count=PALETTE) * (1 - dice.chance(0.4, FACETS, 1)).long()
    return palette.gather(1, index.expand(-1, -1, 3))
