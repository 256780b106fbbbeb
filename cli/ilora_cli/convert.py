"""`ilora convert`: foreign weights, once, into safetensors that later loads read without a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilora_cli.console import console, print_json

__all__ = ["convert"]


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint as published: .pkl, .pt, .ckpt, or a folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: config.json and .safetensors files.")],
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="The card that reads it, e.g. stylegan2 or vqgan.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Convert a published checkpoint. Nothing that is stored in it is executed.

    Use the result with `--generator NAME --set generator.weights=OUT`.
    """
    from ilora_core.cards import resolve
    from ilora_core.errors import ConfigError, WeightsError
    from ilora_core.plugins import load_plugins

    host = load_plugins()
    if not generator:
        able = sorted(card.name for _, card in host.cards("generators") if card.convert)
        raise ConfigError(f"say whose checkpoint it is: --generator NAME. These can be converted: {', '.join(able)}.")
    card = host.card("generators", generator)
    if not card.convert:
        raise ConfigError(f"generator {generator!r} has nothing to convert: it loads published weights as they are.")
    if not source.exists():
        raise WeightsError(f"there is no file or folder {source}.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another folder, or --overwrite.")
    facts = resolve(card.convert)(source, out)
    told = {"source": str(source), "out": str(out), "generator": generator, "licence": card.licence, **facts}
    if json:
        print_json(told)
        return
    screen = console()
    screen.print(f"{source} -> {out}", markup=False, soft_wrap=True)
    for name in facts:
        screen.print(f"  {name}: {facts[name]}", markup=False, soft_wrap=True)
    screen.print(f"  licence of the weights: {card.licence}", markup=False, soft_wrap=True)
    screen.print(f"use it with --generator {generator} --set generator.weights={out}", markup=False, soft_wrap=True)
