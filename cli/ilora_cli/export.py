"""`ilora export`: a trained adapter for diffusers, ComfyUI, ONNX, or merged into its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilora_cli.console import console, parse_settings, print_json

__all__ = ["export"]


def export(
    artefact: Annotated[
        str, typer.Argument(help="What `ilora fit` or `ilora import` wrote, hf://OWNER/NAME, or [INTRINSIC=]FILE.")
    ],
    to: Annotated[str, typer.Option("--to", help="diffusers, kohya, comfyui, onnx, merged; with commas")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder to write; with several, one below it for each.")
    ] = "export",
    generator: Annotated[str, typer.Option("--generator", "-g", help="Of a LoRA file: what it was trained on.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.name=value, as local weights")] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable list of what was written.")] = False,
) -> None:
    """Write an adapter for other tools.

    diffusers, kohya and comfyui need no weights of the generator; onnx and merged load them, and onnx checks what it wrote.
    """
    from ilora_core.adapter_places import find_adapters
    from ilora_core.interchange.exporting import check_target, export_adapter

    targets = [check_target(name.strip()) for name in to.split(",")]
    settings = parse_settings(set_ or []).get("generator", {})
    artefacts = find_adapters([artefact], generator=generator, settings=settings)
    written = []
    for one in artefacts:
        for target in targets:
            folder = Path(
                out, *([one.intrinsic.name] if len(artefacts) > 1 else []), *([target] if len(targets) > 1 else [])
            )
            written.append((target, export_adapter(one, target, folder, settings=settings)))
    if json:
        print_json([{"to": t, "folder": str(e.folder), "files": e.files, **e.notes} for t, e in written])
        return
    stream = console()
    for target, exported in written:
        notes = "".join(f", {key.replace('_', ' ')} {_short(value)}" for key, value in exported.notes.items())
        stream.print(f"[bold]{target}[/bold] {exported.folder}{notes}")
        for name in exported.files[:12]:
            stream.print(f"  {name}", markup=False)
        if len(exported.files) > 12:
            stream.print(f"  and {len(exported.files) - 12} more")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
