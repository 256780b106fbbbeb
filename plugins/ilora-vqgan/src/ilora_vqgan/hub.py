"""Where weights come from: a path, a hub id, or a name in registry.toml that stands for hub ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilora_core.errors import WeightsError
from ilora_core.registry import load_registry

__all__ = ["find_weights"]

_log = logging.getLogger("ilora")
_FILES = [
    f"{part}{name}"
    for part in ("", "first_stage/", "vqvae/", "movq/", "prior/")
    for name in ("*.json", "*.safetensors")
]
_FFHQ = (
    "Download 2021-04-23T18-19-01_ffhq_transformer (checkpoints/last.ckpt, about 3.5 GB, and configs/) from the link in the "
    "README of CompVis/taming-transformers, https://k00.fr/yndvfu95"
)


def find_weights(weights: str, *, revision: str | None = None, local_only: bool = False) -> tuple[Path, dict[str, Any]]:
    """A local file or folder, and its provenance. Raises WeightsError that lists every place that was tried."""
    path = Path(weights).expanduser()
    if weights and path.exists():
        return path, {"weights": weights, "served_by": "local path"}
    entry = load_registry().weights.get(weights)
    sources = entry.sources if entry else (weights,) if _is_hub_id(weights) else ()
    failures = []
    for source in (place for place in sources if _is_hub_id(place)):
        try:
            folder = _download(source, revision=revision or (entry and entry.revision), local_only=local_only)
            verified = _verify(folder, entry.sha256 if entry and not revision else {})
        except Exception as error:  # the hub raises a dozen unrelated classes; each means: try the next place
            failures.append(f"  {source}: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}")
            continue
        _log.info("weights %s: served by %s, revision %s", weights, source, folder.name)
        return folder, {"weights": weights, "served_by": source, "revision": folder.name, "verified": verified}
    raise WeightsError(_nowhere(weights, failures, entry.note if entry else ""))


def _is_hub_id(text: str) -> bool:
    return (
        text.count("/") == 1 and "://" not in text and not text.startswith((".", "/", "~")) and not text.endswith("/")
    )


def _download(source: str, *, revision: str | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision, allow_patterns=_FILES, local_files_only=local_only))


def _verify(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """The files of `digests` that are there, each compared. Raises WeightsError naming one that differs."""
    present = [name for name in sorted(digests) if (folder / name).is_file()]
    for name in present:
        with open(folder / name, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digests[name]:
            raise WeightsError(
                f"{folder / name} has SHA-256 {found[:16]}…, but registry.toml has {digests[name][:16]}… on record: a "
                "damaged download or other weights. Delete the file and try again."
            )
    return present


def _nowhere(weights: str, failures: list[str], note: str) -> str:
    how = "give it with --set generator.weights=FOLDER"
    if weights == "vqgan-ffhq":
        directions = f"{note or _FFHQ}; then {how}"
    elif weights:
        directions = f"Check the path, or {how.replace('FOLDER', 'FILE.ckpt|FOLDER|HUB_ID')}"
    else:
        directions = "Say which with --set generator.weights=FILE.ckpt|FOLDER|HUB_ID"
    if failures:
        return f"no place could serve {weights!r}:\n" + "\n".join(failures) + f"\n{directions}."
    what = f"there is no VQGAN at {weights!r}" if weights else "generator `vqgan` needs weights"
    return f"{what}. {directions}."
