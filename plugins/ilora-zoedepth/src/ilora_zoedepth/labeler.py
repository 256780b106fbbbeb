"""ZoeDepth as a labeler: metres along z, from one picture at a time.

    depth = ½ (f(x) + mirror(f(mirror(x))))        f: padded, resized, through the network, and back

One picture per pass on purpose: NK chooses its head by the sum of the votes of everything in the batch, so a mixed batch
would put a street through the head for rooms. ZoeDepth: Bhat et al. 2023 (arXiv 2302.12288).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.hub import find_weights, snapshot
from ilora_core.intrinsics import DEPTH, Intrinsic
from ilora_core.pretrained import fingerprint
from ilora_zoedepth.architecture import VARIANTS, Architecture
from ilora_zoedepth.conversion import convert_into_cache
from ilora_zoedepth.network import load_network, settings
from ilora_zoedepth.preprocessing import Preprocessing

__all__ = ["ZoeDepthLabeler", "tiny", "zoedepth"]

_TINY = Architecture("nk", 64, 4, 32, 64, 4, (16, 16, 32, 32), 16, 16, 8, (4, 2, 2, 1), 8, 16)
_CHECKPOINTS = (".pt", ".pth")
_FETCH = snapshot("config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json")
_DIRECTIONS = (
    "Download config.json, preprocessor_config.json and model.safetensors of an Intel/zoedepth-… repository, or an official "
    "ZoeD_M12_….pt, and name the folder or the file with --set labeler.weights=PATH."
)


class ZoeDepthLabeler:
    """Depth in metres at the pictures' own size.

    net           transformers' ZoeDepthForDepthEstimation
    flip, pad     average with the mirrored picture's map; reflect the borders. Both are the official inference
    facts         plain data for the provenance: variant, range, where the weights came from
    """

    intrinsics: tuple[Intrinsic, ...] = (DEPTH,)
    version = "1"

    def __init__(
        self,
        net: nn.Module,
        *,
        processing: Preprocessing | None = None,
        flip: bool = True,
        pad: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.processing, self.flip, self.pad = processing or Preprocessing(), flip, pad
        self.weights_hash, self.provenance = fingerprint(net, beside=settings(net)), dict(facts or {})
        self._device = torch.device("cpu")
        self._metres: Callable[[Tensor], Tensor] = self._through_network

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Depth of pictures (B,3,H,W) in [0,1]: metres (B,1,H,W), not valid where not positive or not finite.

        Raises WeightsError when a whole picture comes out without a usable depth.
        """
        with torch.no_grad():
            depth = torch.cat([self._one(picture[None]) for picture in pictures.to(self._device).float()])
        valid = torch.isfinite(depth) & (depth > 0)
        if not bool(valid.flatten(1).any(1).all()):
            raise WeightsError("ZoeDepth gives no finite, positive depth for a whole picture: its weights are damaged.")
        return {"depth": (torch.where(valid, depth, torch.zeros_like(depth)), valid)}

    def to(self, device: torch.device | str) -> ZoeDepthLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        self.net.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: the network now answers with these true maps, picture after picture, as ZoeDepth would.

        Its convention: metres along z, (1,h,w), of the padded and resized picture it is shown, mirrored when that is.
        """
        depth, passes = maps["depth"], 0

        def tell(shown: Tensor) -> Tensor:
            nonlocal passes
            turn, mirrored = divmod(passes, 2) if self.flip else (passes, 0)
            passes += 1
            seen = depth[turn % len(depth)][None].to(shown)
            if self.pad:
                down, right = (int((side / 2) ** 0.5 * 3) for side in seen.shape[-2:])
                seen = F.pad(seen, (right, right, down, down), mode="reflect")
            seen = F.interpolate(seen, shown.shape[-2:], mode="bilinear", align_corners=True)
            return (seen.flip(-1) if mirrored else seen)[:, 0]

        self._metres = tell

    def _one(self, picture: Tensor) -> Tensor:
        """Metres (1,1,H,W) of one picture (1,3,H,W)."""
        shown = self.processing.prepare(picture, pad=self.pad)
        depth = self._metres(shown)
        if self.flip:
            depth = (depth + self._metres(shown.flip(-1)).flip(-1)) / 2
        return self.processing.restore(depth[:, None].float(), *picture.shape[-2:], pad=self.pad)

    def _through_network(self, shown: Tensor) -> Tensor:
        return self.net(pixel_values=shown).predicted_depth


def zoedepth(
    *,
    variant: str = "nk",
    weights: str = "",
    flip: bool = True,
    pad: bool = True,
    revision: str | None = None,
    local_only: bool = False,
) -> ZoeDepthLabeler:
    """A ZoeDepth from weights.

    variant     which of the published ones: nk (chooses for every picture), n (rooms, NYU) or k (streets, KITTI)
    weights     "" = the registry's for the variant; or a hub id, a folder, an official .pt. They say themselves which
                variant they are
    local_only  take what the hub's cache holds and open no connection
    Raises ConfigError for another variant, WeightsError that says what is wrong with the weights and where.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"labeler.variant is one of {', '.join(VARIANTS)}, not {variant!r}.")
    name = weights or f"zoedepth-{variant}"
    path, served = find_weights(name, _FETCH, directions=_DIRECTIONS, revision=revision, local_only=local_only)
    folder = _folder_of(path)
    net, facts = load_network(folder)
    return ZoeDepthLabeler(net, processing=Preprocessing.read(folder), flip=flip, pad=pad, facts={**served, **facts})


def tiny() -> ZoeDepthLabeler:
    """An NK with random weights on pictures of about 64², CPU, under a second: for tests and the conformance checks."""
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ZoeDepthForDepthEstimation(ZoeDepthConfig(**_TINY.config()))
        for parameter in net.parameters():  # as initialised, its map is the same everywhere
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return ZoeDepthLabeler(net, processing=Preprocessing((64, 96)), facts={"weights": "tiny, random"})


def _folder_of(path: Path) -> Path:
    if path.is_dir():
        return path
    if path.suffix not in _CHECKPOINTS:
        raise WeightsError(f"{path} is neither a folder nor an official checkpoint ({' or '.join(_CHECKPOINTS)}).")
    return convert_into_cache(path)
