"""Builds one room from one seed: numpy only, the same numbers on every machine.

    spec = build_scene(seed, look)      # SceneSpec: solids, materials, decals, lights, camera, caption

The camera is drawn first and furniture is put where it looks, never within its reach. Yaw is free, pitch and roll are
wide, so that the mean normal map of the world is a weak predictor.
"""

from __future__ import annotations

import numpy as np

from . import captions
from .furniture import build_item
from .looks import LOOKS, MONDRIAN, PLAIN, TEXTURE_WORDS, TILES, WOOD, Look
from .parts import Decal, Item, Material, SceneSpec, rot_y, rot_z

__all__ = ["WORLD", "build_scene", "to_linear"]

WORLD = "rooms-v1"
VERSION = 1
FLOOR = 2
WALLS = (0, 1, 4, 5)
# Two in-plane axes of each face of the shell; decals and textures use (u, v) = these coordinates.
FACE_AXES = ((2, 1), (2, 1), (0, 2), (0, 2), (0, 1), (0, 1))
# Into the room, per face.
FACE_INWARD = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)

Rng = np.random.Generator


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0,1] as linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _colour(rng: Rng, look: Look, name: str) -> np.ndarray:
    """A jittered linear colour; never black, so that shading = picture / albedo is well conditioned."""
    base = np.asarray(look.colours[name])
    return np.clip(to_linear(np.clip(base + rng.normal(0, 0.04, 3), 0, 1)), 0.02, 0.95)


def _pick(rng: Rng, weighted: tuple[tuple[int, float], ...]) -> int:
    kinds, weights = zip(*weighted, strict=True)
    return int(rng.choice(kinds, p=np.asarray(weights) / sum(weights)))


def _material(rng: Rng, look: Look, kinds, *, period: tuple[float, float], soft: float = 0.0) -> tuple[Material, str]:
    """A random material and the word of its first colour; `soft` pulls the other colours towards the first."""
    kind = _pick(rng, kinds)
    names = list(rng.permutation(list(look.colours)))
    if kind == WOOD:
        names[0] = str(
            rng.choice([n for n in ("brown", "beige", "orange", "dark", "white", "teal") if n in look.colours])
        )
    colours = np.stack([_colour(rng, look, n) for n in names[:3]])
    soft = soft if kind != MONDRIAN else 0.0
    if kind in (WOOD, TILES):
        soft = max(soft, 0.6)
    colours[1:] = soft * colours[0] + (1 - soft) * colours[1:]
    angle = float(rng.choice([0.0, np.pi / 2, np.pi / 4, rng.uniform(0, np.pi)], p=[0.45, 0.3, 0.15, 0.1]))
    if kind in (TILES, WOOD):
        angle = float(rng.choice([0.0, np.pi / 2]))
    offset = (float(rng.uniform(0, 50)), float(rng.uniform(0, 50)))
    return Material(kind, colours, float(rng.uniform(*period)), angle, offset), str(names[0])


def _shell(rng: Rng, look: Look, spec: SceneSpec) -> tuple[tuple[str, ...], str]:
    """Walls, floor and ceiling materials; returns the caption's words for wall and floor."""
    wall, wall_colour = _material(rng, look, look.wall_textures, period=(0.18, 0.6), soft=0.4)
    floor, floor_colour = _material(rng, look, look.floor_textures, period=(0.25, 0.7), soft=0.3)
    pale = np.clip(to_linear(rng.uniform(0.75, 0.97) * np.ones(3) + rng.normal(0, 0.025, 3)), 0.1, 0.95)
    if rng.random() < 0.15:
        pale = _colour(rng, look, str(rng.choice(list(look.colours))))
    ceiling = Material(PLAIN, np.stack([pale] * 3))
    spec.materials += [wall, floor, ceiling]
    spec.shell_material = [0, 0, 1, 2, 0, 0]
    if rng.random() < 0.4:  # one accent wall
        accent, _ = _material(rng, look, look.wall_textures, period=(0.18, 0.6), soft=0.3)
        spec.materials.append(accent)
        spec.shell_material[int(rng.choice(WALLS))] = len(spec.materials) - 1
    floor_word = TEXTURE_WORDS[floor.kind]
    return (wall_colour, TEXTURE_WORDS[wall.kind]), floor_colour if floor_word == "plain" else floor_word


def _camera(rng: Rng, spec: SceneSpec) -> None:
    """Eye anywhere, looking at a far enough point of the room; OpenCV rows right, down, forward."""
    w, h, d = spec.room
    spec.eye = np.array([rng.uniform(-1, 1) * (w / 2 - 0.5), rng.uniform(0.9, min(2.0, h - 0.4)), 0.0])
    spec.eye[2] = rng.uniform(-1, 1) * (d / 2 - 0.5)
    for _ in range(50):
        target = rng.uniform(-0.5, 0.5, 2) * (w, d)
        ahead = target - spec.eye[[0, 2]]
        if np.linalg.norm(ahead) > 1.6:
            break
    yaw = np.arctan2(ahead[0], ahead[1]) + rng.normal(0, 0.25)
    pitch = np.clip(rng.normal(-0.22, 0.2), -0.75, 0.3)
    roll = np.clip(rng.normal(0, 0.13), -0.4, 0.4)
    forward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(forward, right), forward])
    spec.camera = rot_z(roll) @ level
    spec.focal = 1 / np.tan(np.deg2rad(rng.uniform(58, 85)) / 2)


def _place_at_wall(spec: SceneSpec, item: Item, spot: np.ndarray, rng: Rng) -> tuple[np.ndarray, float]:
    """Back to the wall nearest to `spot`; yaw turns the item's +z into the room."""
    w, _, d = spec.room
    gaps = np.array([spot[0] + w / 2, w / 2 - spot[0], np.inf, np.inf, spot[1] + d / 2, d / 2 - spot[1]])
    face = int(np.argmin(gaps))
    inward = FACE_INWARD[face]
    where = spot.copy()
    axis = 0 if face < 2 else 1
    half = (w, d)[axis] / 2
    sign = inward[0] + inward[2]
    where[axis] = -sign * (half - item.depth - 0.02)
    other = 1 - axis
    limit = max((w, d)[other] / 2 - item.radius - 0.05, 0.0)
    where[other] = np.clip(where[other], -limit, limit)
    return where, float(np.arctan2(inward[0], inward[2]) + rng.normal(0, 0.03))


def _spot(rng: Rng, spec: SceneSpec) -> np.ndarray:
    """A floor point in the camera's view, inside the room."""
    forward = spec.camera[2]
    bearing = np.arctan2(forward[0], forward[2]) + rng.uniform(-0.6, 0.6)
    reach = rng.uniform(1.2, 5.0)
    spot = spec.eye[[0, 2]] + reach * np.array([np.sin(bearing), np.cos(bearing)])
    limit = spec.room[[0, 2]] / 2 - 0.3
    return np.clip(spot, -limit, limit)


def _furnish(rng: Rng, look: Look, spec: SceneSpec) -> tuple[list[str], np.ndarray | None]:
    """Items by rejection on discs; returns caption words, nearest first, and where a lit lamp stands."""
    taken: list[tuple[np.ndarray, float]] = [(spec.eye[[0, 2]], 0.35)]
    words: list[tuple[float, str]] = []
    lamp = None
    wanted = [str(rng.choice(look.wall_items)) for _ in range(int(rng.integers(1, 4)))]
    wanted += [str(rng.choice(look.free_items)) for _ in range(int(rng.integers(2, 6)))]
    for word in wanted:
        item = build_item(word, rng)
        if word == "lamp" and lamp is not None:
            continue
        for _ in range(12):
            where, yaw = _spot(rng, spec), float(rng.uniform(0, 2 * np.pi))
            if item.at_wall:
                where, yaw = _place_at_wall(spec, item, where, rng)
            else:
                limit = np.maximum(spec.room[[0, 2]] / 2 - item.radius - 0.03, 0)
                where = np.clip(where, -limit, limit)
            if all(np.linalg.norm(where - p) > item.radius * 0.9 + r for p, r in taken):
                break
        else:
            continue
        taken.append((where, item.radius * 0.9))
        colour = _put(rng, look, spec, item, where, yaw)
        words.append((float(np.linalg.norm(where - spec.eye[[0, 2]])), colour))
        if word == "lamp":
            lamp = np.array([where[0], item.parts[-1].centre[1], where[1]])
    return [word for _, word in sorted(words)], lamp


def _put(rng: Rng, look: Look, spec: SceneSpec, item: Item, where: np.ndarray, yaw: float) -> str:
    """Add the item's parts with fresh materials; returns "colour word" for the caption."""
    first = len(spec.materials)
    main, colour = _material(rng, look, look.item_textures, period=(0.08, 0.3), soft=0.2)
    second, _ = _material(rng, look, look.item_textures, period=(0.08, 0.3), soft=0.2)
    shade = Material(PLAIN, np.full((3, 3), 0.85), emission=1.0)
    spec.materials += [main, second, shade]
    turn, position = rot_y(yaw), np.array([where[0], 0.0, where[1]])
    for part in item.parts:
        spec.add(part, position, turn, first + part.slot)
    return f"{colour} {item.word}"


def _decals(rng: Rng, look: Look, spec: SceneSpec, window: bool) -> int | None:
    """Rug, pictures and a window, painted on the shell; returns the window's decal index."""
    w, h, d = spec.room
    if rng.random() < 0.45:
        rug, _ = _material(rng, look, look.item_textures, period=(0.1, 0.35))
        spec.materials.append(rug)
        spot = _spot(rng, spec) * 0.7
        spec.decals.append(Decal(FLOOR, tuple(spot), tuple(rng.uniform(0.4, 1.1, 2)), len(spec.materials) - 1))
    free = [int(f) for f in rng.permutation(WALLS)]
    for face in free[: int(rng.integers(0, 3))]:
        art, _ = _material(rng, look, ((MONDRIAN, 2), (PLAIN, 1), *look.item_textures), period=(0.08, 0.3))
        spec.materials.append(art)
        span = (d if face < 2 else w) / 2 - 0.5
        centre = (float(rng.uniform(-span, span)), float(rng.uniform(1.3, h - 0.6)))
        spec.decals.append(Decal(face, centre, tuple(rng.uniform(0.18, 0.45, 2)), len(spec.materials) - 1))
    if not window:
        return None
    face = free[-1]  # pictures took the front of the list, so they never cover the window
    half = (float(rng.uniform(0.4, 0.9)), float(rng.uniform(0.4, 0.65)))
    span = (d if face < 2 else w) / 2 - half[0] - 0.15
    centre = (float(rng.uniform(-span, span)), float(rng.uniform(1.35, h - half[1] - 0.2)))
    sky = to_linear(np.clip(np.array([0.80, 0.90, 1.0]) + rng.normal(0, 0.03, 3), 0, 1))
    frame = _colour(rng, look, str(rng.choice(list(look.colours))))
    spec.materials += [Material(PLAIN, np.stack([frame] * 3)), Material(PLAIN, np.stack([sky] * 3), emission=1.0)]
    spec.decals.append(Decal(face, centre, (half[0] + 0.07, half[1] + 0.07), len(spec.materials) - 2))
    for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):  # four panes, the frame shows between them
        pane = (half[0] / 2 - 0.025, half[1] / 2 - 0.025)
        middle = (centre[0] + sx * half[0] / 2, centre[1] + sy * half[1] / 2)
        spec.decals.append(Decal(face, middle, pane, len(spec.materials) - 1, pane=True))
    return len(spec.decals) - 5


def _lights(rng: Rng, spec: SceneSpec, window: int | None, lamp: np.ndarray | None) -> None:
    """Ceiling light, one of window or lamp as second area light, sun through the window, ambient."""
    w, h, d = spec.room
    warm = np.array([1.0, 0.90, 0.76]) ** rng.uniform(0, 1)
    cool = np.array([0.84, 0.93, 1.0])
    centre = np.array([rng.uniform(-0.3, 0.3) * w, h - 0.22, rng.uniform(-0.3, 0.3) * d])
    power = rng.uniform(2.5, 6.0) if window is None and lamp is None else rng.uniform(0.0, 5.0)
    spec.ceiling = (centre, float(rng.uniform(0.15, 0.4)), warm * power)
    spec.ambient = (0.5 * warm + 0.5) * rng.uniform(0.25, 0.55)
    spec.exposure = float(rng.uniform(0.2, 0.36))
    if window is not None:
        decal = spec.decals[window]
        inward = FACE_INWARD[decal.face]
        u, v = FACE_AXES[decal.face]
        edge_u, edge_v, middle = np.zeros(3), np.zeros(3), np.zeros(3)
        middle[u], middle[v] = decal.centre
        edge_u[u], edge_v[v] = decal.half
        middle -= inward * (spec.room / 2) * np.abs(inward) * np.array([1, 0, 1])
        spec.area = (middle + 0.03 * inward, edge_u, edge_v, cool * rng.uniform(2.0, 6.0))
        if rng.random() < 0.6:
            side = rot_y(rng.uniform(-0.9, 0.9)) @ -inward
            sun = side * np.cos(e := rng.uniform(0.35, 0.9)) + np.array([0, np.sin(e), 0])
            spec.sun = (sun / np.linalg.norm(sun), np.array([1.0, 0.93, 0.8]) * rng.uniform(2.0, 5.0))
    elif lamp is not None:
        glow = np.array([1.0, 0.85, 0.65]) * rng.uniform(0.8, 2.0)
        spec.area = (lamp, np.array([0.15, 0, 0]), np.array([0, 0.12, 0.12]), glow)


def build_scene(seed: int, look: str = "standard") -> SceneSpec:
    """The room of (seed, look)."""
    style = LOOKS[look]
    rng = np.random.Generator(np.random.PCG64([VERSION, style.ident, seed]))
    spec = SceneSpec(room=np.array([rng.uniform(2.8, 6.5), rng.uniform(2.3, 3.3), rng.uniform(2.8, 6.5)]))
    wall, floor = _shell(rng, style, spec)
    _camera(rng, spec)
    objects, lamp = _furnish(rng, style, spec)
    has_window = bool(rng.random() < 0.5)
    window = _decals(rng, style, spec, has_window)
    _lights(rng, spec, window, lamp)
    kinds = {o.split()[-1] for o in objects}
    room = "room"
    for furniture, names in (("bed", ("bedroom",)), ("desk", ("study",)), ("sofa", ("livingroom",))):
        if furniture in kinds:
            room = names[0]
            break
    else:
        room = str(rng.choice(["kitchen" if "table" in kinds else "room", "gallery" if "column" in kinds else "room"]))
    spec.caption = captions.caption(wall, room, floor, objects, has_window)
    return spec
