"""Adapters from wherever they are.

FOLDER                              what `ilora fit` or `ilora import` wrote
hf://owner/name[/folder][@revision]   the same on the Hugging Face Hub
[INTRINSIC=]FILE                    a LoRA file of another tool, imported on the fly (`ilora_core.interchange`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilora_core.artefact import Artefact, find_artefacts
from ilora_core.errors import ArtefactError
from ilora_core.hub import is_hub_id
from ilora_core.hub_places import PREFIX, HubPlace, is_hub_place

__all__ = ["check_places", "find_adapters"]


def check_places(places: Sequence[str]) -> None:
    """Refuse what is spelt wrong, before anything is loaded or fetched. Raises ConfigError or ArtefactError."""
    for place in places:
        if is_hub_place(place):
            HubPlace.parse(place)
        elif not Path(place).exists() and _lora(place) is None:
            raise ArtefactError(_nothing(place))


def find_adapters(
    places: Sequence[str], *, local_only: bool = False, generator: str = "", settings: Mapping[str, Any] | None = None
) -> list[Artefact]:
    """The artefacts at every place, in order; a place may hold several.

    local_only           open no connection
    generator, settings  of LoRA files, which do not say what they are for; "" = told from their layers

    Raises ConfigError for an address that is spelt wrong, HubError, ArtefactError, WeightsError.
    """
    check_places(places)
    return [found for place in places for found in _at(place, local_only, generator, settings or {})]


def _at(place: str, local_only: bool, generator: str, settings: Mapping[str, Any]) -> list[Artefact]:
    """What one place holds. Another kind of place is another branch here, and one in `check_places`."""
    if is_hub_place(place):
        from ilora_core.hub_repository import cached, check_artefacts

        return check_artefacts(cached(HubPlace.parse(place), local_only=local_only))
    if lora := _lora(place):
        from ilora_core.interchange.importing import Told, import_adapter

        name, path = lora
        return [import_adapter(path, Told(intrinsic=name or None, generator=generator, settings=settings))]
    return find_artefacts(place)


def _lora(place: str) -> tuple[str, Path] | None:
    """(intrinsic or "", file) where a place is a file."""
    if Path(place).is_file():
        return "", Path(place)
    name, equals, rest = place.partition("=")
    return (name, Path(rest)) if equals and Path(rest).is_file() else None


def _nothing(place: str) -> str:
    told = f"there is no folder {place}. Give the folder that `ilora fit` wrote"
    if place.startswith("https://huggingface.co/"):
        meant = place.removeprefix("https://huggingface.co/").strip("/")
        return f"{told}; a repository on the hub is written {PREFIX}{'/'.join(meant.split('/')[:2])}."
    return f"{told}, or {PREFIX}{place} for the repository on the hub." if is_hub_id(place) else f"{told}."
