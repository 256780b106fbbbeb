"""Adapters of two rooms generators after two steps: enough for `ilora app` to draw with."""

from __future__ import annotations

from pathlib import Path

from ilora_core.config import FitConfig
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS


def fit_adapters(root: Path) -> Path:
    """ROOT/ldm and ROOT/gan, each with normals and depth."""
    _fit(root / "ldm", "rooms", source="rooms", settings={"source": {"n": 6, "split": "labels"}})
    _fit(root / "gan", "rooms-stylegan2", labeler="rooms", samples=6)
    return root


def _fit(out: Path, generator: str, **more) -> None:
    settings = {"train": {"steps": 2, "batch": 2}, "runtime": {"device": "cpu"}, **more.pop("settings", {})}
    list(fit(FitConfig(generator, (NORMALS, DEPTH), validation=2, settings=settings, **more), out))
