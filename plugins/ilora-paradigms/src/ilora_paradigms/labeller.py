"""Labelers that take a picture apart into albedo and shading: one learnt from paradigms, three classic references.

    paradigms      log S = (1 - b)·network + b·blend, over `views` of the eight mirrored and turned pictures
    sqrt-split, retinex, retinex-blend                       as in `ilora_paradigms.retinex`; nothing learnt

Each finds a grey log shading at a working size (short side at most `work_size`), brings it bilinearly to the picture's
size and divides: albedo = picture / shading in linear light, scaled by the rule of `ilora_paradigms.split`. Detail finer
than the working size therefore goes to the albedo. A pixel that is pure white is not valid: it tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.intrinsics import ALBEDO, SHADING, Intrinsic, srgb_to_linear
from ilora_paradigms.net import ParadigmNet
from ilora_paradigms.retinex import EDGES, retinex, retinex_blend, sqrt_split
from ilora_paradigms.split import divide, rescale, unclipped

__all__ = [
    "SHIPPED",
    "NetShading",
    "SplitLabeler",
    "blend_labeler",
    "paradigms_labeler",
    "retinex_labeler",
    "sqrt_labeler",
    "tiny",
]

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS_FILE = "paradigms.safetensors"
_WHITE = 0.995
_VIEWS = (1, 2, 8)


class SplitLabeler:
    """Albedo (B,3,H,W) and grey shading (B,3,H,W, three equal channels), linear in [0,1], of pictures of any size.

    log_shading  linear pictures (B,3,h,w) -> log shading (B,1,h,w)
    work_size    short side at which it works; smaller pictures are taken as they are
    """

    intrinsics: tuple[Intrinsic, ...] = (ALBEDO, SHADING)
    version = "1"

    def __init__(
        self,
        log_shading: Callable[[Tensor], Tensor],
        *,
        work_size: int = 256,
        weights_hash: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if work_size < 16:
            raise ConfigError(f"labeler.work_size must be at least 16 pixels, not {work_size}.")
        self.log_shading, self.work_size = log_shading, work_size
        self.weights_hash, self.provenance = weights_hash, dict(facts or {})
        self._device = torch.device("cpu")

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> (Map, Valid) of pictures (B,3,H,W), sRGB in [0,1]."""
        with torch.no_grad():
            pictures = pictures.to(self._device).float()
            linear = srgb_to_linear(pictures)
            log_shading = _resized(self.log_shading(self._small(linear)), pictures.shape[-2:])
            found = rescale(*divide(linear, log_shading), unclipped(pictures))
            valid = pictures.amin(1, keepdim=True) < _WHITE
            return {"albedo": (found.albedo, valid), "shading": (found.shading.expand(-1, 3, -1, -1), valid)}

    def to(self, device: torch.device | str) -> SplitLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        if isinstance(self.log_shading, NetShading):
            self.log_shading.net.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: find the log of this true grey shading from now on, as the methods do."""
        true = maps["shading"].mean(1, keepdim=True).clamp(min=1e-6).log()
        self.log_shading = lambda linear: _resized(true.to(linear), linear.shape[-2:])

    def _small(self, linear: Tensor) -> Tensor:
        height, width = linear.shape[-2:]
        share = self.work_size / min(height, width)
        return linear if share >= 1 else _resized(linear, (round(height * share), round(width * share)))


class NetShading:
    """The network's log shading, the mean over `views`, drawn towards the blend by the share `blend`."""

    def __init__(self, net: ParadigmNet, *, blend: float = 0.0, views: int = 1) -> None:
        if not 0 <= blend <= 1:
            raise ConfigError(f"labeler.blend lies in 0 … 1, not at {blend}: 0 is the network alone, 1 retinex-blend.")
        if views not in _VIEWS:
            raise ConfigError(f"labeler.views is one of {', '.join(map(str, _VIEWS))}, not {views}.")
        self.net, self.blend, self.views = net.eval().requires_grad_(False), blend, views

    def __call__(self, linear: Tensor) -> Tensor:
        """Linear pictures (B,3,h,w) -> log shading (B,1,h,w)."""
        found = [undo(self._alone(do(linear))) for do, undo in _views(self.views)]
        mean = _centred(torch.stack(found).mean(0))
        if self.blend == 0:
            return mean
        return mean + self.blend * (_centred(retinex_blend(linear)) - mean)

    def _alone(self, linear: Tensor) -> Tensor:
        height, width = linear.shape[-2:]
        padding = (0, -width % self.net.span, 0, -height % self.net.span)
        return self.net(F.pad(linear, padding, mode="replicate"))[0][..., :height, :width]


def paradigms_labeler(
    *, weights: str = "", blend: float | None = None, views: int | None = None, work_size: int | None = None
) -> SplitLabeler:
    """The trained labeler. What is None comes from weights.json.

    weights    a folder with paradigms.safetensors and weights.json; "" = the shipped one
    blend      share of the untrained `retinex-blend` in the answer; 0 = the network alone
    views      1, 2 (mirrored) or 8 (mirrored and turned)
    work_size  short side at which the network works
    """
    folder = Path(weights).expanduser() if weights else SHIPPED
    try:
        facts = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        net = ParadigmNet(tuple(facts["widths"]))
        net.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS_FILE).items()})
        usual, digest = facts["settings"], facts["sha256"][WEIGHTS_FILE]
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"there are no paradigms weights in {folder} ({type(error).__name__}). Reinstall ilora-paradigms, or train "
            "them: python -m ilora_paradigms.pretrain"
        ) from error
    found = NetShading(
        net,
        blend=usual["blend"] if blend is None else blend,
        views=usual["views"] if views is None else views,
    )
    size = usual["work_size"] if work_size is None else work_size
    return SplitLabeler(found, work_size=size, weights_hash=digest, facts=facts)


def sqrt_labeler(*, work_size: int = 256) -> SplitLabeler:
    """Albedo and shading share every step of log intensity equally."""
    return SplitLabeler(sqrt_split, work_size=work_size)


def retinex_labeler(*, edge: float = EDGES[0], colour: float = EDGES[1], work_size: int = 256) -> SplitLabeler:
    """Colour Retinex. edge, colour: steps of log intensity and of log chromaticity from which on they are paint."""
    return SplitLabeler(partial(retinex, edges=(edge, colour)), work_size=work_size)


def blend_labeler(*, edge: float = EDGES[0], colour: float = EDGES[1], work_size: int = 256) -> SplitLabeler:
    """The geometric mean of the square root's and Retinex's shading."""
    return SplitLabeler(partial(retinex_blend, edges=(edge, colour)), work_size=work_size)


def tiny() -> SplitLabeler:
    """Narrow and untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SplitLabeler(NetShading(ParadigmNet((8, 8, 16)), blend=0.25, views=2))


def _centred(x: Tensor) -> Tensor:
    return x - x.mean((1, 2, 3), keepdim=True)


def _views(count: int) -> list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """(do, undo) of the first 1, 2 or 8 ways to mirror and turn a picture."""
    ways: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = []
    for swap in (False, True):
        for sides in ((), (-1,), (-2,), (-2, -1)):
            ways.append((partial(_turn, sides=sides, swap=swap), partial(_turn_back, sides=sides, swap=swap)))
    return ways[:count]


def _turn(x: Tensor, *, sides: tuple[int, ...], swap: bool) -> Tensor:
    x = x.flip(sides) if sides else x
    return x.transpose(-1, -2) if swap else x


def _turn_back(x: Tensor, *, sides: tuple[int, ...], swap: bool) -> Tensor:
    x = x.transpose(-1, -2) if swap else x
    return x.flip(sides) if sides else x


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B,C,h,w) at another size; smaller: averaged, larger: bilinear."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
