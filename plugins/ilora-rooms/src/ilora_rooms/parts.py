"""What a scene is made of, as plain numbers: parts, materials, decals, lights, camera.

World frame: x right, y UP, z towards the viewer of a plan drawn on paper (right-handed), metres, floor at y = 0.
Camera frame: OpenCV (x right, y DOWN, z FORWARD).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Decal", "Item", "Material", "Part", "SceneSpec", "rot_x", "rot_y", "rot_z"]

BOX, CYLINDER, SPHERE = 0, 1, 2


def rot_x(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rot_y(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rot_z(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Material:
    """A texture: kind, three linear colours, period in metres, in-plane angle, offset; emission 0 = a lit surface."""

    kind: int
    colours: np.ndarray
    period: float = 0.3
    angle: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    emission: float = 0.0


@dataclass(frozen=True)
class Part:
    """One convex solid in its item's frame. `half`: box half extents, cylinder (r, h/2, r), ball (r, r, r)."""

    shape: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    slot: int = 0
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    casts_shadow: bool = True


@dataclass(frozen=True)
class Item:
    """A piece of furniture: its word for the caption, its parts, and the radius kept free around it."""

    word: str
    parts: list[Part]
    radius: float
    at_wall: bool = False
    depth: float = 0.0  # metres from the wall to the item's centre, when at_wall


@dataclass(frozen=True)
class Decal:
    """A rectangle painted on a face of the shell: rug, picture, window. No geometry, so labels stay exact."""

    face: int
    centre: tuple[float, float]
    half: tuple[float, float]
    material: int
    pane: bool = False


@dataclass
class SceneSpec:
    """A whole room. Rotations map local to world; `camera` has right, down, forward as ROWS."""

    room: np.ndarray  # (3,) width, height, depth; x and z centred on 0
    shape: list[int] = field(default_factory=list)
    centre: list[np.ndarray] = field(default_factory=list)
    half: list[np.ndarray] = field(default_factory=list)
    rotation: list[np.ndarray] = field(default_factory=list)
    part_material: list[int] = field(default_factory=list)
    casts: list[bool] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    shell_material: list[int] = field(default_factory=list)  # faces -x, +x, -y, +y, -z, +z
    decals: list[Decal] = field(default_factory=list)
    eye: np.ndarray = field(default_factory=lambda: np.zeros(3))
    camera: np.ndarray = field(default_factory=lambda: np.eye(3))
    focal: float = 1.0  # in half picture widths
    ceiling: tuple[np.ndarray, float, np.ndarray] | None = None  # centre, radius, colour * power
    area: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None  # centre, edge u, edge v, colour * power
    sun: tuple[np.ndarray, np.ndarray] | None = None  # direction towards the sun, colour * power
    ambient: np.ndarray = field(default_factory=lambda: np.full(3, 0.5))
    exposure: float = 0.3
    caption: str = ""

    def add(self, part: Part, position: np.ndarray, turn: np.ndarray, material: int) -> None:
        self.shape.append(part.shape)
        self.centre.append(position + turn @ np.asarray(part.centre, float))
        self.half.append(np.asarray(part.half, float))
        self.rotation.append(turn @ part.rotation)
        self.part_material.append(material)
        self.casts.append(part.casts_shadow)
