"""Finds plugins, each on its own: load → check API → register → check hooks → call hooks.

What fails is recorded as `Broken` with its stage and reason, and never breaks a command; it is mentioned once on the
standard error stream (through `logging`) and wherever an unknown name may be its fault.

    ILORA_PLUGINS=a,b        load these only (empty: none); the core's own cards are always there
    ILORA_STRICT_PLUGINS=1   raise at the first broken plugin
"""

import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from ilora_core import API_VERSION, __version__, builtin, hookspecs
from ilora_core.cards import Card
from ilora_core.errors import ConfigError, PluginError, UnknownName
from ilora_core.factories import call_factory, check_settings
from ilora_core.registry import load_registry

__all__ = ["CORE", "ENTRY_POINTS", "KINDS", "Broken", "Plugin", "PluginHost", "load_plugins"]

ENTRY_POINTS = "ilora"
CORE = "ilora"
KINDS = tuple(hook.removeprefix("ilora_") for hook in hookspecs.HOOKS)
"""generators, labelers, adapters, sources, metrics"""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_log = logging.getLogger("ilora.plugins")
_hosts: dict[tuple, "PluginHost"] = {}
_mentioned: set["Broken"] = set()


@dataclass(frozen=True)
class Broken:
    """A plugin, or one hook of it, that could not be used. stage: load, API, register, hooks or the hook's name."""

    plugin: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.stage}: {self.reason})"


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded. cards: kind -> what it provides."""

    name: str
    version: str
    module: str
    cards: Mapping[str, tuple[Card, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """An installed entry point that has not been loaded yet."""

    plugin: str
    version: str
    target: str
    load: Callable[[], object]


class PluginHost:
    """All plugins of this environment: their cards, and what they make."""

    def __init__(self, plugins: Iterable[Plugin], broken: Iterable[Broken] = ()):
        self.plugins = tuple(plugins)
        self.broken = tuple(broken)

    def cards(self, kind: str) -> list[tuple[str, Card]]:
        """(plugin, card) of a kind, clashes included, in alphabetical order."""
        if kind not in KINDS:
            raise ConfigError(f"no kind of plugin is called {kind!r}; the kinds are {', '.join(KINDS)}.")
        found = [(plugin.name, card) for plugin in self.plugins for card in plugin.cards.get(kind, ())]
        return sorted(found, key=lambda pair: (pair[1].name, pair[0]))

    def card(self, kind: str, name: str) -> Card:
        """The card of that name. `plugin/name` tells two of the same name apart."""
        return self.find(kind, name)[1]

    def find(self, kind: str, name: str) -> tuple[str, Card]:
        """As `card`, with the name of the plugin that provides it."""
        plugin, _, short = name.rpartition("/")
        found = [pair for pair in self.cards(kind) if pair[1].name == short and plugin in ("", pair[0])]
        if len(found) == 1:
            return found[0]
        if found:
            names = " or ".join(f"{owner}/{short}" for owner, _ in found)
            raise ConfigError(f"more than one plugin has a {kind[:-1]} called {short!r}. Say which: {names}.")
        raise UnknownName(self._unknown(kind, plugin, short))

    def make(self, kind: str, name: str, /, **settings: Any) -> Any:
        """Call the card's factory with its options overlaid by `settings`, which are checked first."""
        owner, card = self.find(kind, name)
        return call_factory(card.factory, {**card.options, **settings}, what=f"{kind[:-1]} {name!r}", plugin=owner)

    def check_settings(self, kind: str, name: str, settings: Mapping[str, Any]) -> None:
        """Raises ConfigError for settings that the card's factory does not take; nothing is made."""
        owner, card = self.find(kind, name)
        check_settings(card.factory, {**card.options, **settings}, what=f"{kind[:-1]} {name!r}", plugin=owner)

    def make_skeleton(self, kind: str, name: str, **settings: Any) -> Any:
        """The full-size thing without weights, on torch's meta device: what can be counted without a download."""
        owner, card = self.find(kind, name)
        if not card.skeleton:
            raise PluginError(
                f"{kind[:-1]} {name!r} (plugin {owner}) has no skeleton, so it cannot be counted unloaded."
            )
        what = f"the skeleton of {kind[:-1]} {name!r}"
        return call_factory(card.skeleton, {**card.options, **settings}, what=what, plugin=owner)

    def make_tiny(self, kind: str, name: str) -> Any:
        """The card's miniature: random weights, on the CPU, offline."""
        owner, card = self.find(kind, name)
        return call_factory(card.tiny, {}, what=f"the miniature of {kind[:-1]} {name!r}", plugin=owner)

    def _unknown(self, kind: str, plugin: str, name: str) -> str:
        singular, wanted = kind[:-1], f"{plugin}/{name}" if plugin else name
        parts = [f"no {singular} is called {wanted!r}."]
        names = sorted({card.name for _, card in self.cards(kind)})
        registry = load_registry()
        parts += registry.offers(kind, name, plugin, installed={p.name for p in self.plugins})
        parts.append(registry.nearest(name, {*names, *registry.names(kind)}))
        parts.append(f"Installed: {', '.join(names) or 'none'} (`ilora list-plugins`).")
        if self.broken:
            parts.append(f"Broken plugins that might provide it: {'; '.join(map(str, self.broken))}.")
        return " ".join(filter(None, parts))


def load_plugins(*, only: Iterable[str] | None = None) -> PluginHost:
    """The plugins of this environment, loaded once per process and setting of the environment.

    only: names of plugins to load, in place of ILORA_PLUGINS.
    """
    wanted = _wanted() if only is None else frozenset(only)
    strict = os.environ.get("ILORA_STRICT_PLUGINS", "") not in ("", "0")
    key = (wanted, strict, tuple(sys.path))
    if key not in _hosts:
        host = _load_all(wanted, strict)
        for broken in host.broken:
            if broken in _mentioned:
                continue
            _mentioned.add(broken)
            _log.warning("plugin %s is broken and was left out: %s: %s", broken.plugin, broken.stage, broken.reason)
        _hosts[key] = host
    return _hosts[key]


def _wanted() -> frozenset[str] | None:
    names = os.environ.get("ILORA_PLUGINS")
    return None if names is None else frozenset(filter(None, (name.strip() for name in names.split(","))))


def _load_all(wanted: frozenset[str] | None, strict: bool) -> PluginHost:
    plugins, broken = [], []
    entries = [_Entry(CORE, __version__, builtin.__name__, lambda: builtin)]
    entries += [entry for entry in _entry_points(broken) if wanted is None or entry.plugin in wanted]
    for name in sorted((wanted or frozenset()) - {entry.plugin for entry in entries}):
        broken.append(Broken(name, "find", "ILORA_PLUGINS asks for it and it is not installed"))
    for entry in entries:
        if entry.plugin in {plugin.name for plugin in plugins}:
            broken.append(Broken(entry.plugin, "register", f"a second plugin has this name ({entry.target})"))
            continue
        plugin, failures = _load_one(entry)
        broken += failures
        plugins += [plugin] if plugin else []
    if strict and broken:
        raise PluginError(f"ILORA_STRICT_PLUGINS is set and a plugin is broken: {broken[0]}.")
    return PluginHost(plugins, broken)


def _entry_points(broken: list[Broken]) -> list[_Entry]:
    """Read each distribution on its own: a damaged one must not hide the others, as importlib.metadata would let it."""
    entries, seen = [], set()
    for distribution in importlib.metadata.distributions():
        try:
            found = [point for point in distribution.entry_points if point.group == ENTRY_POINTS]
            if not found or distribution.metadata["Name"] in seen:  # the first on sys.path is the one Python imports
                continue
            seen.add(distribution.metadata["Name"])
            entries += [_Entry(point.name, distribution.version, point.value, point.load) for point in found]
        except Exception as error:
            where = str(getattr(distribution, "_path", "a distribution"))
            broken.append(Broken(os.path.basename(where), "find", f"{where} is unreadable: {_say(error)}"))
    return sorted(entries, key=lambda entry: (entry.plugin, entry.target))


def _load_one(entry: _Entry) -> tuple[Plugin | None, list[Broken]]:
    stage = "load"
    try:
        module = entry.load()
        stage = "API"
        _check_api(module)
        stage = "register"
        manager = pluggy.PluginManager("ilora")  # one each: a wrong hook of one plugin is nobody else's
        manager.add_hookspecs(hookspecs)
        manager.register(module, name=entry.plugin)
        stage = "hooks"
        manager.check_pending()
    except (Exception, SystemExit) as error:
        return None, [Broken(entry.plugin, stage, _say(error))]
    cards, failures = {}, []
    for hook, kind in zip(hookspecs.HOOKS, KINDS, strict=True):
        try:
            cards[kind] = _call(getattr(manager.hook, hook))
        except (Exception, SystemExit) as error:
            failures.append(Broken(entry.plugin, hook, _say(error)))
    return Plugin(entry.plugin, entry.version, entry.target, cards), failures


def _check_api(module: object) -> None:
    """A plugin may say which API it was written for: `ILORA_API = 1`. No word means this one."""
    wanted = getattr(module, "ILORA_API", API_VERSION)
    if wanted != API_VERSION:
        raise PluginError(f"it was written for plugin API {wanted} and this ilora has API {API_VERSION}")


def _call(hook: Callable[[], list[Iterable[Card]]]) -> tuple[Card, ...]:
    cards: list[Card] = []
    for result in hook():
        if isinstance(result, (Card, str)) or not isinstance(result, Iterable):
            raise PluginError(f"it must yield Cards, and gave {type(result).__name__} {result!r:.60}")
        for card in result:
            _check_card(card, {c.name for c in cards})
            cards.append(card)
    return tuple(cards)


def _check_card(card: object, seen: set[str]) -> None:
    if not isinstance(card, Card):
        raise PluginError(f"it must yield Cards, and gave {type(card).__name__} {card!r:.60}")
    if not isinstance(card.name, str) or not _NAME.fullmatch(card.name):
        raise PluginError(f"a card's name has lower-case letters, digits, dots and dashes, not {card.name!r}")
    if card.name in seen:
        raise PluginError(f"two cards are called {card.name!r}")
    for text in (card.summary, card.licence, card.factory, card.tiny):
        if not isinstance(text, str):
            raise PluginError(f"card {card.name!r}: summary, licence, factory and tiny are strings, not {text!r:.60}")


def _say(error: BaseException) -> str:
    """The error in one line: a SyntaxError's own text spans several."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")
