"""Where a GAN's checkpoint comes from: a path, or a name in registry.toml with a public address.

A file from an address is kept under $ILORA_CACHE/weights (by default ~/.cache/ilora/weights) and compared with the SHA-256 on
record, where there is one.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ilora_core.errors import WeightsError
from ilora_core.files import atomic_path
from ilora_core.registry import Weights, load_registry

__all__ = ["find_weights"]

_log = logging.getLogger("ilora")


def find_weights(weights: str) -> tuple[Path, dict[str, Any]]:
    """A local file or folder, and where it came from. Raises WeightsError that says what was tried."""
    path = Path(weights).expanduser()
    if path.exists():
        return path, {"weights": weights}
    entry = load_registry().weights.get(weights)
    if entry is None:
        raise WeightsError(
            f"there is no checkpoint at {weights!r}. Give a .pkl, a .pt, or a folder that `ilora convert` wrote: "
            "--set generator.weights=PATH."
        )
    kept = _cache() / weights / Path(urlsplit(entry.sources[0]).path).name
    failures = []
    for source in () if kept.is_file() else entry.sources:
        try:
            _fetch(source, kept)
            break
        except Exception as error:  # a server may fail in a dozen ways; each means: try the next
            failures.append(f"  {source}: {type(error).__name__}: {str(error)[:160]}")
    if not kept.is_file():
        listed = "\n".join(failures)
        raise WeightsError(
            f"no address could serve {weights!r}:\n{listed}\nDownload the file yourself ({entry.note}) and give it with "
            "--set generator.weights=FILE."
        )
    _verify(kept, entry)
    return kept, {"weights": weights, "sources": list(entry.sources), "licence": entry.licence}


def _fetch(source: str, target: Path) -> None:
    from torch.hub import download_url_to_file

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise WeightsError("HF_HUB_OFFLINE is set, so no connection was opened")
    _log.info("fetching %s", source)
    with atomic_path(target) as temporary:
        download_url_to_file(source, str(temporary), progress=False)


def _verify(path: Path, entry: Weights) -> None:
    wanted = entry.sha256.get(path.name)
    if not wanted:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise WeightsError(
            f"{path} has SHA-256 {found[:16]}…, but registry.toml has {wanted[:16]}… on record: a damaged download or "
            "another file. Delete it and try again."
        )


def _cache() -> Path:
    root = os.environ.get("ILORA_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "ilora") / "weights"
