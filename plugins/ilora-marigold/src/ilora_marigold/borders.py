"""Where Marigold's conventions become ours, one class for each of its tasks.

    depth      [0,1], 0 near, 1 far, up to scale and shift         -> as it is, kind "affine_depth"
    normals    unit vectors, x right, y up, z to the viewer        -> (x, −y, −z)
    intrinsics T pictures in [0,1], named by the weights, each in a space of its own:
               "lighting"    albedo, shading, residual; linear, the last two up to one scale
               "appearance"  albedo, sRGB-encoded; material (roughness, metallicity), which is no intrinsic here

`read` takes what the pipeline gives for one picture. `write` is the model's convention as its documentation has it, for the
checks: what a perfect Marigold would give for known maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ilora_core.errors import WeightsError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic, convert_normals, srgb_to_linear

__all__ = ["Border", "DepthBorder", "IntrinsicsBorder", "NormalsBorder"]

Labels = dict[str, tuple[Tensor, Tensor]]
_SPACES = ("linear", "srgb")


class Border(Protocol):
    """Between one of Marigold's tasks and ilora."""

    intrinsics: tuple[Intrinsic, ...]

    def read(self, prediction: Tensor) -> Labels:
        """Prediction of one picture -> name -> (Map (1,C,H,W), Valid (1,1,H,W))."""
        ...

    def write(self, maps: Mapping[str, Tensor]) -> Tensor:
        """True maps of one picture, each (1,C,H,W) -> the prediction that stands for them in Marigold's convention."""
        ...


class DepthBorder:
    """Prediction (1,1,H,W)."""

    intrinsics: tuple[Intrinsic, ...] = (replace(DEPTH, kind="affine_depth", unit="relative"),)

    def read(self, prediction: Tensor) -> Labels:
        return {"depth": _finite(prediction)}

    def write(self, maps: Mapping[str, Tensor]) -> Tensor:
        depth = maps["depth"]
        return (depth - depth.min()) / (depth.max() - depth.min())


class NormalsBorder:
    """Prediction (1,3,H,W). A vector of no length has no direction and is not valid."""

    intrinsics: tuple[Intrinsic, ...] = (NORMALS,)

    def read(self, prediction: Tensor) -> Labels:
        normals, valid = _finite(convert_normals(prediction.float(), "opengl"))
        length = normals.norm(dim=1, keepdim=True)
        return {"normals": (normals / length.clamp(min=1e-6), valid & (length > 1e-3))}

    def write(self, maps: Mapping[str, Tensor]) -> Tensor:
        right, down, forward = maps["normals"].split(1, 1)
        return torch.cat([right, -down, -forward], 1)


class IntrinsicsBorder:
    """Prediction (T,3,H,W). properties: the weights' `target_properties`: the targets' names in order, and their spaces.

    Raises WeightsError where they name no albedo, or a space that is not known here.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._names = [str(name) for name in properties.get("target_names", ())]
        if "albedo" not in self._names:
            raise WeightsError(
                f"these weights name the targets {', '.join(self._names) or 'none'} and no albedo in "
                "model_index.json. marigold-iid reads marigold-iid-lighting-v1-1 and marigold-iid-appearance-v1-1."
            )
        self._wanted = [i for i in (ALBEDO, SHADING) if i.name in self._names]
        self._space = {i.name: properties.get(i.name, {}).get("prediction_space", "srgb") for i in self._wanted}
        for name, space in self._space.items():
            if space not in _SPACES:
                raise WeightsError(f"these weights give {name} in the space {space!r}; known are {', '.join(_SPACES)}.")
        self.intrinsics: tuple[Intrinsic, ...] = tuple(self._wanted)

    def read(self, prediction: Tensor) -> Labels:
        return {i.name: self._one(i.name, prediction) for i in self._wanted}

    def write(self, maps: Mapping[str, Tensor]) -> Tensor:
        told = []
        for name in self._names:
            value = maps.get(name, torch.zeros_like(maps["albedo"]))
            value = value / value.max().clamp(min=1e-6) if name == "shading" else value
            told.append(_encoded(value) if self._space.get(name) == "srgb" else value)
        return torch.cat(told)

    def _one(self, name: str, prediction: Tensor) -> tuple[Tensor, Tensor]:
        value, valid = _finite(prediction[self._names.index(name)][None])
        value = value.clamp(0, 1)
        return (srgb_to_linear(value) if self._space[name] == "srgb" else value), valid


def _finite(value: Tensor) -> tuple[Tensor, Tensor]:
    valid = torch.isfinite(value).all(1, keepdim=True)
    return torch.where(valid, value.float(), torch.zeros_like(value, dtype=torch.float32)), valid


def _encoded(linear: Tensor) -> Tensor:
    """sRGB, IEC 61966-2-1, written out again so that `write` does not lean on what `read` leans on."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
