"""Palettes, texture choices and furniture lists of the two looks, and the words that captions are made of.

`standard` is what generators are trained on; `shifted` is held out: other colours, textures and furniture.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOOKS", "TEXTURES", "TEXTURE_WORDS", "Look"]

# sRGB colours, to be jittered and then linearised.
STANDARD_COLOURS = {
    "white": (0.93, 0.92, 0.89), "grey": (0.60, 0.60, 0.60), "dark": (0.20, 0.20, 0.23), "red": (0.78, 0.22, 0.20),
    "orange": (0.90, 0.55, 0.20), "yellow": (0.90, 0.80, 0.32), "green": (0.35, 0.65, 0.33),
    "teal": (0.20, 0.62, 0.60), "blue": (0.27, 0.43, 0.80), "purple": (0.55, 0.35, 0.75), "pink": (0.93, 0.63, 0.70),
    "brown": (0.52, 0.36, 0.24), "beige": (0.85, 0.76, 0.62),
}  # fmt: skip
SHIFTED_COLOURS = {
    "mint": (0.66, 0.90, 0.78), "lavender": (0.76, 0.70, 0.92), "salmon": (0.96, 0.60, 0.50),
    "olive": (0.47, 0.48, 0.18), "navy": (0.13, 0.17, 0.40), "maroon": (0.45, 0.10, 0.18),
    "lime": (0.70, 0.92, 0.25), "cyan": (0.30, 0.85, 0.95), "magenta": (0.85, 0.20, 0.65), "black": (0.12, 0.12, 0.12),
}  # fmt: skip

PLAIN, CHECKER, STRIPES, WOOD, TILES, MONDRIAN, NOISE, PLAID, DOTS, ZIGZAG, BRICKS, RINGS = range(12)
TEXTURES = {
    "plain": PLAIN, "checkered": CHECKER, "striped": STRIPES, "wooden": WOOD, "tiled": TILES, "patterned": MONDRIAN,
    "cloudy": NOISE, "plaid": PLAID, "dotted": DOTS, "zigzag": ZIGZAG, "brick": BRICKS, "ringed": RINGS,
}  # fmt: skip
TEXTURE_WORDS = {kind: word for word, kind in TEXTURES.items()}


@dataclass(frozen=True)
class Look:
    """One appearance of the world: `*_textures` are (kind, weight) pairs, furniture names are keys of FURNITURE."""

    ident: int
    colours: dict[str, tuple[float, float, float]]
    wall_textures: tuple[tuple[int, float], ...]
    floor_textures: tuple[tuple[int, float], ...]
    item_textures: tuple[tuple[int, float], ...]
    wall_items: tuple[str, ...]
    free_items: tuple[str, ...]


LOOKS = {
    "standard": Look(
        0, STANDARD_COLOURS,
        ((PLAIN, 5), (STRIPES, 1.2), (TILES, 1), (MONDRIAN, 0.6), (NOISE, 0.8), (PLAID, 0.8), (CHECKER, 0.4)),
        ((WOOD, 4), (TILES, 1.5), (CHECKER, 1.5), (PLAIN, 1.5), (NOISE, 1), (STRIPES, 0.4)),
        ((PLAIN, 5), (STRIPES, 1), (CHECKER, 0.7), (WOOD, 1.5), (NOISE, 0.5), (PLAID, 0.5)),
        ("bed", "sofa", "shelf", "desk"),
        ("table", "chair", "ball", "crate", "column", "block", "lamp"),
    ),
    "shifted": Look(
        1, SHIFTED_COLOURS,
        ((PLAIN, 3), (DOTS, 1), (ZIGZAG, 1), (BRICKS, 1.5), (RINGS, 0.7)),
        ((BRICKS, 2), (DOTS, 1), (ZIGZAG, 1.5), (PLAIN, 1), (RINGS, 1)),
        ((PLAIN, 4), (DOTS, 1), (ZIGZAG, 1), (RINGS, 1)),
        ("wardrobe", "stairs", "bench"),
        ("stool", "barrel", "snowman", "arch", "ramp", "lamp"),
    ),
}  # fmt: skip
