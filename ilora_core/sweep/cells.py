"""From points of a grid to cells: a method and a resolved configuration, whose hash names its folder.

    hash = sha256 of the JSON {"method", "config"}, keys sorted

Points that come to the same configuration share a cell: the mean map of rank 1 is the mean map of rank 8. Which pictures it is
scored on is no part of it, so that a finished adapter can be scored on others. Settings are hashed, not files: change the
pictures in a folder and a finished cell does not notice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ilora_core.config import FitConfig, cast_setting
from ilora_core.errors import ConfigError, IloraError
from ilora_core.intrinsics import CHOICES
from ilora_core.labelling import labeler_names, own_settings
from ilora_core.metrics.protocols import get_protocol
from ilora_core.options import OPTIONS, resolve_fit
from ilora_core.plugins import PluginHost
from ilora_core.sweep.grid import Point, Sweep
from ilora_core.sweep.held_out import HeldOut, check_held_out, parse_held_out

__all__ = ["Cell", "Plan", "Scoring", "plan_sweep"]


@dataclass(frozen=True)
class Cell:
    """One thing to compute: a method of `ilora_core.sweep.methods` with all that its result depends on."""

    method: str
    config: FitConfig

    def to_json(self) -> dict[str, Any]:
        """Plain data: what is hashed."""
        return {"method": self.method, "config": self.config.to_json()}

    @cached_property
    def hash(self) -> str:
        """64 hexadecimal digits."""
        return _sha256(self.to_json())


@dataclass(frozen=True)
class Scoring:
    """How a cell is judged: on which pictures, by which protocol ("" = each intrinsic's default), drawn with which settings."""

    held_out: HeldOut
    protocol: str = ""
    draw: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        draw = {"draw": dict(self.draw)} if self.draw else {}
        return {"test": self.held_out.to_json(), "protocol": self.protocol, **draw}

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits."""
        return _sha256(self.to_json())[:12]


@dataclass(frozen=True)
class Plan:
    """A sweep, resolved. cells: each once, in the order of the points; notes: what was assumed."""

    sweep: Sweep
    scoring: Scoring
    points: tuple[tuple[Point, Cell], ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once."""
        return tuple({cell.hash: cell for _, cell in self.points}.values())

    def points_of(self, cell: Cell) -> list[Point]:
        """The places of the grid that a cell stands for."""
        return [point for point, other in self.points if other.hash == cell.hash]


def plan_sweep(sweep: Sweep, host: PluginHost) -> Plan:
    """Resolve every point and check what can be checked without loading a model. Raises ConfigError that names the point."""
    scoring = Scoring(parse_held_out(sweep.test), sweep.protocol, dict(sweep.draw))
    points, notes = [], {}
    for point in sweep.points():
        try:
            cell, said = _resolve(point, host, scoring.held_out)
            _check(cell, scoring, host)
        except IloraError as error:
            if not point.labels:
                raise
            raise type(error)(f"{point}: {error}") from error
        points.append((point, cell))
        notes |= dict.fromkeys(said)
    _check_judges(scoring, [cell for _, cell in points])
    return Plan(sweep, scoring, tuple(points), tuple(notes))


def _resolve(point: Point, host: PluginHost, held_out: HeldOut) -> tuple[Cell, list[str]]:
    from ilora_core.sweep.methods import get_method

    options, settings, changes = _split(point.settings)
    method = get_method(options.pop("method", "adapter"))
    config, notes = resolve_fit(host, options, settings)
    config = replace(
        config,
        **{name: str(Path(getattr(config, name)).resolve()) for name in ("pairs", "pictures") if getattr(config, name)},
    )
    if changes:
        config = replace(config, intrinsics=tuple(replace(i, **changes) for i in config.intrinsics))
    name, config = method.plan(config, host, held_out)
    return Cell(name, config), notes


def _split(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """Options, settings by group, and changes of the intrinsics."""
    options: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        if not groups:
            options[name] = cast_setting(name, value, OPTIONS.get(name, str))
        elif groups == ["intrinsic"] and name in CHOICES:
            changes[name] = value
        else:
            node = settings
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = value
    return options, settings, changes


def _check(cell: Cell, scoring: Scoring, host: PluginHost) -> None:
    """Names and types of all settings, and the pictures of the score."""
    config = cell.config
    settings = config.settings
    host.check_settings("generators", config.generator, {**settings.get("generator", {}), **scoring.draw})
    if config.source:
        host.check_settings("sources", config.source, settings.get("source", {}))
    if config.labeler:
        names = labeler_names(config.labeler)
        for name, own in own_settings(names, settings.get("labeler", {}))[1].items():
            host.check_settings("labelers", name, own)
    adapter = {name: value for name, value in settings.get("adapter", {}).items() if name != "targets"}
    host.check_settings("adapters", config.adapter, adapter)
    host.make("adapters", config.adapter, **adapter)  # small, and knows which values make sense
    if config.limit and 1 <= config.validation >= config.limit:
        raise ConfigError(
            f"limit={config.limit} leaves nothing to learn from beside --validation {config.validation:g}."
        )
    for intrinsic in config.intrinsics:
        get_protocol(scoring.protocol or None, intrinsic)
    check_held_out(scoring.held_out, config, host)


def _check_judges(scoring: Scoring, cells: list[Cell]) -> None:
    """Samples of different labelers' making cannot be compared."""
    held_out = scoring.held_out
    judges = sorted({cell.config.labeler for cell in cells})
    if held_out.kind == "samples" and "labeler" not in held_out.settings and len(judges) > 1:
        raise ConfigError(
            f"the labeler is varied ({', '.join(judges)}): say who judges them all, as in --test samples:100:labeler={judges[0]}."
        )


def _sha256(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
