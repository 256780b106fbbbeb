"""`ilora show NAME`: all there is to know of a card, a set of weights or a preset."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_core.cards import Card
from ilora_core.errors import IloraError, UnknownName
from ilora_core.factories import options_of
from ilora_core.plugins import KINDS, PluginHost, load_plugins
from ilora_core.registry import Preset, Registry, Weights, load_registry

__all__ = ["show"]


def show(
    name: Annotated[str, typer.Argument(help="A generator, labeler, adapter, source, metric, weights or preset.")],
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show a card: where it comes from, its licence, settings, weights and presets."""
    host, registry = load_plugins(), load_registry()
    entries = _cards(host, registry, name) or _registered(registry, name)
    if not entries:
        raise UnknownName(_unknown(host, registry, name))
    if json:
        print_json(entries)
        return
    out = console()
    for entry in entries:
        out.print(f"[bold]{entry.pop('kind')} {entry.pop('name')}[/bold]")
        for key, value in entry.items():
            if value not in ("", None, [], {}):
                _print_field(out, key, value)


def _cards(host: PluginHost, registry: Registry, name: str) -> list[dict[str, Any]]:
    entries = []
    for kind in KINDS:
        for owner, card in host.cards(kind):
            if name in (card.name, f"{owner}/{card.name}"):
                entries.append(_describe(kind[:-1], owner, card, registry))
    return entries


def _describe(kind: str, owner: str, card: Card, registry: Registry) -> dict[str, Any]:
    weights = registry.weights.get(str(card.options.get("weights", card.name))) if kind == "generator" else None
    presets = registry.presets_for(card.name) if kind == "generator" else []
    return {
        "kind": kind,
        "name": card.name,
        "plugin": owner,
        "summary": card.summary,
        "licence": card.licence,
        "intrinsics": list(card.intrinsics),
        "factory": card.factory,
        "settings": _settings(kind, owner, card),
        "weights": _weights(weights) if weights else {},
        "presets": {preset.name: _preset(preset) for preset in presets},
    }


def _settings(kind: str, owner: str, card: Card) -> dict[str, Any]:
    """What `--set KIND.NAME=` takes, with its default; importing the factory may need a package that is not here."""
    try:
        options = options_of(card.factory, what=f"{kind} {card.name!r}", plugin=owner)
    except IloraError as error:
        return {"unknown here": str(error)}
    chosen = {option.name: card.options.get(option.name, option.default) for option in options}
    return {o.name: "required" if o.required and o.name not in card.options else chosen[o.name] for o in options}


def _registered(registry: Registry, name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    if name in registry.weights:
        entries.append({"kind": "weights", "name": name, **_weights(registry.weights[name])})
    if name in registry.presets:
        entries.append({"kind": "preset", "name": name, **_preset(registry.presets[name])})
    return entries


def _weights(weights: Weights) -> dict[str, Any]:
    return {
        "sources": list(weights.sources),
        "revision": weights.revision,
        "licence": weights.licence,
        "size": f"{weights.size_mb} MB" if weights.size_mb else "not on record",
        "sha256": dict(weights.sha256) or "none on record: these files cannot be checked",
        "note": weights.note,
    }


def _preset(preset: Preset) -> dict[str, Any]:
    return {
        "settings": dict(preset.settings),
        "generators": list(preset.generators),
        "provenance": preset.provenance,
    }


def _unknown(host: PluginHost, registry: Registry, name: str) -> str:
    owner, _, short = name.rpartition("/")
    offers = {o for k in KINDS for o in registry.offers(k, short, owner, installed={p.name for p in host.plugins})}
    known = {card.name for kind in KINDS for _, card in host.cards(kind)}
    parts = [f"nothing is called {name!r}.", *sorted(offers)]
    parts += [
        registry.nearest(short, {*known, *registry.weights, *registry.presets}),
        "`ilora list-plugins` lists all.",
    ]
    if host.broken:
        parts.append(f"Broken plugins that might provide it: {'; '.join(map(str, host.broken))}.")
    return " ".join(filter(None, parts))


def _print_field(out: Any, key: str, value: Any, indent: str = "  ") -> None:
    from rich.markup import escape

    if isinstance(value, dict):
        out.print(f"{indent}{key}")
        for inner, content in value.items():
            _print_field(out, inner, content, indent + "  ")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        out.print(f"{indent}[cyan]{escape(str(key))}[/cyan]  {escape(text)}")
