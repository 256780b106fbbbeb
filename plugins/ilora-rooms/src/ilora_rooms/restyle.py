"""The same room in other colours and other light: geometry, camera, textures' layouts and their edges stay.

Colours: the palette's names change places (red walls become blue ones wherever something was red), each colour keeping its own
jitter, and so do the words of the caption. Light: every source's power and the exposure change on their own.

    spec = restyle(build_scene(seed), 1, seed=seed)      # a new SceneSpec; variant 1, 2, … of one room are different styles

Pairs of a room and its restyled self are what InstructPix2Pix (Brooks et al., arXiv 2211.09800) is to rooms: pictures that show
the same place, with words for what is to change. No map is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .looks import LOOKS, Look
from .parts import Material, SceneSpec
from .scene import to_linear

__all__ = ["restyle"]


def restyle(spec: SceneSpec, variant: int, *, seed: int, look: str = "standard") -> SceneSpec:
    """`spec`, the room of `seed`, in the style `variant`; follows from (seed, variant) alone."""
    rng, style = np.random.Generator(np.random.PCG64([0x57, seed, variant])), LOOKS[look]
    names = list(style.colours)
    places = dict(zip(names, (names[i] for i in rng.permutation(len(names))), strict=True))
    materials = [_recoloured(material, style, places) for material in spec.materials]
    words = [places.get(word, word) for word in spec.caption.replace(",", " ,").split()]
    lit = replace(spec, materials=materials, caption=_joined(words), exposure=float(rng.uniform(0.2, 0.36)))
    lit.ambient = spec.ambient * np.exp(rng.normal(0, 0.3))
    if spec.ceiling is not None:
        centre, radius, power = spec.ceiling
        lit.ceiling = (centre, radius, power * np.exp(rng.normal(0, 0.5)))
    if spec.area is not None:
        *where, power = spec.area
        lit.area = (where[0], where[1], where[2], power * np.exp(rng.normal(0, 0.5)))
    if spec.sun is not None:
        lit.sun = (spec.sun[0], spec.sun[1] * np.exp(rng.normal(0, 0.5)))
    return lit


def _recoloured(material: Material, style: Look, places: Mapping[str, str]) -> Material:
    """Every colour moved from the palette's nearest name to that name's new place; what shines stays."""
    if material.emission:
        return material
    names = list(style.colours)
    palette = np.array([style.colours[name] for name in names])
    colours = _srgb(material.colours)
    near = np.linalg.norm(colours[:, None] - palette[None], axis=2).argmin(1)
    goal = np.array([style.colours[places[names[i]]] for i in near])
    moved = np.clip(goal + colours - palette[near], 0, 1)
    return replace(material, colours=np.clip(to_linear(moved), 0.02, 0.95))


def _joined(words: list[str]) -> str:
    """Words and commas as a caption, each article as its noun wants it."""
    for i, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[i] = "an" if words[i + 1][0] in "aeiou" else "a"
    return " ".join(words).replace(" ,", ",")


def _srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
