"""What can be wrong with one map, and what many maps together say of their axes and colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.axes import AxisEvidence
from ilora_core.findings import Finding
from ilora_core.intrinsics import ALBEDO, Intrinsic, resize_map, srgb_to_linear
from ilora_core.pixels import Pixels

__all__ = ["ColourEvidence", "check_axes", "check_colour", "check_map"]

_MOSTLY = 0.05  # more than this share of a map's pixels must be wrong before the map is
_MIRRORED = -0.2  # agreement of a sound folder is about +0.7 to +0.95, of a mirrored one the negative of that
_GL = "Or say which frame they are in: --set source.frame=opengl (x right, y up, z to the viewer) or directx."


def check_map(
    path: Path, pixels: Pixels, value: Tensor, valid: Tensor, intrinsic: Intrinsic, *, scaled: bool
) -> Iterator[Finding]:
    """Findings about one map (C,H,W) with (1,H,W), from its numbers in the file and their meaning."""
    built_in = intrinsic.encoding in ("unit_vector", "relative_depth", "shading")
    if not valid.any():
        if negative := _negative(path, pixels, intrinsic):
            yield negative
        yield Finding("error", "no-valid-pixel", str(path), "no pixel is valid", "Remove the pair, or mend the map.")
        return
    chosen = value[:, valid[0]]
    if bool((chosen == chosen[:, :1]).all()):
        told = f"every valid pixel is {', '.join(f'{v:.4g}' for v in chosen[:, 0].tolist())}"
        fix = "Was it exported empty? Remove the pair if it was." if built_in else "Fine if the material is like that."
        yield Finding("error" if built_in else "warning", "constant-map", str(path), told, fix)
    if intrinsic.encoding == "unit_vector":
        yield from _check_length(path, pixels)
    elif pixels.top is None or scaled:
        if negative := _negative(path, pixels, intrinsic):
            yield negative
        elif intrinsic.kind == "metric":
            yield from _check_metres(path, chosen)
        elif intrinsic.encoding in ("linear", "srgb"):
            yield from _check_range(path, chosen, intrinsic)


def _check_length(path: Path, pixels: Pixels) -> Iterator[Finding]:
    vectors = torch.from_numpy(pixels.stored).flatten(0, 1)
    vectors = vectors[torch.isfinite(vectors).all(1)]
    vectors = vectors if pixels.top is None else vectors / pixels.top * 2 - 1
    length = vectors.norm(dim=1)
    length = length[(length > 0.25) & ((length < 1.6) | (pixels.top is None))]
    wrong = float(((length - 1).abs() > 0.12).float().mean()) if len(length) else 0.0
    if wrong <= _MOSTLY:
        return
    told = f"{wrong:.0%} of the vectors are not of length 1 (median {float(length.median()):.2f})"
    fix = "Normalise them, and store them without colour management (no gamma, no view transform)."
    if pixels.top is None and float(vectors.min()) >= 0:
        fix = "They look like the picture (n+1)/2: store n = 2·picture − 1, or keep the picture as an 8- or 16-bit PNG."
    yield Finding("error", "not-unit-length", str(path), told, fix)


def _negative(path: Path, pixels: Pixels, intrinsic: Intrinsic) -> Finding | None:
    """Depth in metres and light are never negative."""
    if pixels.top is not None or (intrinsic.kind != "metric" and intrinsic.encoding != "shading"):
        return None
    finite = torch.from_numpy(pixels.stored)
    finite = finite[torch.isfinite(finite)]
    share = float((finite < 0).float().mean()) if len(finite) else 0.0
    if share <= 0.001:
        return None
    told = f"{share:.1%} of the pixels are below 0 (lowest {float(finite.min()):.4g})"
    if intrinsic.kind == "metric":
        return Finding(
            "error", "negative-depth", str(path), told, "Depth is metres along z; mark unknown ones NaN or 0."
        )
    return Finding("error", "out-of-range", str(path), told, f"{intrinsic.name} is linear light, 0 or more.")


def _check_metres(path: Path, chosen: Tensor) -> Iterator[Finding]:
    middle = float(chosen.median())
    if not 0.02 <= middle <= 300.0:
        told = f"the median depth is {middle:.4g} m"
        fix = "If these are millimetres, add --set source.scales.depth=0.001; if they are relative, store them as PNG."
        yield Finding("warning", "unlikely-unit", str(path), told, fix)


def _check_range(path: Path, chosen: Tensor, intrinsic: Intrinsic) -> Iterator[Finding]:
    slack = 1e-3 * (intrinsic.high - intrinsic.low)
    outside = (chosen < intrinsic.low - slack) | (chosen > intrinsic.high + slack)
    share = float(outside.any(0).float().mean())
    if share > 0.001:
        low, high = float(chosen.min()), float(chosen.max())
        told = (
            f"{share:.1%} of the pixels lie outside {intrinsic.low:g} to {intrinsic.high:g} ({low:.4g} to {high:.4g})"
        )
        fix = f"Bring them into the range, or declare another with --range (it is {intrinsic.name}'s own now)."
        if intrinsic.high == 1.0 and high > 2.0:
            fix = "They look like bytes: divide by 255 (or 65535), or store them as PNG."
        yield Finding("error", "out-of-range", str(path), told, fix)


def check_axes(evidence: AxisEvidence, normals_folder: str, depth_folder: str) -> Iterator[Finding]:
    """Findings about the axes of a whole folder."""
    x, y = evidence.along_x.value, evidence.along_y.value
    into = bool(evidence.facing) and _mean(evidence.facing) > 0
    crossed = [axis for axis, value in (("x", x), ("y", y)) if value is not None and value < _MIRRORED]
    turned = evidence.integrable.value
    floors = _mean(evidence.floors)
    if len(crossed) == 2 and not into:
        told = f"where depth grows, the normals say it falls (agreement x {x:.2f}, y {y:.2f})"
        fix = (
            "Our depth is far = large (disparity and PNG: near = bright). Invert it, or mirror x and y of the normals."
        )
        yield Finding("error", "inverted-depth", depth_folder, told, fix)
    elif into and (len(crossed) == 2 or (x is None and y is None and floors > 0.1 and (turned or 0) > -_MIRRORED)):
        told = f"they point into the surface (mean n_z {_mean(evidence.facing):+.2f}; must be below 0)"
        yield Finding("error", "flipped-normals", normals_folder, told, "Negate all three components.")
    else:
        yield from _mirrored(evidence, crossed, normals_folder)
        if into:
            told = f"mean n_z is {_mean(evidence.facing):+.2f}; what a camera sees faces it, with n_z below 0"
            yield Finding("error", "flipped-normals-z", normals_folder, told, f"Negate z. {_GL}")
    if x is None and y is None:
        yield from _upside_down(evidence, depth_folder)


def _mirrored(evidence: AxisEvidence, crossed: list[str], folder: str) -> Iterator[Finding]:
    """One mirrored axis: told by the depth, else by the normals alone, else by the floors."""
    floors, turned = _mean(evidence.floors), evidence.integrable.value
    if crossed or evidence.along_x.value is not None:
        for axis in crossed:
            told = f"{axis} disagrees with the slope of the depth ({getattr(evidence, f'along_{axis}').value:+.2f})"
            yield Finding("error", f"flipped-normals-{axis}", folder, told, f"Negate {axis}. {_GL}")
    elif turned is not None and turned < _MIRRORED:
        axis = "x" if floors < -0.1 else "y"
        told = f"no surface has such normals (integrability {turned:+.2f}): x or y is mirrored, {axis} by the floors"
        yield Finding("error", f"flipped-normals-{axis}", folder, told, f"Negate {axis}. {_GL}")
    elif floors > 0.1 and (turned is None or turned < -_MIRRORED):
        told = f"the lower third looks down (mean n_y {floors:+.2f}), but floors look up, with n_y below 0"
        severity = "error" if floors > 0.3 else "warning"
        fix = f"Negate y, unless the scenes are like that (--ignore flipped-normals-y). {_GL}"
        yield Finding(severity, "flipped-normals-y", folder, told, fix)


def _upside_down(evidence: AxisEvidence, folder: str) -> Iterator[Finding]:
    """Without normals, only the ground can tell."""
    below = _mean(evidence.below)
    agreed = sum(value > 0 for value in evidence.below) / max(1, len(evidence.below))
    if below > 0.05 and agreed >= 0.6:
        told = f"the lower third is farther than the rest in {agreed:.0%} of the maps (rank {below:+.2f})"
        fix = (
            "Metric depth is far = large, a depth PNG near = bright. Invert it; a PNG in millimetres needs --set "
            "source.scales.depth=0.001; if the scenes are like that, --ignore inverted-depth."
        )
        severity = "error" if below > 0.15 and agreed >= 0.75 else "warning"
        yield Finding(severity, "inverted-depth", folder, told, fix)


@dataclass
class ColourEvidence:
    """Ratios of the picture's to the albedo's log gradients where albedo has edges: 1 if both are linear light."""

    ratios: list[float] = field(default_factory=list)

    def add(self, picture: Tensor, albedo: Tensor, valid: Tensor) -> None:
        """Picture (3,H,W) sRGB-encoded, albedo (3,H,W) as understood to be linear, valid (1,H,W)."""
        height, width = picture.shape[-2:]
        shrink = min(1.0, 128 / min(height, width))
        size = (max(2, round(height * shrink)), max(2, round(width * shrink)))
        light = F.interpolate(srgb_to_linear(picture)[None], size, mode="bilinear", antialias=True)[0]
        small, ok = resize_map(ALBEDO, albedo[None], valid[None], size)
        seen, own = (x.mean(0).clamp(min=0.01).log() for x in (light, small[0]))
        for dim in (0, 1):
            edge, lit = own.diff(dim=dim), seen.diff(dim=dim)
            both = ok[0, 0].narrow(dim, 0, edge.shape[dim]) & ok[0, 0].narrow(dim, 1, edge.shape[dim])
            strong = both & (edge.abs() > 0.25)
            if strong.sum() >= 20:
                self.ratios.append(float((lit[strong] / edge[strong]).median()))


def check_colour(evidence: ColourEvidence, folder: str) -> Iterator[Finding]:
    """Whether albedo has the colour space that its files imply."""
    if len(evidence.ratios) < 2:
        return
    ratio = float(torch.tensor(evidence.ratios).median())
    told = (
        f"where the albedo changes by a factor a, the picture's light changes by a^{ratio:.2f}; it should be about a^1"
    )
    if ratio > 1.6:
        fix = "Float albedo is linear: undo the sRGB encoding, or store it as PNG."
        yield Finding("warning", "colour-space", folder, told, fix)
    elif 0.3 < ratio < 0.62:
        fix = "Albedo PNGs are sRGB-encoded: encode the linear values, or store them as exr or npy."
        yield Finding("warning", "colour-space", folder, told, fix)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
