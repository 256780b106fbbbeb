"""Which adapters the page offers: those that were given, or those under the current folder, by generator."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilora_core.adapter_places import find_adapters
from ilora_core.artefact import RECORD, WEIGHTS, Artefact, find_artefacts
from ilora_core.errors import ArtefactError, IloraError

__all__ = ["DEPTH", "Group", "find_groups"]

DEPTH = 5
"""Levels of folders that are searched; what `ilora quickstart` writes lies four levels down."""

_LARGEST = 5000  # folders: a home directory is not searched to its end
_log = logging.getLogger("ilora")


@dataclass(frozen=True)
class Group:
    """Adapters that can be used together: made for one generator with the same settings.

    adapters  label -> artefact; a label is the map's name and where the adapter lies
    """

    label: str
    adapters: Mapping[str, Artefact]

    def first_of_each_map(self) -> list[str]:
        """Labels of one adapter per intrinsic."""
        chosen: dict[str, str] = {}
        for label, artefact in self.adapters.items():
            chosen.setdefault(artefact.intrinsic.name, label)
        return list(chosen.values())


def find_groups(
    places: Sequence[str], *, generator: str = "", settings: Mapping[str, Any] | None = None
) -> list[Group]:
    """Adapters at these places, or under the current folder, by the generator they were made for.

    generator, settings  of LoRA files, as `find_adapters` takes them
    """
    given = find_adapters(places, generator=generator, settings=settings)
    artefacts = given if places else _below(Path.cwd())
    if not artefacts:
        raise ArtefactError(
            f"there is no adapter in {Path.cwd()} or {DEPTH} levels below it. `ilora quickstart` makes two in some minutes "
            "without a GPU; or give one with --adapter FOLDER (what `ilora fit` wrote)."
        )
    groups: dict[str, dict[str, Artefact]] = {}
    for artefact in artefacts:
        label = f"{artefact.intrinsic.name} ({_shown(artefact.folder)})"
        groups.setdefault(_generator(artefact.generator, artefact.generator_settings), {})[label] = artefact
    return [Group(label, adapters) for label, adapters in groups.items()]


def _below(root: Path) -> list[Artefact]:
    """Finished artefacts under a folder; one that cannot be read is named and passed over."""
    found = []
    for folder in _folders(root):
        try:
            found += find_artefacts(folder)
        except IloraError as error:
            _log.warning("%s", error)
    return found


def _folders(root: Path) -> Iterator[Path]:
    for count, (here, below, files) in enumerate(os.walk(root)):
        if count == _LARGEST:
            _log.warning("only %d folders under %s were searched: give --adapter FOLDER.", _LARGEST, root)
            return
        deep = len(Path(here).relative_to(root).parts) >= DEPTH
        below[:] = [] if deep else sorted(name for name in below if name[0] not in "._" and name != "node_modules")
        if WEIGHTS in files and RECORD in files:
            yield Path(here)


def _shown(folder: Path) -> str:
    return os.path.relpath(folder) if folder.resolve().is_relative_to(Path.cwd()) else str(folder)


def _generator(name: str, settings: Mapping[str, Any]) -> str:
    told = ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    )
    return f"{name} ({told})" if told else name
