"""`ilora import`: LoRA files of other tools as ilora artefacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilora_cli.console import console, parse_settings, print_json
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from ilora_core.artefact import Artefact

__all__ = ["import_"]


def import_(
    files: Annotated[list[str], typer.Argument(help="A .safetensors, .bin, .pt or .pth file each.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write: OUT/<intrinsic>/")] = "imported",
    intrinsic: Annotated[
        str, typer.Option("--intrinsic", "-i", help="What the file draws, or a .toml; by default told from its name.")
    ] = "",
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="What it was trained on; by default told from its layers.")
    ] = "",
    prompt: Annotated[str, typer.Option(help="The words it was trained with; by default the intrinsic's own.")] = "",
    timestep: Annotated[
        int, typer.Option(min=-1, help="At which the network is read; -1 is the last, as the reference has it.")
    ] = -1,
    alpha: Annotated[
        float | None, typer.Option(help="Of every layer, where the file does not say or is wrong.")
    ] = None,
    decoding: Annotated[
        str,
        typer.Option(help="unit (normals of unit length, depth from the mean channel), max (depth), or reference"),
    ] = "unit",
    licence: Annotated[str, typer.Option(help="Of the file, as its author states it.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.name=value")] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable list of what was written.")] = False,
) -> None:
    """Turn LoRA files into artefacts: the released I-LoRA weights, and the kohya, peft and diffusers layouts."""
    if intrinsic and len(files) > 1:
        raise ConfigError("--intrinsic is for one file: import them one after the other.")
    from ilora_core.folders import load_intrinsic
    from ilora_core.interchange.importing import Told, import_adapter, save_imported

    settings = dict(parse_settings(set_ or []).get("generator", {}))
    if timestep >= 0:
        settings["timestep"] = timestep
    told = Told(
        load_intrinsic(intrinsic) if intrinsic.endswith(".toml") else intrinsic or None,
        generator,
        settings,
        alpha,
        "" if decoding == "unit" else decoding,
        prompt,
        licence,
    )
    artefacts = [import_adapter(file, told) for file in files]  # all are read before the first is written
    names = [artefact.intrinsic.name for artefact in artefacts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"several of the files draw {twice[0]}: import them into folders of their own.")
    written = []
    for artefact, name in zip(artefacts, names, strict=True):
        folder = Path(out) / name
        save_imported(artefact, folder)
        written.append((artefact, folder))
    if json:
        print_json([{"folder": str(folder), **_told(artefact)} for artefact, folder in written])
        return
    out_ = console()
    for artefact, folder in written:
        out_.print(f"[bold]{folder}[/bold]")
        for key, value in _told(artefact).items():
            out_.print(f"  [cyan]{key}[/cyan]  {value}", markup=True)
    out_.print(f"draw with them: ilora predict PICTURES --adapter {out}", markup=False)


def _told(artefact: Artefact) -> dict[str, object]:
    intrinsic, imported = artefact.intrinsic, artefact.record["imported"]
    usual = {"unit_vector": "unit normals", "relative_depth": "mean of the channels, relative"}
    return {
        "intrinsic": intrinsic.name,
        "generator": artefact.generator,
        "prompt": intrinsic.prompt,
        "timestep": imported.get("timestep", "none"),
        "decoding": intrinsic.decoding or usual.get(intrinsic.encoding, "as drawn"),
        "layout": f"{imported['layout']}, {imported['layers']} layers; ilora's own have {imported['usual_layers']}",
        "rank": artefact.config["r"],
        "alpha": f"{artefact.config['lora_alpha']:g} ({imported['alpha']})",
        "licences": "; ".join(f"{what}: {licence}" for what, licence in artefact.record["licences"].items()),
    }
