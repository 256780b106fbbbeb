"""WHDR: how often a reflectance disagrees with people who said which of two points is darker.

    l_k = max(1e-10, mean RGB at point k);   '1' if l2/l1 > 1+δ,   '2' if l1/l2 > 1+δ,   'E' (equal) otherwise
    WHDR = Σ weights of comparisons judged otherwise / Σ weights

Bell, Bala and Snavely, "Intrinsic images in the wild", SIGGRAPH 2014; δ = 0.10. The judgements are the JSON files of
that data set. The reflectance must be linear: decode an sRGB picture first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.metrics.figures import exact

__all__ = ["whdr"]


def whdr(reflectance: Tensor, judgements: Mapping[str, Any], *, delta: float = 0.10) -> float | None:
    """Linear reflectance (C,H,W), one picture's judgements -> a share in [0,1], or None without usable comparisons.

    Comparisons of points that are not opaque, without an answer in 1, 2, E, or without positive weight do not count.
    """
    if reflectance.ndim != 3:
        raise DataError(f"a reflectance is (C,H,W), not {tuple(reflectance.shape)}.")
    lightness = exact(reflectance).mean(0).clamp(min=1e-10)
    rows, columns = lightness.shape
    points = {point["id"]: point for point in judgements["intrinsic_points"]}
    wrong = total = 0.0
    for comparison in judgements["intrinsic_comparisons"]:
        first, second = points[comparison["point1"]], points[comparison["point2"]]
        answer, weight = comparison["darker"], comparison["darker_score"]
        if not (first["opaque"] and second["opaque"]) or answer not in ("1", "2", "E") or not weight or weight <= 0:
            continue
        l1, l2 = (lightness[int(p["y"] * rows), int(p["x"] * columns)].item() for p in (first, second))
        said = "1" if l2 / l1 > 1 + delta else "2" if l1 / l2 > 1 + delta else "E"
        wrong += weight * (said != answer)
        total += weight
    return wrong / total if total else None
