"""Do normals and depth of one picture belong together? A number, and a sentence that names what is flipped.

The given normals n are compared with those of the unprojected depth, m (`geometry.normals_of`), away from depth edges:

    mean cosine     mean of n·m
    per axis        Σ n_a m_a / √(Σ n_a² Σ m_a²), a correlation about zero, so that a plane has one too
    signed axes     mean cosine of n with any of its axes negated or exchanged: 48 ways, all from the 3×3 matrix Σ n mᵀ

A way wins over the axes as they are when it fits clearly better; of near equals the simplest is named. Depth with near and far
exchanged negates x and y of m but for perspective, so that the two can hardly be told apart, and are named together. The range of
relative depth is unknown: the far/near ratio that agrees best is taken, separately for each direction of the depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import DEPTH_KINDS
from ilora_core.viewer.geometry import FOV_DEG, at_edges, limits_of, normals_of, unproject, z_of

__all__ = ["Agreement", "agreement"]

_SIDE = 128  # pixels of the longer side that is looked at
_LEAST = 20  # pixels without which nothing is said
_FLAT = 0.05  # an axis along which normals are smaller (root mean square) says nothing
_AXES = ("x", "y", "z")
_RATIOS = tuple(1.1 * (50 / 1.1) ** (i / 23) for i in range(24))
_PARSIMONY = 0.02  # mean cosine that a more complicated explanation must gain for each step
_GOOD, _FAIR = 0.9, 0.7
_KNOWN_FRAMES: dict[tuple[int, ...], str] = {(1, -1, -1): "OpenGL's axes", (1, 1, -1): "DirectX's axes"}

_COMMON = (*_KNOWN_FRAMES, (-1, -1, -1), (-1, -1, 1))  # the last is inverted depth's twin
_CREDIBLE, _OPPOSED = 0.5, -0.3  # what a correction must reach, and how strongly a flipped axis must contradict

Way = tuple[tuple[int, ...], tuple[int, ...]]  # which given axis is taken for each of ours, and its sign
_AS_IS: Way = ((0, 1, 2), (1, 1, 1))
_WAYS: tuple[Way, ...] = tuple(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


@dataclass(frozen=True)
class Agreement:
    """What normals say of depth.

    mean_cosine     with the axes as they are; None where too few pixels have a say
    per_axis        "x", "y", "z" -> in [-1, 1], or None where the picture has no slope along that axis
    sentence        what to think of it
    suspect         "" or what looks wrong: "x", "y,z", "x<->y", "depth", "unexplained"
    corrected       mean cosine if `suspect` is put right; mean_cosine where nothing is suspected
    far_over_near   of relative depth: the ratio at which the two agree best
    pixels          that were compared
    """

    mean_cosine: float | None
    per_axis: Mapping[str, float | None]
    sentence: str
    suspect: str = ""
    corrected: float | None = None
    far_over_near: float | None = None
    pixels: int = 0


def agreement(depth: Tensor, normals: Tensor, fov_deg: float = FOV_DEG, *, kind: str = "metric") -> Agreement:
    """Compare a depth map (1,H,W) with normals (3,H,W), OpenCV frame; NaN is not valid. Raises DataError on shapes.

    kind  what the depth map holds: "metric", "affine_depth" or "affine_disparity"
    """
    if kind not in DEPTH_KINDS:
        raise DataError(f"no depth kind is called {kind!r}; known are {', '.join(DEPTH_KINDS)}.")
    if depth.ndim != 3 or depth.shape[0] != 1 or normals.ndim != 3 or normals.shape[0] != 3:
        raise DataError(f"depth is (1,H,W) and normals (3,H,W), not {tuple(depth.shape)} and {tuple(normals.shape)}.")
    size = _small(*normals.shape[-2:])
    d, n = (F.interpolate(m[None].detach().double().cpu(), size, mode="nearest-exact")[0] for m in (depth, normals))
    n = n / n.norm(dim=0).clamp(min=1e-12)
    fits = [_Fit.of(d[0], n, kind, ratio, fov_deg) for ratio in _RATIOS[: 1 if kind == "metric" else None]]
    other = "affine_depth" if kind == "affine_disparity" else "affine_disparity"
    turned = [_Fit.of(d[0], n, other, ratio, fov_deg) for ratio in _RATIOS]
    # A range so wide that most of the picture is depth edges proves nothing by the rest.
    pixels = max(fit.pixels for fit in fits)
    if pixels < _LEAST:
        told = "Too few pixels have both depth and normals to compare them."
        return Agreement(None, dict.fromkeys(_AXES), told, pixels=pixels)
    fits, turned = ([fit for fit in some if fit.pixels >= pixels / 2] for some in (fits, turned))
    plain = max(fits, key=lambda fit: fit.cosine())
    suspect, corrected, fit = _suspect(fits, turned)
    return Agreement(
        mean_cosine=plain.cosine(),
        per_axis=dict(zip(_AXES, fit.per_axis(), strict=True)),
        sentence=_sentence(suspect, plain.cosine()),
        suspect=suspect,
        corrected=corrected,
        far_over_near=None if kind == "metric" else fit.ratio,
        pixels=pixels,
    )


@dataclass(frozen=True)
class _Fit:
    """Σ n mᵀ / pixels at one far/near ratio, and Σ n² and Σ m² per axis, likewise."""

    products: Tensor
    given: Tensor
    derived: Tensor
    pixels: int
    ratio: float

    @classmethod
    def of(cls, depth: Tensor, n: Tensor, kind: str, ratio: float, fov_deg: float) -> _Fit:
        z = z_of(depth, kind, ratio, limits_of(depth))
        m = normals_of(unproject(torch.where(at_edges(z, fov_deg), torch.nan, z), fov_deg))
        n = n[:, 1:-1, 1:-1]
        both = torch.isfinite(m).all(0) & torch.isfinite(n).all(0) & (n.norm(dim=0) > 0.5)
        n, m, count = n[:, both], m[:, both], int(both.sum())
        scale = 1 / max(1, count)
        return cls(n @ m.T * scale, n.square().sum(1) * scale, m.square().sum(1) * scale, count, ratio)

    def cosine(self, way: Way = _AS_IS) -> float:
        """The mean cosine with the given normals' axes taken in another order and sign."""
        return sum(sign * float(self.products[axis, a]) for a, (axis, sign) in enumerate(zip(*way, strict=True)))

    def per_axis(self) -> list[float | None]:
        found: list[float | None] = []
        for a in range(3):
            n, m = float(self.given[a]) ** 0.5, float(self.derived[a]) ** 0.5
            found.append(float(self.products[a, a]) / (n * m) if min(n, m) > _FLAT else None)
        return found


def _suspect(fits: list[_Fit], turned: list[_Fit]) -> tuple[str, float, _Fit]:
    """What looks wrong, the mean cosine without it, and the fit of the depth as it is that goes with that."""
    best = max(fits, key=lambda fit: fit.cosine())
    plain, found = best.cosine(), ("", best.cosine(), best)
    won = plain
    for way in _WAYS:
        fit = max(fits, key=lambda f: f.cosine(way))
        score = fit.cosine(way)
        if score - _PARSIMONY * _steps(way) > won and _is_evidence(way, fit, score - plain):
            won, found = score - _PARSIMONY * _steps(way), (_label(way), score, fit)
    upside = max((fit.cosine() for fit in turned), default=-1.0)
    if upside - _PARSIMONY > won and upside > _CREDIBLE:
        found = ("depth", upside, best)
    if not found[0] and plain < _FAIR:
        found = ("unexplained", plain, best)
    return found


def _is_evidence(way: Way, fit: _Fit, gain: float) -> bool:
    """Noise alone makes some way win: a negated axis must oppose the depth's, an exchange must explain nearly all."""
    if fit.cosine(way) < _CREDIBLE:
        return False
    if way[0] != _AS_IS[0]:
        return gain > 0.1 and fit.cosine(way) > _FAIR
    against = [c for c, sign in zip(fit.per_axis(), way[1], strict=True) if sign < 0]
    return all(c is not None and c < _OPPOSED for c in against)


def _steps(way: Way) -> int:
    """How complicated an explanation is: one axis or a common mistake is one step, an exchange two."""
    negated = 1 if way[1] in _COMMON else way[1].count(-1)
    return negated + 2 * (way[0] != _AS_IS[0])


def _label(way: Way) -> str:
    negated = ",".join(a for a, sign in zip(_AXES, way[1], strict=True) if sign < 0)
    moved = [_AXES[axis] for axis, own in zip(way[0], range(3), strict=True) if axis != own]
    return " ".join(filter(None, ("<->".join(sorted(moved)), negated)))


def _sentence(suspect: str, cosine: float) -> str:
    if suspect == "":
        return "Normals and depth agree." if cosine >= _GOOD else "Normals and depth roughly agree."
    if suspect == "unexplained":
        return "Normals and depth disagree, and no negated or exchanged axis explains it."
    if suspect == "depth":
        return (
            "Depth looks inverted (near and far exchanged), or x and y of the normals are flipped: the two look alike."
        )
    if suspect == "x,y":
        return "The x and y axes look flipped, or depth is inverted (near and far exchanged): the two look alike."
    if suspect == "x,y,z":
        return "The normals point into the surface: all three axes look flipped."
    exchanged, _, negated = suspect.rpartition(" ")
    if not exchanged and "<->" in negated:
        exchanged, negated = negated, ""
    parts = [f"the axes {exchanged.replace('<->', ' and ')} look exchanged"] if exchanged else []
    if negated:
        axes = negated.split(",")
        frame = _KNOWN_FRAMES.get((1, *(-1 if a in axes else 1 for a in "yz")), "") if "x" not in axes else ""
        looks = "axis looks" if len(axes) == 1 else "axes look"
        parts.append(
            f"the {' and '.join(axes)} {looks} flipped" + (f", as in {frame}" if frame and not exchanged else "")
        )
    told = " and ".join(parts)
    return f"{told[0].upper()}{told[1:]}."


def _small(height: int, width: int) -> tuple[int, int]:
    shrink = min(1.0, _SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))
