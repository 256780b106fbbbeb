"""What a sweep varies: axes of labelled choices, and the points of their grid.

    Sweep({"generator": "rooms", "source": "rooms", "intrinsic": "normals"},
          (Axis.of("adapter.rank", (1, 2, 4)), Axis.of("train.seed", (0, 1, 2))), test="rooms:test:100")

A setting is written flat: an option of a fit (`limit`), `group.name` (`adapter.rank`), `intrinsic.loss`, or `method`. A choice
may set several at once, for what only makes sense together (an adapter and its learning rate).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ilora_core.config import GROUPS, RuntimeConfig, TrainConfig
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import CHOICES
from ilora_core.options import OPTIONS

__all__ = ["AVERAGED", "Axis", "Choice", "Point", "Sweep", "check_key", "is_key"]

AVERAGED = ("train.seed",)
"""Axes over which results are averaged, in place of being compared."""

_EXACT = (
    *OPTIONS,
    "method",
    *(f"intrinsic.{name}" for name in CHOICES),
    *(f"train.{f.name}" for f in fields(TrainConfig)),
    *(f"runtime.{f.name}" for f in fields(RuntimeConfig)),
)
_OPEN = tuple(group for group in GROUPS if group not in ("train", "runtime"))  # a factory knows what it takes


@dataclass(frozen=True)
class Choice:
    """One value of an axis: how it is called in tables and plots, and the settings it stands for."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """A name and two or more choices. Raises ConfigError for an unknown setting or a choice that occurs twice."""

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ConfigError(f"the axis {self.name} has no values.")
        for choice in self.choices:
            if not choice.settings:
                raise ConfigError(f"the choice {choice.label!r} of {self.name} sets nothing.")
            for key in choice.settings:
                check_key(key)
        for first, second in itertools.combinations(self.choices, 2):
            if first.label == second.label or _same(first.settings, second.settings):
                raise ConfigError(f"the axis {self.name} has {second.label!r} twice; each value counts once.")

    @classmethod
    def of(cls, key: str, values: Iterable[Any], labels: Sequence[str] = ()) -> Axis:
        """An axis of one setting. labels: in place of the values themselves."""
        values = list(values)
        named = labels or [str(value) for value in values]
        return cls(key, tuple(Choice(label, {key: v}) for label, v in zip(named, values, strict=True)))

    @property
    def averaged(self) -> bool:
        """Whether results are averaged over it."""
        return self.name in AVERAGED

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings it touches."""
        return tuple(dict.fromkeys(key for choice in self.choices for key in choice.settings))

    def choice(self, label: str) -> Choice:
        """The choice of that label."""
        return next(choice for choice in self.choices if choice.label == label)


@dataclass(frozen=True)
class Point:
    """One place in the grid. labels: axis -> choice; settings: everything, the base included."""

    labels: Mapping[str, str]
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name}={label}" for name, label in self.labels.items()) or "the one cell"


@dataclass(frozen=True)
class Sweep:
    """A grid around a base.

    base      flat settings that all points share
    axes      what is varied; the first one varies slowest
    test      held-out pictures with true maps, as `ilora_core.sweep.held_out` reads it; "" = each fit's own validation set
    protocol  of the evaluation; "" = each intrinsic's default
    draw      settings of the generator for drawing alone (a sampler's steps, say): the fit is the same cell without them

    A value of an axis may stand in the base too: it is then that axis's reference, where plots of the other axes are drawn.
    """

    base: Mapping[str, Any]
    axes: tuple[Axis, ...] = ()
    test: str = ""
    protocol: str = ""
    draw: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, str] = field(init=False)
    """Axis -> label of the choice that stands for it while another axis is plotted."""

    def __post_init__(self) -> None:
        for key in self.base:
            check_key(key)
        seen: dict[str, str] = {}
        for axis in self.axes:
            for key in (axis.name, *axis.keys):
                if seen.setdefault(key, axis.name) != axis.name or [a.name for a in self.axes].count(axis.name) > 1:
                    raise ConfigError(f"{key} is varied twice; give all of its values in one axis.")
        object.__setattr__(self, "reference", {axis.name: self._reference(axis) for axis in self.axes})

    def points(self) -> Iterator[Point]:
        """Every combination of choices, the last axis fastest."""
        for choices in itertools.product(*(axis.choices for axis in self.axes)):
            labels = {axis.name: choice.label for axis, choice in zip(self.axes, choices, strict=True)}
            settings = dict(self.base)
            for choice in choices:
                settings |= choice.settings
            yield Point(labels, settings)

    @property
    def compared(self) -> tuple[Axis, ...]:
        """The axes that are not averaged over."""
        return tuple(axis for axis in self.axes if not axis.averaged)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        axes = [
            {"name": a.name, "choices": [{"label": c.label, "settings": dict(c.settings)} for c in a.choices]}
            for a in self.axes
        ]
        draw = {"draw": dict(self.draw)} if self.draw else {}
        return {"base": dict(self.base), "axes": axes, "test": self.test, "protocol": self.protocol, **draw}

    def _reference(self, axis: Axis) -> str:
        for key in axis.keys:
            varied = [choice.settings[key] for choice in axis.choices if key in choice.settings]
            unused = len(varied) == len(axis.choices) and not any(_equal(value, self.base.get(key)) for value in varied)
            if key in self.base and unused:
                raise ConfigError(
                    f"{key} is given as {self.base[key]!r} and varied as {', '.join(map(str, varied))}: leave one out, or give "
                    "one of the varied values to mark the reference of the plots."
                )
        agreeing = (c for c in axis.choices if all(_equal(v, self.base.get(k, v)) for k, v in c.settings.items()))
        return next(agreeing, axis.choices[0]).label


def is_key(key: str) -> bool:
    """Whether a fit can have such a setting; of generator, labeler, source and adapter only the factory knows."""
    group, _, name = key.partition(".")
    return key in _EXACT or (group in _OPEN and bool(name))


def check_key(key: str) -> None:
    """Raises ConfigError, with the nearest settings, for one that no fit can have."""
    if is_key(key):
        return
    near = difflib.get_close_matches(key, _EXACT, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Options: {', '.join((*OPTIONS, 'method'))}."
    raise ConfigError(
        f"a fit has no setting {key!r}. {hint} Settings of a group: {', '.join(GROUPS)} and intrinsic, as in adapter.rank."
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())


def _equal(one: Any, other: Any) -> bool:
    """Equal, where True is not 1 although Python says so."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
