"""Pictures and maps as files.

Float files (exr, npy, npz, float tif) carry a map's physical values; pixels that are NaN or infinite are not valid.
Integer files (png and tif of 8 or 16 bits, jpg, uint8 and uint16 npy) carry the map's [0,1] picture as
`Intrinsic.to_picture` makes it: normals (n+1)/2, albedo sRGB-encoded, a user's intrinsic [low, high] over 0 to the
type's maximum, depth relative with near = bright. With `scale` a file holds stored number × scale instead: 0.001 for
depth in millimetres; a stored 0 then means "no measurement". A see-through pixel (alpha below one half) is not valid.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ilora_core.errors import ConfigError, DataError
from ilora_core.files import atomic_path
from ilora_core.intrinsics import Intrinsic, convert_normals, linear_to_srgb
from ilora_core.pixels import Pixels, read_pixels
from ilora_core.png16 import encode_png

__all__ = [
    "MAP_SUFFIXES",
    "decode_map",
    "read_map",
    "read_mask",
    "read_picture",
    "write_map",
    "write_picture",
    "write_preview",
]

MAP_SUFFIXES = (".npy", ".png", ".exr")
"""What `write_map` can write."""

PictureFormat = Literal["auto", "png8", "png16", "npy"]

_BEHIND = 0.5  # what is seen through a transparent picture: mid grey, neither the paper nor the night


def read_picture(path: Path | str) -> Tensor:
    """A picture of any mode as float32 (3,H,W), sRGB-encoded, in [0,1]. Raises DataError that names the file.

    Grey becomes RGB; transparency lies over mid grey; 16-bit files keep their 16 bits; exr counts as linear light;
    float npy as sRGB-encoded in [0,1].
    """
    pixels = read_pixels(path)
    values = torch.from_numpy(pixels.stored)
    if not torch.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinite numbers and cannot be used as a picture.")
    if pixels.top is not None:
        values = values / pixels.top
    elif Path(path).suffix.lower() == ".exr":
        values = linear_to_srgb(values)
    elif values.max() > 1.0 + 1e-4 or values.min() < -1e-4:
        values = _known_range(values, path)
    if values.shape[-1] == 2:
        raise DataError(f"{path} has two channels; a picture has one or three.")
    picture = values.expand(-1, -1, 3).permute(2, 0, 1)
    if pixels.alpha is not None:
        alpha = torch.from_numpy(pixels.alpha)
        picture = picture * alpha + _BEHIND * (1 - alpha)
    return picture.clamp(0.0, 1.0).contiguous()


def read_map(
    path: Path | str,
    intrinsic: Intrinsic,
    *,
    frame: str = "opencv",
    scale: float | None = None,
    mask: Path | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Map float32 (C,H,W) in its physical unit and Valid bool (1,H,W). Map is 0 where it is not valid.

    frame  the axes that normals are stored in: "opencv" (ours), "opengl" or "directx"
    scale  physical value = stored number × scale; without it integers are the map's [0,1] picture
    mask   a file that is bright where the map is valid

    Raises DataError that names the file.
    """
    value, valid = decode_map(read_pixels(path), intrinsic, path, frame=frame, scale=scale)
    if mask is not None:
        valid = valid & _matching(read_mask(mask), valid, mask, path)
        value = torch.where(valid, value, torch.zeros_like(value))
    return value, valid


def decode_map(
    pixels: Pixels, intrinsic: Intrinsic, path: Path | str, *, frame: str = "opencv", scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """As `read_map`, from what the file `path` was found to hold."""
    if pixels.top is None or scale is not None:
        value, valid = _physical(pixels, intrinsic, scale, path)
    else:
        value, valid = _encoded(pixels, intrinsic, path)
    if pixels.alpha is not None:
        valid &= torch.from_numpy(pixels.alpha)[None] >= 0.5
    if intrinsic.encoding == "unit_vector":
        value = convert_normals(value[None], frame)[0]
    return torch.where(valid, value, torch.zeros_like(value)).contiguous(), valid.contiguous()


def read_mask(path: Path | str) -> Tensor:
    """A mask file as bool (1,H,W): True where it is at least half bright (floats and plain integers: not 0)."""
    pixels = read_pixels(path)
    brightness = np.nan_to_num(pixels.stored).max(-1)
    limit = pixels.top / 2 if pixels.top else np.finfo(np.float32).tiny
    return torch.from_numpy(brightness >= limit)[None]


def write_map(
    path: Path | str, value: Tensor, valid: Tensor | None, intrinsic: Intrinsic, *, frame: str = "opencv"
) -> None:
    """Write Map (C,H,W) with Valid (1,H,W) in the format that the suffix names, atomically.

    .npy  float32 (H,W,C), or (H,W) for one channel; NaN where not valid
    .exr  float32, channels R,G,B or Y; NaN where not valid
    .png  16 bits, the map's picture; see-through where not valid. Depth loses its unit, shading its scale.

    Raises ConfigError for another suffix, DataError for a refused write or a full disk.
    """
    path = Path(path)
    value, valid = _to_write(value, valid, intrinsic, frame)
    suffix = path.suffix.lower()
    if suffix == ".png":
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode_png(_quantised(value, valid, intrinsic, np.dtype(np.uint16))))
        return
    floats = torch.where(valid, value, torch.full_like(value, torch.nan)).permute(1, 2, 0).contiguous().numpy()
    floats = floats[..., 0] if floats.shape[2] == 1 else floats
    if suffix == ".npy":
        _write_npy(path, floats)
    elif suffix == ".exr":
        with atomic_path(path) as temporary:
            _write_exr(temporary, floats, {"intrinsic": intrinsic.name, "unit": intrinsic.unit, "frame": frame})
    else:
        raise ConfigError(f"cannot write a map as {path.name}; use one of {', '.join(MAP_SUFFIXES)}.")


def write_preview(
    path: Path | str, value: Tensor, valid: Tensor | None, intrinsic: Intrinsic, *, frame: str = "opencv"
) -> None:
    """The map's picture as an 8-bit PNG, for eyes. Map (C,H,W), Valid (1,H,W)."""
    value, valid = _to_write(value, valid, intrinsic, frame)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_png(_quantised(value, valid, intrinsic, np.dtype(np.uint8))[..., :3]))


def write_picture(path: Path | str, picture: Tensor, *, format: PictureFormat = "auto") -> Path:
    """Write a picture (3,H,W) in [0,1] and return the path with the suffix that it got (.png or .npy).

    "auto" takes the smallest format from which `read_picture` gives exactly the same numbers.
    """
    path, picture = Path(path), picture.detach().float().cpu()
    if format == "auto":
        format = "png8" if _survives(picture, 255) else "png16" if _survives(picture, 65535) else "npy"
    pixels = picture.permute(1, 2, 0)
    if format == "npy":
        path = path.with_name(path.name + ".npy")
        _write_npy(path, pixels.contiguous().numpy())
        return path
    top, dtype = (255, np.uint8) if format == "png8" else (65535, np.uint16)
    path = path.with_name(path.name + ".png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_png((pixels.clamp(0, 1) * top).round().numpy().astype(dtype)))
    return path


def _to_write(value: Tensor, valid: Tensor | None, intrinsic: Intrinsic, frame: str) -> tuple[Tensor, Tensor]:
    value = value.detach().float().cpu()
    if intrinsic.encoding == "unit_vector":
        value = convert_normals(value[None], frame)[0]
    return value, torch.ones_like(value[:1], dtype=torch.bool) if valid is None else valid.bool().cpu()


def _survives(picture: Tensor, top: int) -> bool:
    return bool(torch.equal((picture * top).round() / top, picture))


def _known_range(values: Tensor, path: Path | str) -> Tensor:
    """Plain numbers that are bytes or 16-bit values in all but type."""
    low, high = float(values.min()), float(values.max())
    for top in (255, 65535):
        if low >= 0 and 1.0 < high <= top and bool((values == values.round()).all()):
            return values / top
    raise DataError(f"{path}: a float picture lies in [0,1], but this one goes from {low:.4g} to {high:.4g}.")


def _physical(pixels: Pixels, intrinsic: Intrinsic, scale: float | None, path: Path | str) -> tuple[Tensor, Tensor]:
    value = _fit_channels(torch.from_numpy(pixels.stored).permute(2, 0, 1), intrinsic, path)
    valid = torch.isfinite(value).all(0, keepdim=True)
    value = value * (1.0 if scale is None else scale)
    if pixels.top is not None:
        valid &= (value != 0).any(0, keepdim=True)
    if intrinsic.encoding == "unit_vector":
        valid &= value.norm(dim=0, keepdim=True) > 1e-3
    if intrinsic.kind == "metric":
        valid &= value > 0
    return value, valid


def _encoded(pixels: Pixels, intrinsic: Intrinsic, path: Path | str) -> tuple[Tensor, Tensor]:
    picture = torch.from_numpy(pixels.stored).permute(2, 0, 1) / (pixels.top or 1)
    valid = torch.ones_like(picture[:1], dtype=torch.bool)
    if intrinsic.encoding == "unit_vector":
        if picture.shape[0] != 3:
            raise DataError(f"{path} has {picture.shape[0]} channel(s); {intrinsic.name} need three.")
        # Grey has no direction; black and white are what most data sets write where they know nothing.
        length = (picture * 2 - 1).norm(dim=0, keepdim=True)
        valid = (length > 0.25) & (length < 1.6)
    if picture.shape[0] == 2:
        picture = torch.cat([picture, torch.full_like(picture[:1], 0.5)])
    return intrinsic.from_picture(picture.expand(3, -1, -1)[None])[0], valid


def _fit_channels(value: Tensor, intrinsic: Intrinsic, path: Path | str) -> Tensor:
    has, wants = value.shape[0], intrinsic.channels
    if has == wants:
        return value
    if has == 1 and intrinsic.encoding in ("shading", "srgb"):
        return value.expand(wants, -1, -1)
    if wants == 1 and torch.equal(value.nan_to_num(), value[:1].nan_to_num().expand_as(value)):
        return value[:1]
    if wants == 1 and intrinsic.encoding == "shading":
        return value.mean(0, keepdim=True)
    raise DataError(f"{path} has {has} channel(s); {intrinsic.name} has {wants}.")


def _matching(mask: Tensor, valid: Tensor, mask_path: Path | str, path: Path | str) -> Tensor:
    if mask.shape != valid.shape:
        sizes = [f"{t.shape[-1]}x{t.shape[-2]}" for t in (mask, valid)]
        raise DataError(f"the mask {mask_path} is {sizes[0]}, its map {path} is {sizes[1]}; make them equal.")
    return mask


def _quantised(value: Tensor, valid: Tensor, intrinsic: Intrinsic, dtype: np.dtype) -> np.ndarray:
    """The map's picture as integers (H,W,1 to 4); 16-bit ones get an alpha channel where something is not valid."""
    top = np.iinfo(dtype).max
    picture = intrinsic.to_picture(value[None], valid[None])[0]
    one_channel = value.shape[0] == 1
    picture = picture[:1] if one_channel else picture
    valid = valid & torch.isfinite(value).all(0, keepdim=True)
    if top > 255 and not valid.all():
        picture = torch.cat([picture, valid.float()])
    # In float64: float32 cannot hold every product with 65535.
    return (picture.double().permute(1, 2, 0) * top).round().numpy().astype(dtype)


def _write_npy(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()  # np.save to a file does not say that the disk is full
    np.save(buffer, array)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _write_exr(path: Path, floats: np.ndarray, notes: dict[str, str]) -> None:
    import OpenEXR

    names = {2: ("R", "G"), 3: ("R", "G", "B")}.get(floats.shape[2] if floats.ndim == 3 else 1, ("Y",))
    planes = [floats] if floats.ndim == 2 else [np.ascontiguousarray(floats[..., c]) for c in range(floats.shape[2])]
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **notes}
    try:
        OpenEXR.File(header, dict(zip(names, planes, strict=True))).write(str(path))
    except RuntimeError as error:  # the library reports a full disk so
        raise OSError(str(error).rstrip(".")) from error
