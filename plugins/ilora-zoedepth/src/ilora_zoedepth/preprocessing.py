"""What stands between a picture and the network: padding, size, normalisation; and the way back for a depth map.

    in    reflect by ⌊3 √(h/2)⌋ and ⌊3 √(w/2)⌋ pixels; resize (bilinear, corners aligned) by the one factor that changes the
          picture less, of those to `size`; sides rounded to multiples of 32; (x − mean) / std
    back  resize (bicubic) to the padded size; cut the border off

This is the official `infer`. transformers' own processor has rounded to no multiple since its version 5 where a folder
lacks preprocessor_config.json (its default became 1/32), which shifts the map against the picture; here it is always 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import WeightsError
from ilora_core.files import read_json

__all__ = ["MULTIPLE", "Preprocessing"]

MULTIPLE = 32
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preprocessing:
    """size: (H, W) that the network is meant for; a picture keeps its own proportions unless `keep_aspect` is False."""

    size: tuple[int, int] = (384, 512)
    keep_aspect: bool = True
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF

    @classmethod
    def read(cls, folder: Path) -> Preprocessing:
        """From a folder's preprocessor_config.json, or the published values where there is none."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls()
        try:
            data = read_json(path)
            size = data.get("size", {"height": 384, "width": 512})
            mean, std = (tuple(map(float, data.get(name, _HALF))) for name in ("image_mean", "image_std"))
            height, width = int(size["height"]), int(size["width"])
            return cls((height, width), bool(data.get("keep_aspect_ratio", True)), (*mean,), (*std,))  # pyright: ignore
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} is not ZoeDepth's ({type(error).__name__}: {error}). Restore it.") from error

    def to_json(self) -> dict[str, Any]:
        """As transformers' ZoeDepthImageProcessor writes it."""
        return {
            "image_processor_type": "ZoeDepthImageProcessor",
            "do_pad": True,
            "do_resize": True,
            "size": {"height": self.size[0], "width": self.size[1]},
            "keep_aspect_ratio": self.keep_aspect,
            "ensure_multiple_of": MULTIPLE,
            "resample": 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def prepare(self, picture: Tensor, *, pad: bool) -> Tensor:
        """Picture (1,3,H,W) in [0,1] -> what the network takes: (1,3,h,w), both multiples of 32."""
        border = padding(*picture.shape[-2:]) if pad else (0, 0)
        if any(border):
            picture = F.pad(picture, (border[1], border[1], border[0], border[0]), mode="reflect")
        resized = F.interpolate(picture, self.net_size(*picture.shape[-2:]), mode="bilinear", align_corners=True)
        mean, std = (picture.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (resized - mean) / std

    def restore(self, depth: Tensor, height: int, width: int, *, pad: bool) -> Tensor:
        """The network's depth (1,1,h,w) -> (1,1,height,width), the picture's own size."""
        down, right = padding(height, width) if pad else (0, 0)
        full = F.interpolate(
            depth, (height + 2 * down, width + 2 * right), mode="bicubic", align_corners=False, antialias=False
        )
        return full[..., down : down + height, right : right + width]

    def net_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of what the network sees of a padded picture."""
        down, right = self.size[0] / height, self.size[1] / width
        if self.keep_aspect:
            down = right = right if abs(1 - right) < abs(1 - down) else down
        return _rounded(down * height), _rounded(right * width)


def padding(height: int, width: int) -> tuple[int, int]:
    """Pixels of reflection above and below, and left and right. Less than the side itself, which is what can be mirrored."""
    return min(int(math.sqrt(height / 2) * 3), height - 1), min(int(math.sqrt(width / 2) * 3), width - 1)


def _rounded(side: float) -> int:
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)
