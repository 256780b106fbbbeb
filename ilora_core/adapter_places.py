"""Adapters from wherever they are: a folder that `ilora fit` wrote, or `hf://owner/name[/folder][@revision]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
        elif not Path(place).exists():
            raise ArtefactError(_nothing(place))


def find_adapters(places: Sequence[str], *, local_only: bool = False) -> list[Artefact]:
    """The artefacts at every place, in order; a place may hold several. local_only: open no connection.

    Raises ConfigError for an address that is spelt wrong, HubError, ArtefactError.
    """
    check_places(places)
    return [artefact for place in places for artefact in _at(place, local_only)]


def _at(place: str, local_only: bool) -> list[Artefact]:
    """What one place holds. Another kind of place is another branch here, and one in `check_places`."""
    if is_hub_place(place):
        from ilora_core.hub_repository import cached, check_artefacts

        return check_artefacts(cached(HubPlace.parse(place), local_only=local_only))
    return find_artefacts(place)


def _nothing(place: str) -> str:
    told = f"there is no folder {place}. Give the folder that `ilora fit` wrote"
    if place.startswith("https://huggingface.co/"):
        meant = place.removeprefix("https://huggingface.co/").strip("/")
        return f"{told}; a repository on the hub is written {PREFIX}{'/'.join(meant.split('/')[:2])}."
    return f"{told}, or {PREFIX}{place} for the repository on the hub." if is_hub_id(place) else f"{told}."
