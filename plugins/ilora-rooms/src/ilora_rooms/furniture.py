"""Furniture as lists of convex parts, origin on the floor, front towards +z (items at a wall have their back at -z).

Slot 0 is the item's main material, slot 1 its second, slot 2 an emitter (lamp shades).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .parts import BOX, CYLINDER, SPHERE, Item, Part, rot_x, rot_y, rot_z

__all__ = ["FURNITURE", "build_item"]

Rng = np.random.Generator


def _box(x: float, y: float, z: float, w: float, h: float, d: float, slot: int = 0) -> Part:
    """A box by the centre of its floor face and its full size."""
    return Part(BOX, (x, y + h / 2, z), (w / 2, h / 2, d / 2), slot)


def _cylinder(x: float, y: float, z: float, r: float, h: float, slot: int = 0) -> Part:
    return Part(CYLINDER, (x, y + h / 2, z), (r, h / 2, r), slot)


def _legs(w: float, d: float, h: float, thick: float, slot: int) -> list[Part]:
    a, b = w / 2 - thick, d / 2 - thick
    return [_box(sx * a, 0, sz * b, thick, h, thick, slot) for sx in (-1, 1) for sz in (-1, 1)]


def bed(rng: Rng) -> Item:
    w, d, h = rng.uniform(1.1, 1.9), rng.uniform(1.9, 2.1), rng.uniform(0.35, 0.6)
    parts = [_box(0, 0, 0, w, h, d), _box(0, 0, -d / 2, w + 0.06, rng.uniform(0.75, 1.2), 0.09, 1)]
    pillows = 2 if w > 1.4 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * w / 2
        pillow = Part(BOX, (x, h + 0.09, -d / 2 + 0.33), (0.27, 0.07, 0.18), 1, rot_x(rng.uniform(0.1, 0.5)))
        parts.append(pillow)
    return Item("bed", parts, 1.25, True, d / 2 + 0.05)


def sofa(rng: Rng) -> Item:
    w, d, seat = rng.uniform(1.3, 2.2), rng.uniform(0.75, 0.95), rng.uniform(0.38, 0.48)
    back, arm = rng.uniform(0.7, 0.95), rng.uniform(0.55, 0.68)
    parts = [_box(0, 0, 0, w, seat, d), _box(0, 0, -d / 2 + 0.1, w, back, 0.2)]
    parts += [_box(s * (w / 2 - 0.08), 0, 0, 0.16, arm, d, 1 if rng.random() < 0.3 else 0) for s in (-1, 1)]
    if rng.random() < 0.5:
        x = rng.uniform(-0.3, 0.3) * w
        parts.append(Part(BOX, (x, seat + 0.2, -d / 2 + 0.32), (0.2, 0.2, 0.07), 1, rot_x(-rng.uniform(0.2, 0.5))))
    return Item("sofa", parts, 1.0, True, d / 2 + 0.05)


def shelf(rng: Rng) -> Item:
    w, d, h, n = rng.uniform(0.7, 1.5), rng.uniform(0.28, 0.4), rng.uniform(1.0, 2.0), int(rng.integers(2, 5))
    parts = [_box(s * w / 2, 0, 0, 0.06, h, d) for s in (-1, 1)]
    parts += [_box(0, i * (h - 0.05) / n, 0, w, 0.05, d) for i in range(n + 1)]
    for i in range(n):
        x, bw = rng.uniform(-0.25, 0.25) * w, rng.uniform(0.15, 0.4) * w
        y = i * (h - 0.05) / n + 0.05
        if rng.random() < 0.7:
            parts.append(_box(x, y, 0, bw, rng.uniform(0.4, 0.9) * (h / n - 0.07), d * 0.7, 1))
    return Item("shelf", parts, 0.7, True, d / 2 + 0.02)


def desk(rng: Rng) -> Item:
    w, d, h = rng.uniform(1.0, 1.6), rng.uniform(0.5, 0.7), rng.uniform(0.68, 0.8)
    parts = [_box(0, h - 0.06, 0, w, 0.06, d), _box(-w / 2 + 0.2, 0, 0, 0.36, h - 0.06, d * 0.9, 1)]
    parts += [_box(w / 2 - 0.05, 0, s * (d / 2 - 0.05), 0.07, h - 0.06, 0.07) for s in (-1, 1)]
    if rng.random() < 0.6:
        tilt = rot_x(-rng.uniform(0.1, 0.3)) @ rot_y(rng.uniform(-0.4, 0.4))
        parts.append(Part(BOX, (0.1, h + 0.2, -0.05), (0.28, 0.18, 0.03), 1, tilt))
    return Item("desk", parts, 0.8, True, d / 2 + 0.03)


def table(rng: Rng) -> Item:
    h = rng.uniform(0.4, 0.8)
    if rng.random() < 0.35:
        r = rng.uniform(0.4, 0.65)
        parts = [
            _cylinder(0, h - 0.06, 0, r, 0.06),
            _cylinder(0, 0, 0, 0.08, h - 0.06, 1),
            _cylinder(0, 0, 0, 0.28, 0.05, 1),
        ]
        return Item("table", parts, r + 0.1)
    w, d = rng.uniform(0.8, 1.6), rng.uniform(0.6, 0.95)
    parts = [_box(0, h - 0.07, 0, w, 0.07, d), *_legs(w, d, h - 0.07, 0.08, int(rng.random() < 0.4))]
    if rng.random() < 0.5:
        x, z = rng.uniform(-0.3, 0.3) * w, rng.uniform(-0.25, 0.25) * d
        parts.append(_box(x, h, z, 0.22, rng.uniform(0.08, 0.3), 0.2, 1))
    return Item("table", parts, max(w, d) / 2 + 0.1)


def chair(rng: Rng) -> Item:
    w, seat, back = rng.uniform(0.4, 0.52), rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.6)
    lean = rot_x(-rng.uniform(0.0, 0.3))
    panel = Part(BOX, (0, seat + back / 2, -w / 2 - 0.02), (w / 2, back / 2, 0.03), 0, lean)
    return Item("chair", [_box(0, seat - 0.06, 0, w, 0.06, w), panel, *_legs(w, w, seat - 0.06, 0.055, 1)], 0.4)


def ball(rng: Rng) -> Item:
    r = rng.uniform(0.14, 0.42)
    return Item("ball", [Part(SPHERE, (0, r, 0), (r, r, r))], r + 0.05)


def crate(rng: Rng) -> Item:
    w, d, h = rng.uniform(0.3, 0.8, 3)
    parts = [_box(0, 0, 0, w, h, d)]
    if rng.random() < 0.4:
        small = (w * 0.32, rng.uniform(0.1, 0.2), d * 0.32)
        parts.append(Part(BOX, (0, h + small[1], 0), small, 1, rot_y(rng.uniform(0, 1.5))))
    return Item("crate", parts, max(w, d) * 0.7)


def column(rng: Rng) -> Item:
    r, h = rng.uniform(0.12, 0.35), rng.uniform(0.4, 2.2)
    parts = [_cylinder(0, 0, 0, r, h)]
    if h < 1.3 and rng.random() < 0.6:
        parts.append(Part(SPHERE, (0, h + r * 0.8, 0), (r * 0.8, r * 0.8, r * 0.8), 1))
    return Item("column", parts, r + 0.1)


def block(rng: Rng) -> Item:
    """A box leaning every which way: normals of all directions, not just the room's five."""
    half = rng.uniform(0.15, 0.45, 3)
    turn = rot_y(rng.uniform(0, 6.28)) @ rot_x(rng.uniform(-0.8, 0.8)) @ rot_z(rng.uniform(-0.8, 0.8))
    low = float(np.abs(turn[1] * half).sum())  # lift so that the lowest corner touches the floor
    return Item("block", [Part(BOX, (0, low, 0), tuple(half), 0, turn)], float(np.linalg.norm(half)))


def lamp(rng: Rng) -> Item:
    h, r = rng.uniform(1.1, 1.6), rng.uniform(0.14, 0.24)
    shade = Part(CYLINDER, (0, h, 0), (r, 0.16, r), 2, casts_shadow=False)
    return Item("lamp", [_cylinder(0, 0, 0, 0.16, 0.04, 1), _cylinder(0, 0, 0, 0.03, h - 0.16, 1), shade], 0.3)


def wardrobe(rng: Rng) -> Item:
    w, d, h = rng.uniform(0.9, 1.5), rng.uniform(0.45, 0.6), rng.uniform(1.5, 2.1)
    doors = [_box(s * w / 4, 0.08, d / 2 + 0.015, w / 2 - 0.06, h - 0.16, 0.03, 1) for s in (-1, 1)]
    return Item("wardrobe", [_box(0, 0, 0, w, h, d), *doors], 0.8, True, d / 2 + 0.02)


def stairs(rng: Rng) -> Item:
    w, n, rise, run = rng.uniform(0.8, 1.4), int(rng.integers(3, 6)), rng.uniform(0.14, 0.22), rng.uniform(0.2, 0.3)
    parts = [_box(0, 0, (i + 0.5 - n / 2) * run, w, (n - i) * rise, run, i % 2) for i in range(n)]
    return Item("stairs", parts, 0.9, True, n * run / 2)


def bench(rng: Rng) -> Item:
    w, d, h = rng.uniform(1.2, 2.0), rng.uniform(0.35, 0.5), rng.uniform(0.38, 0.5)
    back = Part(BOX, (0, h + 0.25, -d / 2), (w / 2, 0.22, 0.03), 1, rot_x(-0.25))
    return Item(
        "bench", [_box(0, h - 0.08, 0, w, 0.08, d), *_legs(w, d, h - 0.08, 0.1, 1), back], 0.9, True, d / 2 + 0.1
    )


def stool(rng: Rng) -> Item:
    h, r = rng.uniform(0.4, 0.75), rng.uniform(0.16, 0.25)
    return Item("stool", [_cylinder(0, h - 0.08, 0, r, 0.08), _cylinder(0, 0, 0, 0.05, h - 0.08, 1)], 0.35)


def barrel(rng: Rng) -> Item:
    r, h = rng.uniform(0.2, 0.35), rng.uniform(0.5, 0.9)
    if rng.random() < 0.5:
        turn = rot_y(rng.uniform(0, 6.28)) @ rot_x(np.pi / 2)
        return Item("barrel", [Part(CYLINDER, (0, r, 0), (r, h / 2, r), 0, turn)], 0.6)
    return Item("barrel", [_cylinder(0, 0, 0, r, h), _cylinder(0, h * 0.45, 0, r + 0.02, 0.08, 1)], 0.45)


def snowman(rng: Rng) -> Item:
    r = rng.uniform(0.2, 0.35)
    radii, y, parts = (r, r * 0.75, r * 0.5), 0.0, []
    for i, q in enumerate(radii):
        parts.append(Part(SPHERE, (0, y + q, 0), (q, q, q), i % 2))
        y += q * 1.7
    return Item("snowman", parts, r + 0.1)


def arch(rng: Rng) -> Item:
    w, h, t = rng.uniform(0.8, 1.3), rng.uniform(0.8, 1.7), rng.uniform(0.15, 0.28)
    posts = [_box(s * (w - t) / 2, 0, 0, t, h - t, t) for s in (-1, 1)]
    return Item("arch", [*posts, _box(0, h - t, 0, w, t, t, 1)], w / 2 + 0.1)


def ramp(rng: Rng) -> Item:
    """A plank on a roller: one long tilted plane."""
    length, r = rng.uniform(1.2, 1.8), rng.uniform(0.15, 0.25)
    turn = rot_z(np.arcsin(2 * r / length))
    plank = Part(BOX, (0, r + 0.04, 0), (length / 2, 0.03, 0.3), 0, turn)
    roller = Part(CYLINDER, (length * 0.3, r, 0), (r, 0.28, r), 1, rot_x(np.pi / 2))
    return Item("ramp", [plank, roller], length / 2)


FURNITURE: dict[str, Callable[[Rng], Item]] = {
    make.__name__: make
    for make in (
        bed, sofa, shelf, desk, table, chair, ball, crate, column, block, lamp,
        wardrobe, stairs, bench, stool, barrel, snowman, arch, ramp,
    )
}  # fmt: skip


def build_item(word: str, rng: Rng) -> Item:
    return FURNITURE[word](rng)
