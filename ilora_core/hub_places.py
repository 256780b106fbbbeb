"""Addresses on the Hugging Face Hub: `hf://owner/name[/folder][@revision]`, also with the revision after the name.

A revision (branch, tag, commit) may hold slashes where it comes last; after the name, as in the hub's own `hf://owner/name@v2/folder`,
only the hub's `refs/pr/N` may.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ilora_core.errors import ConfigError

__all__ = ["PREFIX", "HubPlace", "check_repository", "is_hub_place"]

PREFIX = "hf://"
_FORM = "hf://OWNER/NAME, hf://OWNER/NAME/FOLDER or hf://OWNER/NAME/FOLDER@REVISION"
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_LONGEST = 96


@dataclass(frozen=True)
class HubPlace:
    """repository: "owner/name"; folder in it, or ""; revision, or "" for its main branch."""

    repository: str
    folder: str = ""
    revision: str = ""

    def __str__(self) -> str:
        folder = f"/{self.folder}" if self.folder else ""
        return f"{PREFIX}{self.repository}{folder}{f'@{self.revision}' if self.revision else ''}"

    @classmethod
    def parse(cls, text: str) -> HubPlace:
        """Read an address. Raises ConfigError that shows the form."""
        body = text.strip().removeprefix(PREFIX).removesuffix("/")
        path, at, revision = body.partition("@")
        owner, _, rest = path.partition("/")
        name, _, folder = rest.partition("/")
        if at and not folder:
            revision, folder = _before_folder(revision)
        if not text.strip().startswith(PREFIX) or (at and not _REVISION.fullmatch(revision)) or ".." in revision:
            raise ConfigError(f"{text!r} is no address on the hub. It is written {_FORM}.")
        check_repository(f"{owner}/{name}", shown=text)
        if folder and not all(_PART.fullmatch(part) for part in folder.split("/")):
            raise ConfigError(f"{text!r}: {folder!r} is no folder in a repository. An address is {_FORM}.")
        return cls(f"{owner}/{name}", folder, revision)


def check_repository(repository: str, *, shown: str = "") -> None:
    """Refuse what cannot be a repository's name "owner/name". Raises ConfigError. shown: what the user typed."""
    parts = repository.split("/")
    fits = len(parts) == 2 and all(_PART.fullmatch(part) and len(part) <= _LONGEST for part in parts)
    if not fits or "--" in repository or ".." in repository:
        raise ConfigError(
            f"{shown or repository!r} names no repository on the hub: OWNER/NAME, of letters, digits, single dashes, dots and "
            f"underscores. An address is {_FORM}."
        )


def is_hub_place(text: str) -> bool:
    """Whether a text is meant as an address on the hub, well-formed or not: `hf:owner/name` and `HF://…` are."""
    return text.strip().lower().startswith("hf:")


def _before_folder(text: str) -> tuple[str, str]:
    """What follows the @ of `owner/name@…`: (revision, folder)."""
    parts = text.split("/")
    length = 3 if parts[:2] in (["refs", "pr"], ["refs", "convert"]) else 1
    return "/".join(parts[:length]), "/".join(parts[length:])
