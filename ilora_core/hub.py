"""Where published weights come from: a path, a hub id, or a name in registry.toml that stands for one or several hub ids.

The places of a name are tried in order, since mirrors come and go. What a place serves is compared with the SHA-256 on
record; the log and the provenance say which one served.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ilora_core.errors import WeightsError, first_line
from ilora_core.files import file_sha256
from ilora_core.registry import Registry, load_registry

__all__ = ["Fetch", "find_weights", "is_hub_id", "snapshot", "verify"]

_log = logging.getLogger("ilora")


class Fetch(Protocol):
    """Brings what is wanted of a hub repository here; the folder it lies in. May raise anything."""

    def __call__(self, source: str, *, revision: str | None, local_only: bool) -> Path: ...


def snapshot(*patterns: str) -> Fetch:
    """Fetches the files that match one of the patterns ("*.json", "unet/model.safetensors")."""

    def fetch(source: str, *, revision: str | None, local_only: bool) -> Path:
        from huggingface_hub import snapshot_download

        wanted = list(patterns)
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted, local_files_only=local_only))

    return fetch


def find_weights(
    weights: str,
    fetch: Fetch,
    *,
    directions: str,
    absent: str = "",
    folders_only: bool = False,
    revision: str | None = None,
    local_only: bool = False,
    registry: Registry | None = None,
) -> tuple[Path, dict[str, Any]]:
    """A local file or folder, and its provenance as plain data.

    weights       a path, a hub id "owner/name", or a name in the registry
    fetch         how to get the files of a hub id, as `snapshot` makes it
    directions    how to come by the weights by hand; ends every error
    absent        begins the error where there is no place to try; "" = a sentence from here
    folders_only  a file of that name is not what is looked for
    revision      a git revision; digests on record are checked only for the registry's own one
    local_only    take what the hub's cache holds and open no connection
    registry      None = this installation's
    Raises WeightsError that lists every place that was tried and why it failed.
    """
    path = Path(weights).expanduser()
    if weights and (path.is_dir() if folders_only else path.exists()):
        return path, {"weights": weights, "served_by": "local folder" if folders_only else "local path"}
    entry = (registry or load_registry()).weights.get(weights)
    recorded = entry.revision if entry else None
    revision = revision or recorded
    digests = entry.sha256 if entry and revision == recorded else {}
    failures: list[str] = []
    for source in entry.sources if entry else (weights,) if is_hub_id(weights) else ():
        try:
            folder = _fetched(source, fetch, revision, local_only)
            verified = verify(folder, digests)
        except Exception as error:  # the hub raises a dozen unrelated classes; each means: try the next place
            failures.append(f"{source}: {_reason(error)}")
            _log.warning("weights %s: %s", weights, failures[-1])
            continue
        _log.info("weights %s: served by %s, revision %s", weights, source, folder.name)
        told = {"weights": weights, "served_by": source, "revision": folder.name, "verified": verified}
        told |= {"licence": entry.licence} if entry else {}
        return folder, told | ({"failed": failures} if failures else {})
    raise WeightsError(_nowhere(weights, failures, absent, local_only, folders_only) + directions)


def is_hub_id(text: str) -> bool:
    """Whether a text reads as "owner/name" rather than as a path or an address."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def verify(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """The files of `digests` that are in `folder`, each compared. Raises WeightsError naming one that differs."""
    present = [name for name in sorted(digests) if (folder / name).is_file()]
    for name in present:
        if (found := file_sha256(folder / name)) != digests[name]:
            raise WeightsError(
                f"{folder / name} has SHA-256 {found[:16]}…, but registry.toml has {digests[name][:16]}… on record: a "
                "damaged download or other weights. Delete the file and try again."
            )
    return present


def _fetched(source: str, fetch: Fetch, revision: str | None, local_only: bool) -> Path:
    if not is_hub_id(source):
        raise WeightsError("it is not a hub id")
    return fetch(source, revision=revision, local_only=local_only)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WeightsError) else f"{type(error).__name__}: {first_line(error)}"


def _nowhere(weights: str, failures: Sequence[str], absent: str, local_only: bool, folders_only: bool) -> str:
    if failures:
        offline = "local_only is set, so only the local cache was searched.\n" if local_only else ""
        listed = "".join(f"  {failure}\n" for failure in failures)
        return f"no place could serve {weights!r} ({len(failures)} tried):\n{listed}{offline}"
    kind = "folder" if folders_only else "path"
    usual = f"there are no weights at {weights!r}: neither a {kind}, a hub id nor a name in registry.toml."
    return f"{absent or usual} "
