"""`ilora pull`: an artefact from the Hugging Face Hub, as a folder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilora_cli.console import console, print_json, quiet_bars

__all__ = ["pull"]


def pull(
    place: Annotated[str, typer.Argument(help="hf://OWNER/NAME[/FOLDER][@REVISION]")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make. It must not exist.")],
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Fetch an adapter from the Hugging Face Hub, checked: safetensors and records only, never a pickle.

    To use one without keeping it, give the same address to `ilora predict --adapter`.
    """
    from ilora_core.hub_places import HubPlace

    at = HubPlace.parse(place)
    from ilora_cli.push import tell_licences
    from ilora_core import hub_repository
    from ilora_core.licences import licence_chain, merge_chains

    quiet_bars(json)
    artefacts = hub_repository.pull(at, Path(out))
    chain = merge_chains({artefact.folder.name: licence_chain(artefact.record) for artefact in artefacts})
    if json:
        found = {a.intrinsic.name: {"folder": str(a.folder), "generator": a.generator} for a in artefacts}
        print_json({"out": out, "place": str(at), "adapters": found, "licences": chain.to_json()})
        return
    for artefact in artefacts:
        told = f"{artefact.intrinsic.name} from {artefact.generator}: {artefact.folder}"
        console().print(told, markup=False, soft_wrap=True)
    tell_licences(chain)
    console().print(f"Use it with --adapter {out}", markup=False, soft_wrap=True)
