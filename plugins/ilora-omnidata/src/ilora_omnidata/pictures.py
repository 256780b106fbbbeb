"""From pictures to what the network sees, by its two rules, and what its answers mean.

    normals  the network sees values in [0,1] as they are;  answer y -> n = 2 clamp(y, 0, 1) - 1, to unit length
    depth    the network sees (x - 0.5) / 0.5;              answer y -> clamp(y, 0, 1), far = large, up to scale and shift

Mixing the two rules up is the classic mistake with these weights. Normals are in the OpenCV camera frame (x right, y down,
z forward, facing walls n_z = -1), which is ilora's own; depth is affine, neither metres nor disparity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic, unit_vectors
from ilora_omnidata.network import STRIDE

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TASKS", "Task", "decode_depth", "decode_normals", "network_size", "official_input", "to_network"]

_SHORTEST = 1e-3  # an answer of mid grey has no direction


def decode_normals(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Answers (B,3,H,W) -> unit normals in our frame, and Valid: False where the network is silent or says nothing."""
    clamped = answers.clamp(0.0, 1.0)
    n = 2 * clamped - 1
    # Where the last ReLU is dead in all three channels the answer would read as the direction (-1,-1,-1).
    valid = (clamped > 0).any(1, keepdim=True) & (n.norm(dim=1, keepdim=True) > _SHORTEST)
    return unit_vectors(torch.where(valid, n, torch.zeros_like(n))), valid


def decode_depth(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Answers (B,1,H,W) -> affine depth in [0,1], far = large; valid everywhere."""
    return answers.clamp(0.0, 1.0), torch.ones_like(answers, dtype=torch.bool)


@dataclass(frozen=True)
class Task:
    """What one of the two networks is for.

    channels  of its answer
    centred   whether it sees (x - 0.5) / 0.5 in place of x
    decode    answers (B,C,H,W) -> Map and Valid
    """

    name: str
    channels: int
    centred: bool
    intrinsic: Intrinsic
    decode: Callable[[Tensor], tuple[Tensor, Tensor]]

    def normalise(self, pictures: Tensor) -> Tensor:
        """Pictures in [0,1] -> the network's own range."""
        return (pictures - 0.5) / 0.5 if self.centred else pictures


TASKS = {
    "normal": Task("normal", 3, False, NORMALS, decode_normals),
    "depth": Task("depth", 1, True, DEPTH.predicted(), decode_depth),
}


def network_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(H, W) for the network: the shorter side becomes `side`, the other keeps the aspect to the nearest multiple of 32."""
    scale = side / min(height, width)
    return max(side, round(height * scale / STRIDE) * STRIDE), max(side, round(width * scale / STRIDE) * STRIDE)


def to_network(pictures: Tensor, task: Task, side: int) -> Tensor:
    """Pictures (B,3,H,W) in [0,1] -> the network's input, whole, at `network_size`; antialiased."""
    size = network_size(pictures.shape[-2], pictures.shape[-1], side)
    if (pictures.shape[-2], pictures.shape[-1]) != size:
        pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True).clamp(0.0, 1.0)
    return task.normalise(pictures)


def official_input(image: Image, task: Task, side: int = 384) -> Tensor:
    """The official demo's input (1,3,side,side): Pillow's bilinear resize of the shorter side, centre cut, [0,1].

    It leaves out what lies beside the centre, so labels are not made this way; it is here to compare with other tools.
    """
    from torchvision.transforms.functional import InterpolationMode, center_crop, resize, to_tensor

    whole: Any = image.convert("RGB")  # torchvision's annotations know tensors only
    small: Any = center_crop(resize(whole, [side], InterpolationMode.BILINEAR), [side])
    return task.normalise(to_tensor(small))[None]
