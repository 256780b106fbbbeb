"""The one place where units, ranges and axes are decided: maps, their pictures, and the way back.

    normals  unit vectors in the OpenCV camera frame: x right, y down, z forward; a surface that faces the camera has
             n_z < 0. Picture = (n + 1) / 2.
    depth    one channel, of a stated `kind`: "metric" (metres along z), "affine_depth" (up to scale and shift, far =
             large) or "affine_disparity" (up to scale and shift, near = large). Picture: relative, in [0,1], near =
             bright, from the picture's valid pixels.
    albedo   linear RGB in [0,1]. Picture: sRGB-encoded.
    shading  linear, three channels (one is accepted), up to one scale per picture. Picture: divided by the picture's
             own white level, then sRGB-encoded.

A user's intrinsic has 1 to 3 channels in [low, high], linear or sRGB-encoded.

Conventions: I-LoRA (arXiv 2311.17137) section 3 and its released code for the prompts and the `paper` depth rule;
IEC 61966-2-1 for sRGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError, UnknownName

__all__ = [
    "ALBEDO",
    "BUILT_IN",
    "CHOICES",
    "DECODINGS",
    "DEPTH",
    "DEPTH_KINDS",
    "FRAMES",
    "NORMALS",
    "SHADING",
    "Intrinsic",
    "convert_normals",
    "get_intrinsic",
    "linear_to_srgb",
    "register_intrinsic",
    "resize_map",
    "resize_valid",
    "srgb_to_linear",
    "unit_vectors",
]

DEPTH_KINDS = ("metric", "affine_depth", "affine_disparity")
DECODINGS = {"unit_vector": ("", "reference"), "relative_depth": ("", "reference", "max")}
"""Encoding -> the ways to read its pictures; the others have one."""
ENCODINGS = ("unit_vector", "relative_depth", "shading", "linear", "srgb")
LOSSES = ("mse", "l1", "cosine+l1")
CHOICES = ("loss", "prompt", "metric", "rule")
"""Fields that say how an intrinsic is learnt, and not what its maps are."""
FRAMES = {"opencv": (1.0, 1.0, 1.0), "opengl": (1.0, -1.0, -1.0), "directx": (1.0, 1.0, -1.0)}
"""Sign of (x, y, z) relative to ours. OpenGL: y up, z to the viewer. DirectX: as OpenGL with y down."""

_EPS = 1e-8


@dataclass(frozen=True)
class Intrinsic:
    """A per-pixel property and how it is drawn.

    name      what a user types
    channels  of the map in its physical unit (the picture always has three)
    unit      for tables and file headers
    encoding  one of ENCODINGS: how map and picture correspond
    low, high the map's range for the encodings "linear" and "srgb"
    prompt    words for generators that are conditioned on text
    loss      of generators that are trained in picture space: "mse", "l1" or "cosine+l1"
    metric    the figure by which the best adapter is chosen
    kind      depth only: one of DEPTH_KINDS
    rule      depth only: "valid" (limits from valid pixels) or "paper" (the reference code's limits)
    decoding  how a drawn picture is read: "" (normals of unit length, depth from the mean of the channels), "reference" (as the
              released inference script does: normals of any length, depth stretched to the picture's own limits) or "max" (depth
              from the brightest channel)
    """

    name: str
    channels: int
    unit: str
    encoding: str
    low: float = 0.0
    high: float = 1.0
    prompt: str = ""
    loss: str = "mse"
    metric: str = "rms"
    kind: str = ""
    rule: str = "valid"
    decoding: str = ""

    def __post_init__(self) -> None:
        _check(self)
        if not self.prompt:
            object.__setattr__(self, "prompt", self.name.replace("_", " ").replace("-", " "))

    def to_picture(self, value: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B,C,H,W) -> picture (B,3,H,W) in [0,1]. Pixels that are not valid become 0.5 (depth: 0, far)."""
        value = value.float()
        if value.ndim != 4 or value.shape[1] not in _accepted_channels(self):
            raise ConfigError(f"{self.name}: a map is (B,{self.channels},H,W), not {tuple(value.shape)}.")
        valid = torch.ones_like(value[:, :1], dtype=torch.bool) if valid is None else valid.bool()
        valid = valid & torch.isfinite(value).all(1, keepdim=True)
        value = torch.where(valid, value, torch.zeros_like(value))
        picture = _ENCODE[self.encoding](self, value, valid)
        fill = 0.0 if self.encoding == "relative_depth" else 0.5
        return torch.where(valid, picture, torch.full_like(picture, fill)).clamp(0.0, 1.0)

    def from_picture(self, picture: Tensor) -> Tensor:
        """Picture (B,3,H,W), about [0,1] -> map (B,C,H,W). For depth the map is of kind `predicted().kind`.

        Values beyond [0,1] count where `decoding` is "reference" and the map is depth: a generator that can should keep them.
        """
        if picture.ndim != 4 or picture.shape[1] != 3:
            raise ConfigError(f"{self.name}: a picture is (B,3,H,W), not {tuple(picture.shape)}.")
        return _DECODE[self.encoding](self, picture.float())

    def predicted(self) -> Intrinsic:
        """The intrinsic of maps that come out of `from_picture`: scale and shift are lost, so metric depth turns affine."""
        return replace(self, kind="affine_depth", unit="relative") if self.kind == "metric" else self

    def to_json(self) -> dict[str, Any]:
        """Plain data, enough for `from_json` to rebuild it. The usual decoding goes without saying."""
        return {key: value for key, value in asdict(self).items() if key != "decoding" or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Intrinsic:
        """The inverse of `to_json`. Raises ConfigError that names a missing or unknown field."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ConfigError(f"an intrinsic has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        if "name" not in data:
            raise ConfigError("an intrinsic needs a name.")
        defaults = {"channels": 1, "unit": "", "encoding": "linear"}
        try:
            return cls(**{**defaults, **data})
        except TypeError as error:
            raise ConfigError(f"intrinsic {data['name']!r}: {error}.") from error


def get_intrinsic(name: str) -> Intrinsic:
    """A built-in or registered intrinsic. Raises UnknownName that lists the known ones."""
    if name not in BUILT_IN:
        raise UnknownName(
            f"no intrinsic is called {name!r}; known are {', '.join(sorted(BUILT_IN))}. Declare your own with "
            "--channels, --range and --space, or in a TOML file given as --intrinsic FILE.toml."
        )
    return BUILT_IN[name]


def register_intrinsic(intrinsic: Intrinsic) -> Intrinsic:
    """Make an intrinsic known by its name in this process. The same one twice is fine; another of that name is not."""
    known = BUILT_IN.setdefault(intrinsic.name, intrinsic)
    if known != intrinsic:
        raise ConfigError(f"an intrinsic called {intrinsic.name!r} exists already and differs; choose another name.")
    return known


def srgb_to_linear(x: Tensor) -> Tensor:
    """sRGB-encoded [0,1] -> linear [0,1]."""
    x = x.clamp(0.0, 1.0)
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    """Linear [0,1] -> sRGB-encoded [0,1]."""
    x = x.clamp(0.0, 1.0)
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def unit_vectors(n: Tensor) -> Tensor:
    """(B,3,H,W) of any length -> unit length; a vector without direction turns to face the camera, (0,0,-1)."""
    length = n.norm(dim=1, keepdim=True)
    facing = torch.tensor([0.0, 0.0, -1.0], device=n.device, dtype=n.dtype).view(1, 3, 1, 1)
    return torch.where(length > 1e-6, n / length.clamp(min=1e-6), facing)


def convert_normals(n: Tensor, frame: str) -> Tensor:
    """Normals (B,3,H,W) from our frame (OpenCV) to `frame`, or back: each conversion is its own inverse."""
    if frame not in FRAMES:
        raise ConfigError(f"no normal frame is called {frame!r}; known are {', '.join(FRAMES)}.")
    return n * torch.tensor(FRAMES[frame], device=n.device, dtype=n.dtype).view(1, 3, 1, 1)


def resize_map(intrinsic: Intrinsic, value: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Map and Valid at another size (H,W). Invalid pixels are not blended in: valid ones are averaged by weight."""
    if value.shape[-2:] == size:
        return value, valid
    weight = valid.to(value.dtype)
    clean = torch.where(valid, value, torch.zeros_like(value))
    total = _resample(weight, size)
    blended = _resample(clean * weight, size) / total.clamp(min=_EPS)
    if intrinsic.encoding == "unit_vector":
        blended = unit_vectors(blended)
    return blended, resize_valid(valid, size)


def resize_valid(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask at another size: a pixel stays valid only where everything it is made of was."""
    return valid if valid.shape[-2:] == size else _resample(valid.float(), size) > 1 - 1e-4


def _resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _accepted_channels(intrinsic: Intrinsic) -> tuple[int, ...]:
    return (1, 3) if intrinsic.encoding == "shading" else (intrinsic.channels,)


def _check(i: Intrinsic) -> None:
    if not i.name or not i.name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"{i.name!r} is not a name for an intrinsic: use letters, digits, '-' and '_'.")
    for value, allowed, what in ((i.encoding, ENCODINGS, "encoding"), (i.loss, LOSSES, "loss")):
        if value not in allowed:
            raise ConfigError(f"intrinsic {i.name!r}: no {what} {value!r}; choose from {', '.join(allowed)}.")
    if i.decoding not in (allowed := DECODINGS.get(i.encoding, ("",))):
        named = ", ".join(filter(None, allowed)) or "only the usual one"
        raise ConfigError(f"intrinsic {i.name!r}: no decoding {i.decoding!r} of {i.encoding}; there is {named}.")
    if i.channels not in (1, 2, 3):
        raise ConfigError(f"intrinsic {i.name!r}: a map has 1, 2 or 3 channels, not {i.channels}.")
    if not i.high > i.low:
        raise ConfigError(f"intrinsic {i.name!r}: the range must rise, but is {i.low} to {i.high}.")
    if i.encoding == "unit_vector" and i.channels != 3:
        raise ConfigError(f"intrinsic {i.name!r}: unit vectors have 3 channels.")
    if i.encoding == "relative_depth" and (i.kind not in DEPTH_KINDS or i.rule not in ("valid", "paper")):
        raise ConfigError(f"intrinsic {i.name!r}: kind is one of {', '.join(DEPTH_KINDS)} and rule 'valid' or 'paper'.")


def _encode_unit_vector(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    return (unit_vectors(value) + 1) / 2


def _decode_unit_vector(i: Intrinsic, picture: Tensor) -> Tensor:
    vectors = picture * 2 - 1
    return vectors.clamp(-1, 1) if i.decoding == "reference" else unit_vectors(vectors)


def _encode_depth(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    rule = _paper_depth if i.rule == "paper" else _relative_depth
    return rule(i, value, valid).expand(-1, 3, -1, -1)


def _relative_depth(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    """Limits from valid pixels; the far 1 % is cut, so that one far pixel does not darken the rest."""
    near_is_large = i.kind == "affine_disparity"
    low, high = _quantiles(value, valid, (0.01, 1.0) if near_is_large else (0.0, 0.99))
    flat = high - low < _EPS
    relative = ((value - low) / (high - low).clamp(min=_EPS)).clamp(0, 1)
    relative = relative if near_is_large else 1 - relative
    return torch.where(flat, torch.full_like(relative, 0.5), relative)


def _paper_depth(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    """The reference's rule (its `diode.py`): limits over ALL pixels with invalid ones at 0, clipped to [0.5, 300] m."""
    everywhere = torch.ones_like(valid)
    _, p99 = _quantiles(value, everywhere, (0.0, 0.99))
    clipped = torch.minimum(value.clamp(min=0.5), p99.clamp(max=300.0).clamp(min=0.5))
    low, high = _quantiles(clipped, everywhere, (0.0, 1.0))
    relative = (clipped - low) / (high - low).clamp(min=_EPS)
    return relative if i.kind == "affine_disparity" else 1 - relative


def _decode_depth(i: Intrinsic, picture: Tensor) -> Tensor:
    if i.decoding == "reference":  # of its `inference_sd_single.py`; one limit for the three channels
        low, high = picture.amin((1, 2, 3), keepdim=True), picture.amax((1, 2, 3), keepdim=True)
        picture = (picture - low) / (high - low).clamp(min=_EPS)
    near = picture.amax(1, keepdim=True) if i.decoding == "max" else picture.mean(1, keepdim=True)
    return near if i.kind == "affine_disparity" else 1 - near


def _encode_shading(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    brightest = value.amax(1, keepdim=True)
    _, white = _quantiles(brightest, valid, (0.0, 0.99))
    return linear_to_srgb(value / white.clamp(min=_EPS)).expand(-1, 3, -1, -1)


def _decode_shading(i: Intrinsic, picture: Tensor) -> Tensor:
    linear = srgb_to_linear(picture)
    return linear.mean(1, keepdim=True) if i.channels == 1 else linear


def _encode_range(i: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    unit = (value - i.low) / (i.high - i.low)
    unit = linear_to_srgb(unit) if i.encoding == "srgb" else unit
    if i.channels == 1:
        return unit.expand(-1, 3, -1, -1)
    if i.channels == 2:
        return torch.cat([unit, torch.full_like(unit[:, :1], 0.5)], 1)
    return unit


def _decode_range(i: Intrinsic, picture: Tensor) -> Tensor:
    unit = picture.clamp(0, 1)
    unit = unit.mean(1, keepdim=True) if i.channels == 1 else unit[:, : i.channels]
    unit = srgb_to_linear(unit) if i.encoding == "srgb" else unit
    return unit * (i.high - i.low) + i.low


def _quantiles(value: Tensor, valid: Tensor, q: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Two quantiles of each picture's valid pixels, each (B,1,1,1); 0 where no pixel is valid. value: (B,1,H,W)."""
    rows = []
    for row, mask in zip(value[:, 0], valid[:, 0], strict=True):
        chosen = row[mask].sort().values
        if chosen.numel() == 0:
            rows.append(torch.zeros(2, device=value.device))
            continue
        # torch.quantile refuses more than 2**24 values; linear interpolation by hand does not.
        position = torch.tensor(q, device=value.device, dtype=torch.float64) * (chosen.numel() - 1)
        below = position.floor().long()
        above = (below + 1).clamp(max=chosen.numel() - 1)
        share = (position - below).to(chosen.dtype)
        rows.append(chosen[below] * (1 - share) + chosen[above] * share)
    limits = torch.stack(rows).view(-1, 2, 1, 1, 1)
    return limits[:, 0], limits[:, 1]


_ENCODE = {
    "unit_vector": _encode_unit_vector,
    "relative_depth": _encode_depth,
    "shading": _encode_shading,
    "linear": _encode_range,
    "srgb": _encode_range,
}
_DECODE = {
    "unit_vector": _decode_unit_vector,
    "relative_depth": _decode_depth,
    "shading": _decode_shading,
    "linear": _decode_range,
    "srgb": _decode_range,
}

NORMALS = Intrinsic(
    "normals", 3, "unit vector", "unit_vector", -1.0, 1.0, "surface normal", "cosine+l1", "normals_mean_deg"
)
DEPTH = Intrinsic("depth", 1, "m", "relative_depth", 0.0, 300.0, "depth map", "mse", "depth_rms01", kind="metric")
ALBEDO = Intrinsic("albedo", 3, "linear", "srgb", metric="albedo_rms")
SHADING = Intrinsic("shading", 3, "linear", "shading", metric="shading_si_rms")
BUILT_IN: dict[str, Intrinsic] = {i.name: i for i in (NORMALS, DEPTH, ALBEDO, SHADING)}
