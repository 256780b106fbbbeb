"""One scale for the maps of a scene's frames: relative depth and shading that do not flicker.

A relative map has its own scale and shift in every picture, so a video's maps jump although the scene does not. Over the frames
k of one folder, with m the median of their maps pixel by pixel,

    depth    s, b of least Σ (s d_k + b - m)²     d_k becomes s d_k + b
    shading  s of least Σ (s x_k - m)²            x_k becomes s x_k

Frames that differ by scale and shift alone come out equal. The median stands for the scene, so the camera must stand still or
move little: where the view changes, so does m's meaning, and what is fitted away may be true. A frame whose scale would not be
positive stays as it is. Maps in units of their own (normals, albedo, yours) are left alone.

Fits use maps reduced to at most 64 pixels a side, so that a long folder fits into memory; whole maps wait on the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import Intrinsic
from ilora_core.tiling import fit_affine

__all__ = ["SharedScale", "align_frames", "is_relative"]

_SMALL = 64


def is_relative(intrinsic: Intrinsic) -> bool:
    """Whether a drawn map's scale (and shift) differs from picture to picture."""
    return intrinsic.encoding in ("relative_depth", "shading")


def align_frames(intrinsic: Intrinsic, frames: Sequence[Tensor]) -> list[tuple[float, float] | None]:
    """(scale, shift) of each frame (C,H,W), all of one size, that bring it to their median; None where nothing fits."""
    stack = torch.stack(list(frames))
    # Between the middle two of an even number, as torch.median is not.
    middle = stack.sort(0).values[[(len(stack) - 1) // 2, len(stack) // 2]].mean(0, keepdim=True)
    scale, shift, sound = (v.flatten().tolist() for v in fit_affine(intrinsic, stack, middle.expand_as(stack)))
    return [(s, b) if fine else None for s, b, fine in zip(scale, shift, sound, strict=True)]


class SharedScale:
    """Frames in, the same frames on one scale out; afterwards how they are to be shown.

    limits    intrinsic's name -> what is drawn darkest and brightest over all frames of the last folder
    unfitted  keys of frames that could not be brought to the others
    """

    def __init__(self, intrinsics: Mapping[str, Intrinsic]):
        self.intrinsics = {name: i for name, i in intrinsics.items() if is_relative(i)}
        self.limits: dict[str, tuple[float, float]] = {}
        self.unfitted: list[str] = []

    def __call__(
        self, drawn: Iterable[tuple[str, Mapping[str, Tensor]]], folder: Path
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """(key, maps by name, each (C,H,W)) of one folder's frames, in the same order; an empty mapping passes.

        folder: where they wait meanwhile, in a temporary folder. Raises DataError that names a frame of another size.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".frames-", dir=folder) as waiting:
            keys, small = self._keep(drawn, Path(waiting))
            fits = {name: align_frames(self.intrinsics[name], frames) for name, frames in small.items() if frames}
            self.limits = {name: _limits(self.intrinsics[name], small[name], found) for name, found in fits.items()}
            number = 0
            for index, (key, empty) in enumerate(keys):
                if empty:
                    yield key, {}
                    continue
                maps = load_file(Path(waiting) / f"{index}.safetensors")
                yield key, maps | {name: self._fitted(key, maps[name], found[number]) for name, found in fits.items()}
                number += 1

    def shown(self, intrinsic: Intrinsic, value: Tensor) -> tuple[Intrinsic, Tensor]:
        """The intrinsic and map (C,H,W) whose picture has the same brightness for the same value in every frame."""
        if intrinsic.name not in self.limits:
            return intrinsic, value
        low, high = self.limits[intrinsic.name]
        encoding = "srgb" if intrinsic.encoding == "shading" else "linear"
        far_is_large = intrinsic.encoding == "relative_depth" and intrinsic.kind != "affine_disparity"
        fixed = replace(intrinsic, encoding=encoding, low=low, high=high, kind="", channels=value.shape[0])
        return fixed, low + high - value if far_is_large else value

    def _keep(
        self, drawn: Iterable[tuple[str, Mapping[str, Tensor]]], waiting: Path
    ) -> tuple[list[tuple[str, bool]], dict[str, list[Tensor]]]:
        """(key, whether it is empty) of each frame, and the reduced maps of those that are not."""
        keys: list[tuple[str, bool]] = []
        small: dict[str, list[Tensor]] = {name: [] for name in self.intrinsics}
        size = torch.Size()
        for key, maps in drawn:
            for name, frames in small.items():
                if maps:
                    size = size or maps[name].shape[-2:]
                    _check_size(key, maps[name], size)
                    frames.append(_reduced(maps[name]))
            if maps:
                save_file(
                    {name: value.contiguous() for name, value in maps.items()}, waiting / f"{len(keys)}.safetensors"
                )
            keys.append((key, not maps))
        return keys, small

    def _fitted(self, key: str, value: Tensor, fit: tuple[float, float] | None) -> Tensor:
        if fit is None:
            self.unfitted += [key] if key not in self.unfitted else []
            return value
        return fit[0] * value + fit[1]


def _check_size(key: str, value: Tensor, size: torch.Size) -> None:
    if value.shape[-2:] != size:
        height, width = value.shape[-2:]
        raise DataError(
            f"--shared-scale needs frames of one size, but {key} is {width}x{height} and others {size[1]}x{size[0]}. "
            "Put each scene's frames into a folder of their own."
        )


def _reduced(value: Tensor) -> Tensor:
    height, width = value.shape[-2:]
    share = min(1.0, _SMALL / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    return F.interpolate(value[None].float(), size, mode="area")[0]


def _limits(
    intrinsic: Intrinsic, frames: Sequence[Tensor], fits: Sequence[tuple[float, float] | None]
) -> tuple[float, float]:
    """The range of all fitted frames; shading begins at 0 and leaves out its brightest 1 %."""
    fitted = torch.stack([fit[0] * frame + fit[1] if fit else frame for frame, fit in zip(frames, fits, strict=True)])
    ranked = fitted.flatten().sort().values
    low, high = float(ranked[0]), float(ranked[-1])
    if intrinsic.encoding == "shading":
        low, high = 0.0, float(ranked[round(0.99 * (len(ranked) - 1))])
    return low, max(high, low + 1e-6)
