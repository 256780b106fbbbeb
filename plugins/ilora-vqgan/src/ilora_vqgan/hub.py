"""What is fetched of a hub repository, and what to do where no place has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ilora_core import hub

__all__ = ["find_weights"]

_FETCH = hub.snapshot(
    *(
        f"{part}{name}"
        for part in ("", "first_stage/", "vqvae/", "movq/", "prior/")
        for name in ("*.json", "*.safetensors")
    )
)
_FFHQ = (
    "Download 2021-04-23T18-19-01_ffhq_transformer (checkpoints/last.ckpt, about 3.5 GB, and configs/) from the link in the "
    "README of CompVis/taming-transformers, https://k00.fr/yndvfu95; then give it with --set generator.weights=FOLDER."
)


def find_weights(weights: str, *, revision: str | None = None, local_only: bool = False) -> tuple[Path, dict[str, Any]]:
    """A local file or folder, and its provenance. Raises WeightsError that lists every place that was tried."""
    usual = (
        f"{'Check the path, or give' if weights else 'Give'} it with --set generator.weights=FILE.ckpt|FOLDER|HUB_ID."
    )
    return hub.find_weights(
        weights,
        _FETCH,
        directions=_FFHQ if weights == "vqgan-ffhq" else usual,
        absent=f"there is no VQGAN at {weights!r}." if weights else "generator `vqgan` needs weights.",
        revision=revision,
        local_only=local_only,
    )
