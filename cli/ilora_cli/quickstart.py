"""`ilora quickstart`: the whole path on procedural rooms, offline, on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilora_cli.console import console, print_json
from ilora_core.errors import DataError, MissingDependency

__all__ = ["quickstart"]


def quickstart(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write.")] = "quickstart",
    controls: Annotated[bool, typer.Option("--controls", help="Longer: add the same fit on a random network.")] = False,
    steps: Annotated[int, typer.Option(min=0, help="Optimiser steps per map; 0 = 300, or 1500 with --controls.")] = 0,
    labels: Annotated[int, typer.Option(min=1, help="Labelled rooms to learn from.")] = 250,
    test: Annotated[int, typer.Option(min=2, help="Unseen rooms to be judged on.")] = 100,
    timestep: Annotated[
        int, typer.Option(help="Where the UNet is read; -1 = the last timestep, as in the paper.")
    ] = 300,
    seed: Annotated[int, typer.Option(help="Of the adapter and of the order of the data.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier quickstart in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable result.")] = False,
) -> None:
    """Fit normals and depth on 250 rooms, predict unseen ones, and write a report beside the controls.

    Nothing is downloaded: rooms are rendered here, and the generator that was trained to draw them is part of ilora-rooms.
    """
    try:
        from ilora_rooms.quickstart import Settings, run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("ilora_rooms", "ilora_sd"):
            raise
        raise MissingDependency(
            "the quickstart needs the plugins ilora-rooms and ilora-sd, which are not installed here. In a clone of the "
            "repository: pip install . ./plugins/ilora-sd ./plugins/ilora-rooms"
        ) from error
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise DataError(
            f"{folder} is not empty. Use --overwrite to replace an earlier quickstart, or choose another --out."
        )
    settings = Settings(
        steps=steps or (1500 if controls else 300),
        labels=labels,
        test=test,
        timestep=None if timestep < 0 else timestep,
        seed=seed,
        device=device,
        random_init=controls,
    )
    out_console = console(stderr=True)
    result = run(folder, settings, say=(lambda text: None) if json else out_console.print)
    if json:
        print_json(result)
    else:
        out_console.print(f"\nreport: {result['report']}")
