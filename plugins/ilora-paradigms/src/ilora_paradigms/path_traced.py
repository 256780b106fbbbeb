"""The frozen path-traced test set: 48 pictures of 64², 24 scenes under two lights each, for final figures only.

Made once by `tests/make_path_traced.py` with Mitsuba 3 and kept as data/path_traced.npz; nothing is trained or chosen by
it. Albedo is the diffuse reflectance; shading the light that a matt surface returns, over the albedo, grey.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ilora_core.errors import DataError
from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms.dev import Truth

__all__ = ["path_traced"]

_FILE = Path(__file__).parent / "data" / "path_traced.npz"


def path_traced(file: Path = _FILE) -> Truth:
    """All of it. Raises DataError when the file is missing or damaged."""
    try:
        with np.load(file) as data:
            arrays = {name: torch.from_numpy(data[name]) for name in ("picture", "albedo", "shading", "valid")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"cannot read the path-traced pictures in {file}: {error}. Reinstall ilora-paradigms."
        ) from error
    lights = len(arrays["picture"]) // len(arrays["albedo"])
    scenes = tuple(f"traced-{k:02d}" for k in range(len(arrays["albedo"])) for _ in range(lights))
    return Truth(
        keys=tuple(f"{scene}-light{i % lights}" for i, scene in enumerate(scenes)),
        scenes=scenes,
        pictures=arrays["picture"].movedim(-1, 1).float() / 255,
        albedo=srgb_to_linear(arrays["albedo"].movedim(-1, 1).float() / 255).repeat_interleave(lights, 0),
        shading=arrays["shading"].float()[:, None],
        valid=arrays["valid"][:, None],
    )
