"""`ilora list-plugins`: what is installed, what is broken and why, what else there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_core.plugins import KINDS, PluginHost, load_plugins
from ilora_core.registry import load_registry

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["list_plugins"]


def list_plugins(
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List generators, labelers, adapters, sources and metrics, and the plugins they come from."""
    host = load_plugins()
    if json:
        print_json(_describe(host))
        return
    out = console()
    for kind in KINDS:
        if found := host.cards(kind):
            out.print(_table(kind, [(card.name, owner, card.licence, card.summary) for owner, card in found]))
    if host.broken:
        out.print(_table("broken", [(b.plugin, b.stage, "", b.reason) for b in host.broken]))
    if missing := _missing(host):
        out.print(_table("not installed", [(m["name"], m["status"], "", m["how"]) for m in missing]))


def _describe(host: PluginHost) -> dict[str, Any]:
    return {
        "plugins": [{"name": p.name, "version": p.version, "module": p.module} for p in host.plugins],
        "cards": {
            kind: [
                {
                    "name": card.name,
                    "plugin": owner,
                    "summary": card.summary,
                    "licence": card.licence,
                    "intrinsics": list(card.intrinsics),
                }
                for owner, card in host.cards(kind)
            ]
            for kind in KINDS
        },
        "broken": [{"plugin": b.plugin, "stage": b.stage, "reason": b.reason} for b in host.broken],
        "missing": _missing(host),
    }


def _missing(host: PluginHost) -> list[dict[str, str]]:
    present = {p.name for p in host.plugins} | {b.plugin for b in host.broken}
    return [
        {
            "name": plugin.name,
            "status": plugin.status,
            "summary": plugin.summary,
            "how": f"in a checkout of ilora: {plugin.install}"
            if plugin.install
            else f"not there yet: {plugin.summary}",
        }
        for plugin in load_registry().plugins.values()
        if plugin.name not in present
    ]


def _table(title: str, rows: list[tuple[str, ...]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=box.SIMPLE)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(no_wrap=True)
    table.add_column(max_width=26)
    table.add_column()
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # not markup: a reason may hold [brackets]
    return table
