"""Captions of rooms and the closed vocabulary they are written in.

"a pink striped bedroom with a wooden floor, a red bed, a plaid sofa, a window"
"""

from __future__ import annotations

from collections.abc import Sequence

from .furniture import FURNITURE
from .looks import LOOKS, TEXTURES

__all__ = ["TASK_WORDS", "caption", "vocabulary"]

ROOMS = ("bedroom", "livingroom", "study", "kitchen", "room", "gallery")
GLUE = ("a", "an", "with", "floor", "window", ",")
# The task words have whole tokens too, so that a prompt is well formed; the generator never saw them in a caption.
TASK_WORDS = ("surface", "normal", "normals", "depth", "map", "albedo", "shading")


def caption(wall: Sequence[str], room: str, floor: str, objects: Sequence[str], window: bool) -> str:
    """At most 22 words and commas, so that a 24-token text encoder never truncates."""
    words = " ".join(w for w in wall if w != "plain")
    text = f"{_with_article(f'{words} {room}')} with {_with_article(floor)} floor"
    for name in objects[:2]:
        text += f", {_with_article(name)}"
    return text + (", a window" if window else "")


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def vocabulary() -> list[str]:
    """Every word a caption or a task prompt may hold, in a fixed order, without repeats."""
    words = [*GLUE, *ROOMS, *TASK_WORDS, *TEXTURES, *FURNITURE]
    for look in LOOKS.values():
        words += list(look.colours)
    return list(dict.fromkeys(words))
