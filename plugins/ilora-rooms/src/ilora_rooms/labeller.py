"""A labeler for rooms: one small U-Net that gives normals, depth, albedo and shading in a single pass.

It was trained on rooms with exact maps (`ilora_rooms.pretrain_labeller`) and is meant for rooms that have none, such as
the samples of a generator. Its answers are 11 channels per pixel:

    0-2   normal, OpenCV camera frame (x right, y down, z forward), of any length
    3     log(depth in metres)
    4-6   albedo, sRGB-encoded, in [0,1]
    7-9   square root of the linear shading, >= 0
    10    logit of "this is a window pane", where no map means anything: such pixels are not valid

The picture enters and the answers leave through 2x2 blocks (pixel shuffle), so the widest layers work at half the
resolution and nothing of the picture is thrown away. U-Net: Ronneberger et al. 2015 (arXiv 1505.04597).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ilora_core.errors import WeightsError
from ilora_core.intrinsics import (
    ALBEDO,
    DEPTH,
    NORMALS,
    SHADING,
    Intrinsic,
    linear_to_srgb,
    srgb_to_linear,
    unit_vectors,
)

__all__ = ["CHANNELS", "SHIPPED", "WIDTHS", "RoomsLabeler", "RoomsNet", "decode", "encode", "labeler", "tiny"]

WIDTHS = (24, 56, 128)
CHANNELS = 11
SHIPPED = Path(__file__).parent / "weights" / "labeller"
_SPAN = 8  # sides are padded to a multiple of this: two for the blocks, four for the two halvings
_LOG_DEPTH = (-2.5, 4.0)  # 8 cm to 55 m: a rough picture must not send depth to zero or infinity
_TYPICAL = (0.0, 0.0, -0.5, 0.8, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, -4.0)  # where an untrained network starts


class RoomsNet(nn.Module):
    """Pictures (B,3,H,W) in [0,1], sides multiples of 8, to answers (B,11,H,W)."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        self.widths = widths
        high, middle, low = widths
        self.stem = nn.Conv2d(12, high, 3, padding=1)
        self.to_middle = nn.Conv2d(high, middle, 3, stride=2, padding=1)
        self.middle_in = _Block(middle)
        self.to_low = nn.Conv2d(middle, low, 3, stride=2, padding=1)
        self.low = nn.Sequential(_Block(low), _Block(low))
        self.from_low = nn.Conv2d(low, middle, 1)
        self.middle_out = _Block(middle)
        self.from_middle = nn.Conv2d(middle, high, 1)
        self.high_out = _Block(high)
        self.last = nn.Sequential(_norm(high), nn.SiLU())
        self.head = nn.Conv2d(high + 12, 4 * CHANNELS, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.tensor(_TYPICAL).repeat_interleave(4))  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, pictures: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(2 * pictures - 1, 2)
        high = self.stem(blocks)
        middle = self.middle_in(self.to_middle(high))
        low = self.low(self.to_low(middle))
        middle = self.middle_out(middle + _double(self.from_low(low)))
        high = self.high_out(high + _double(self.from_middle(middle)))
        answers = self.head(torch.cat([self.last(high), blocks], 1))
        normal, depth, albedo, shading, pane = F.pixel_shuffle(answers, 2).split((3, 1, 3, 3, 1), 1)
        return torch.cat([normal, depth.clamp(*_LOG_DEPTH), albedo.sigmoid(), F.softplus(shading), pane], 1)


class _Block(nn.Module):
    """x + conv(norm(conv(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class RoomsLabeler:
    """Maps of rooms, at the pictures' own size.

    net      gives answers to pictures whose sides are multiples of 8
    weights  fingerprint of the network's weights, which keeps cached labels apart
    facts    what `weights.json` says of them
    """

    intrinsics: tuple[Intrinsic, ...] = (NORMALS, DEPTH, ALBEDO, SHADING)
    version = "1"

    def __init__(self, net: nn.Module, *, weights_hash: str = "", facts: Mapping[str, Any] | None = None) -> None:
        self.net: Callable[[Tensor], Tensor] = net.eval().requires_grad_(False)
        self.weights_hash, self.provenance = weights_hash, dict(facts or {})
        self._device = torch.device("cpu")

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Normals, depth in metres, albedo and shading of pictures (B,3,H,W); window panes are not valid."""
        height, width = pictures.shape[-2:]
        short = (-height % _SPAN, -width % _SPAN)
        with torch.no_grad():
            padded = F.pad(pictures.to(self._device).float(), (0, short[1], 0, short[0]), mode="replicate")
            return decode(self.net(padded)[..., :height, :width])

    def to(self, device: torch.device | str) -> RoomsLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        if isinstance(self.net, nn.Module):
            self.net.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: answer with these true maps from now on, as the list of channels above has them."""
        everywhere = torch.ones_like(maps["depth"], dtype=torch.bool)
        answers = encode(maps, everywhere)
        self.net = lambda pictures: answers.to(pictures)


def encode(maps: Mapping[str, Tensor], valid: Tensor) -> Tensor:
    """Maps (B,C,H,W) in physical units and Valid (B,1,H,W) -> the answers (B,11,H,W) of a perfect network."""
    log_depth = maps["depth"].clamp(min=1e-3).log()
    pane = torch.where(valid, -10.0, 10.0)
    return torch.cat([maps["normals"], log_depth, linear_to_srgb(maps["albedo"]), maps["shading"].sqrt(), pane], 1)


def decode(answers: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Answers (B,11,H,W) -> name of the intrinsic -> (Map, Valid)."""
    normals, depth, albedo, shading, pane = answers.float().split((3, 1, 3, 3, 1), 1)
    valid = pane <= 0
    return {
        "normals": (unit_vectors(normals), valid),
        "depth": (depth.exp(), valid),
        "albedo": (srgb_to_linear(albedo), valid),
        "shading": (shading.square(), valid),
    }


def labeler(*, weights: str = "") -> RoomsLabeler:
    """The trained labeler. weights: a folder with labeller.safetensors and weights.json; "" = the shipped one."""
    folder = Path(weights).expanduser() if weights else SHIPPED
    try:
        facts = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        net = RoomsNet(tuple(facts["widths"]))
        net.load_state_dict({k: v.float() for k, v in load_file(folder / "labeller.safetensors").items()})
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"there is no rooms labeller in {folder} ({type(error).__name__}). Reinstall ilora-rooms, or train one: "
            "python -m ilora_rooms.pretrain_labeller"
        ) from error
    return RoomsLabeler(net, weights_hash=facts["sha256"]["labeller.safetensors"], facts=facts)


def tiny() -> RoomsLabeler:
    """Narrow and untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RoomsLabeler(RoomsNet((8, 8, 16)))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, width // 4), width)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
