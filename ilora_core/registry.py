"""The index of known plugins, weights and presets: `registry.toml`, read as plain data.

It answers what a plugin that is not installed would provide and how to get it, where weights live today and under which
licence, and which hyper-parameters a paper or a README states.
"""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ilora_core.errors import ConfigError, UnknownName

__all__ = ["KnownPlugin", "Preset", "Registry", "Weights", "load_registry", "registry_path"]

_KINDS = ("generators", "labelers", "adapters", "sources", "metrics")


@dataclass(frozen=True)
class KnownPlugin:
    """A plugin of this project, installed or not. `cards` and `planned`: kind -> names."""

    name: str
    status: str
    summary: str
    folders: tuple[str, ...] = ()
    cards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    planned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def released(self) -> bool:
        return self.status == "released"

    @property
    def install(self) -> str:
        """How to get it, or "" for a plugin that is not there yet. It lives in the repository, not on an index."""
        return (
            f"pip install . {' '.join('./' + folder for folder in self.folders)}" if self.status == "released" else ""
        )


@dataclass(frozen=True)
class Weights:
    """Where weights are today. sources: hub ids, tried in order; sha256: file -> digest, empty where none is known."""

    name: str
    sources: tuple[str, ...]
    licence: str
    note: str = ""
    revision: str | None = None
    size_mb: int | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """Settings (`"train.lr": 1e-4`) that a source states for some generators."""

    name: str
    generators: tuple[str, ...]
    provenance: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Registry:
    """All of registry.toml."""

    plugins: Mapping[str, KnownPlugin]
    weights: Mapping[str, Weights]
    presets: Mapping[str, Preset]
    imports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Family of models -> the generators that a LoRA file with its layers may be meant for."""

    def preset(self, name: str) -> Preset:
        """The preset of that name. Raises UnknownName that lists the known ones."""
        if name not in self.presets:
            raise UnknownName(f"no preset is called {name!r}; known are {', '.join(sorted(self.presets))}.")
        return self.presets[name]

    def presets_for(self, generator: str) -> list[Preset]:
        """The presets that were stated for this generator."""
        return [preset for preset in self.presets.values() if generator in preset.generators]

    def names(self, kind: str) -> list[str]:
        """All card names of a kind that exist today, installed or not."""
        return sorted(
            {name for plugin in self.plugins.values() if plugin.install for name in plugin.cards.get(kind, ())}
        )

    @staticmethod
    def nearest(name: str, names: Collection[str]) -> str:
        """`Did you mean a or b?`, or "" when nothing is near."""
        near = difflib.get_close_matches(name, sorted(set(names) - {name}), n=3)
        return f"Did you mean {' or '.join(near)}?" if near else ""

    def offers(self, kind: str, name: str, plugin: str = "", *, installed: Collection[str] = ()) -> list[str]:
        """One sentence for each known plugin, not yet installed, that has (or will have) a card of that name."""
        known = [p for p in self.plugins.values() if plugin in ("", p.name)]
        sentences = []
        for p in known:
            if name in p.planned.get(kind, ()) or (name in p.cards.get(kind, ()) and not p.released):
                sentences.append(f"It is planned for the plugin {p.name} and not there yet.")
            elif name in p.cards.get(kind, ()) and p.name not in installed:
                sentences.append(f"The plugin {p.name} provides it. Install it, in a checkout of ilora: {p.install}")
        return sentences


@cache
def load_registry() -> Registry:
    """Read the registry file that belongs to this installation."""
    return _parse(registry_path())


def registry_path(package: Path | None = None) -> Path:
    """Beside the package (a wheel), else one folder up (an editable install or a checkout)."""
    package = package or Path(__file__).parent
    for path in (package / "registry.toml", package.parent / "registry.toml"):
        if path.is_file():
            return path
    raise ConfigError(f"registry.toml is neither in {package} nor in {package.parent}. Reinstall ilora.")


def _parse(path: Path) -> Registry:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Registry(
            plugins={name: _plugin(name, table) for name, table in data.get("plugins", {}).items()},
            weights={name: _weights(name, table) for name, table in data.get("weights", {}).items()},
            presets={
                name: Preset(name, tuple(t["generators"]), t["provenance"], t["settings"])
                for name, t in data.get("presets", {}).items()
            },
            imports={family: tuple(cards) for family, cards in data.get("imports", {}).items()},
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} cannot be read as a registry: {type(error).__name__}: {error}. Restore it."
        ) from error


def _plugin(name: str, table: dict[str, Any]) -> KnownPlugin:
    status = table["status"]
    if status not in ("released", "planned"):
        raise ValueError(f"plugin {name}: status is released or planned, not {status!r}")
    folders, planned = tuple(table.get("folders", ())), table.get("planned", {})
    return KnownPlugin(name, status, table["summary"], folders, _names(table), _names(planned))


def _names(table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(table[kind]) for kind in _KINDS if kind in table}


def _weights(name: str, table: dict[str, Any]) -> Weights:
    return Weights(name, **{**table, "sources": tuple(table["sources"])})
