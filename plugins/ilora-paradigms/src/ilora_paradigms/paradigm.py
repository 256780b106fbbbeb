"""Paradigms: pictures put together from an authored albedo, an authored shading and a little gloss.

    I = clip(e · (A · S · t + G)),   then blur, noise, sRGB

A albedo (few colours, facets, texture), S grey shading (smooth light, facets, objects, shadows), G gloss, t the tint of
the light and e the exposure. A network that is trained to take I apart never sees a rendered or a labelled picture: it
learns the two statistics. The idea is Land and McCann's (1971), used for training by Bhattad and Forsyth (Cut-and-Paste
Object Insertion, 3DV 2022, and its companion on intrinsic decomposition). The distributions here are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ilora_core.intrinsics import linear_to_srgb
from ilora_paradigms.fields import Dice, value_noise
from ilora_paradigms.layout import draw_layout, draw_palette, paint_facets, texture_masks
from ilora_paradigms.lighting import draw_sun, facet_light, large_shadows, smooth_light
from ilora_paradigms.objects import Canvas, paint_objects

__all__ = ["Paradigms", "compose", "draw_paradigms", "take_picture"]


@dataclass(frozen=True)
class Paradigms:
    """picture (n,3,H,W), sRGB in [0,1]; albedo (n,3,H,W), linear, under the light's mean tint; shading (n,1,H,W), linear,
    its 99th percentile at 1; gloss (n,1,H,W), in units of that shading; exact: A·S·t + G before the camera (n,3,H,W)."""

    picture: Tensor
    albedo: Tensor
    shading: Tensor
    gloss: Tensor
    exact: Tensor


def draw_paradigms(n: int, size: int, generator: torch.Generator) -> Paradigms:
    """n paradigms of size² pixels on the generator's device. The same generator state, the same paradigms."""
    dice = Dice(n, generator)
    layout, palette, sun = draw_layout(dice, size), draw_palette(dice), draw_sun(dice)
    masks, smooth = texture_masks(dice, size), smooth_light(dice, size)
    albedo = paint_facets(dice, layout, palette, masks)
    wall = smooth + facet_light(dice, layout, sun)
    canvas = Canvas(albedo, wall, torch.zeros_like(wall))
    canvas = paint_objects(dice, canvas, palette, texture_masks(dice, size), sun, smooth)
    log_shading = canvas.shading + large_shadows(dice, size)
    top = _quantile(log_shading, 0.99)
    tint = dice.normal(3, 1, 1, deviation=0.1)
    drift = value_noise(dice, 2, size, channels=3) * dice.uniform(1, 1, 1, high=0.06)
    shading = (log_shading - top).clamp(min=-6).exp()
    albedo = (canvas.albedo + tint).exp()
    exact = compose(albedo, shading, canvas.gloss, drift)
    return Paradigms(take_picture(dice, exact), albedo, shading, canvas.gloss, exact)


def compose(albedo: Tensor, shading: Tensor, gloss: Tensor, drift: Tensor) -> Tensor:
    """A·S·exp(drift) + G·S̄, linear (n,3,H,W): the gloss has the light's strength, not the surface's colour."""
    return albedo * shading * drift.exp() + gloss * shading.mean((1, 2, 3), keepdim=True)


def take_picture(dice: Dice, light: Tensor) -> Tensor:
    """What a camera makes of linear light (n,3,H,W): exposure, clipping, blur, noise, sRGB; (n,3,H,W) in [0,1]."""
    white = _quantile(light.amax(1, keepdim=True), 0.98)
    exposed = light / (white * dice.uniform(1, 1, 1, low=0.75, high=1.25)).clamp(min=1e-6)
    sigma = dice.uniform(1, 1, 1, low=0.05, high=0.65)
    beside = (-0.5 / sigma**2).exp()
    seen = _smear(_smear(exposed.clamp(0, 1), beside, 2), beside, 3)
    noise = dice.normal(*light.shape[1:]) * dice.uniform(1, 1, 1, high=0.015)
    return linear_to_srgb((seen + noise * (0.1 + seen).sqrt()).clamp(0, 1))


def _smear(x: Tensor, beside: Tensor, dim: int) -> Tensor:
    """A three-tap blur (beside, 1, beside) along one axis; the edge repeats."""
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
    before = torch.cat([first, x.narrow(dim, 0, x.shape[dim] - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, x.shape[dim] - 1), last], dim)
    return (x + beside * (before + after)) / (1 + 2 * beside)


def _quantile(x: Tensor, q: float) -> Tensor:
    """(n,1,H,W) -> (n,1,1,1)."""
    return x.flatten(1).quantile(q, dim=1).view(-1, 1, 1, 1)
