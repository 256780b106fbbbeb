"""What depth predictions hold, said once for all protocols, and what each protocol makes of it.

    depth      up to scale and shift, far = large: Marigold, and the [0,1] maps that `ilora predict` writes
    disparity  up to scale and shift, near = large: MiDaS, Depth Anything
    metric     metres

A protocol either has a reading for a kind, which stands beside its figures, or refuses it.
"""

from __future__ import annotations

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic

__all__ = ["PREDICTS", "predicted_kind", "read_as"]

PREDICTS = ("depth", "disparity", "metric")

_READ_AS = {
    "relative01": {
        "depth": "1 − depth as the picture",
        "disparity": "disparity as the picture",
        "metric": "metres drawn as the truth is, from their own limits",
    },
    "paper": {
        "depth": "1 − depth, stretched to [0,1]",
        "disparity": "disparity, stretched to [0,1]",
        "metric": "metres, near = bright, stretched to [0,1]",
    },
    "median": {"depth": "depth × one factor", "metric": "metres × one factor"},
    "marigold-lsq": {"depth": "scale and shift of depth", "metric": "scale and shift of metres"},
    "disparity-lsq": {
        "depth": "scale and shift of 1 − depth, taken as disparity",
        "disparity": "scale and shift of disparity",
        "metric": "scale and shift of 1 / metres",
    },
    "metric": {"metric": "metres as they are"},
}
_INSTEAD = {
    ("median", "disparity"): "one over a disparity of unknown shift is no depth; use disparity-lsq",
    ("marigold-lsq", "disparity"): "scale and shift do not make depth of disparity; use disparity-lsq",
    (
        "metric",
        "depth",
    ): "it compares metres; if they are metres, say --predicts metric, else use marigold-lsq or median",
    ("metric", "disparity"): "it compares metres; use disparity-lsq",
}


def predicted_kind(intrinsic: Intrinsic, predicts: str | None) -> str:
    """One of PREDICTS for depth ("depth" unless told, or what the truth's own kind says), "" for everything else."""
    if intrinsic.encoding != "relative_depth":
        if predicts:
            raise ConfigError(
                f"--predicts says what depth maps hold; {intrinsic.name} has only one kind, leave it out."
            )
        return ""
    if predicts and predicts not in PREDICTS:
        raise ConfigError(f"predictions cannot be {predicts!r}; choose from {', '.join(PREDICTS)}.")
    return predicts or ("disparity" if intrinsic.kind == "affine_disparity" else "depth")


def read_as(stem: str, predicts: str) -> str:
    """How the protocol without its limits, `stem`, uses predictions of that kind. Raises ConfigError if it does not."""
    if stem not in _READ_AS:
        return ""
    if predicts not in _READ_AS[stem]:
        raise ConfigError(f"{stem} has no use for predictions of {predicts}: {_INSTEAD[stem, predicts]}.")
    return _READ_AS[stem][predicts]
