"""`ilora convert`: foreign weights, once, into safetensors that later loads read without a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilora_cli.console import console, print_json

if TYPE_CHECKING:
    from ilora_core.plugins import PluginHost

__all__ = ["convert"]


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint as published: .pkl, .pt, .ckpt, or a folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: config.json and .safetensors files.")],
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="The card that reads it, e.g. stylegan2 or vqgan.")
    ] = "",
    labeler: Annotated[str, typer.Option("--labeler", help="The same, for a labeler's weights.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Convert a published checkpoint. Nothing that is stored in it is executed.

    Use the result with `--set generator.weights=OUT`, or `--set labeler.weights=OUT`.
    """
    from ilora_core.cards import resolve
    from ilora_core.errors import ConfigError, WeightsError
    from ilora_core.plugins import load_plugins

    host = load_plugins()
    if bool(generator) == bool(labeler):
        raise ConfigError(f"say whose checkpoint it is. These can be converted: {_convertible(host)}.")
    kind, name = ("generator", generator) if generator else ("labeler", labeler)
    card = host.card(f"{kind}s", name)
    if not card.convert:
        raise ConfigError(f"{kind} {name!r} has nothing to convert: it loads published weights as they are.")
    if not source.exists():
        raise WeightsError(f"there is no file or folder {source}.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another folder, or --overwrite.")
    facts = resolve(card.convert)(source, out)
    told = {"source": str(source), "out": str(out), kind: name, "licence": card.licence, **facts}
    if json:
        print_json(told)
        return
    screen = console()
    screen.print(f"{source} -> {out}", markup=False, soft_wrap=True)
    for fact, value in facts.items():
        screen.print(f"  {fact}: {value}", markup=False, soft_wrap=True)
    screen.print(f"  licence of the weights: {card.licence}", markup=False, soft_wrap=True)
    screen.print(f"use it with --{kind} {name} --set {kind}.weights={out}", markup=False, soft_wrap=True)


def _convertible(host: PluginHost) -> str:
    """`--generator a, --labeler b, …` of all cards that convert."""
    able = [
        f"--{kind[:-1]} {card.name}"
        for kind in ("generators", "labelers")
        for _, card in host.cards(kind)
        if card.convert
    ]
    return ", ".join(able) or "none is installed"
