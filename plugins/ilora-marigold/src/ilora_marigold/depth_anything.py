"""Depth Anything V2 as a labeler: disparity up to scale and shift, or metres, by what its weights say they were made for.

    in    resize (bicubic, antialiased) by the one factor that changes the picture less, of those to 518; sides rounded to
          multiples of 14; ImageNet's mean and standard deviation
    out   relative: 1/depth up to scale and shift, large = near, which is what ilora calls "affine_disparity". It is not turned
          into depth: the unknown shift makes 1/x of it no affine depth, and the picture that a generator learns, near = bright,
          follows from disparity as it is
          metric: metres
    back  resize (bicubic)

Depth Anything V2: Yang et al. 2024 (arXiv 2406.09414).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.files import read_json
from ilora_core.intrinsics import DEPTH, Intrinsic
from ilora_core.pretrained import fingerprint, load_pretrained
from ilora_marigold.hub import MODEL, find_weights

__all__ = ["DepthAnythingLabeler", "Preprocessing", "depth_anything_v2", "tiny"]

_SIZES = ("small", "base", "large")
_KINDS = ("relative", "metric-indoor", "metric-outdoor")
_DISPARITY = replace(DEPTH, kind="affine_disparity", unit="relative")


@dataclass(frozen=True)
class Preprocessing:
    """size: (H, W) that one side of a picture is brought to; patch: its sides are multiples of this."""

    size: tuple[int, int] = (518, 518)
    patch: int = 14
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def read(cls, folder: Path, patch: int) -> Preprocessing:
        """From a folder's preprocessor_config.json, or the published values where there is none."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls(patch=patch)
        try:
            data = read_json(path)
            size, usual = data.get("size", {"height": 518, "width": 518}), cls()
            mean = tuple(map(float, data.get("image_mean", usual.mean)))
            std = tuple(map(float, data.get("image_std", usual.std)))
            return cls((int(size["height"]), int(size["width"])), patch, mean, std)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{path} is not Depth Anything's ({type(error).__name__}: {error}). Restore it."
            ) from error

    def prepare(self, picture: Tensor) -> Tensor:
        """Picture (1,3,H,W) in [0,1] -> what the network takes."""
        size = self.net_size(*picture.shape[-2:])
        resized = F.interpolate(picture, size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = (picture.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (resized - mean) / std

    def net_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of what the network sees."""
        down, right = self.size[0] / height, self.size[1] / width
        factor = right if abs(1 - right) < abs(1 - down) else down
        return self._rounded(factor * height), self._rounded(factor * width)

    def _rounded(self, side: float) -> int:
        return max(self.patch, round(side / self.patch) * self.patch)


class DepthAnythingLabeler:
    """Disparity or depth at the pictures' own size, from one picture at a time.

    net    transformers' DepthAnythingForDepthEstimation; its configuration says whether it is relative or metric
    facts  plain data for the provenance
    """

    version = "1"

    def __init__(
        self, net: nn.Module, *, processing: Preprocessing | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.net, self.processing = net.eval().requires_grad_(False), processing or Preprocessing()
        config: Any = net.config
        self.metric = config.depth_estimation_type == "metric"
        self.intrinsics: tuple[Intrinsic, ...] = (DEPTH if self.metric else _DISPARITY,)
        self.weights_hash = fingerprint(net, beside=[config.depth_estimation_type, config.max_depth])
        self.provenance = {**(facts or {}), "kind": self.intrinsics[0].kind}
        self._device = torch.device("cpu")
        self._answer: Callable[[Tensor], Tensor] = self._through_network

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Of pictures (B,3,H,W) in [0,1]: disparity, or metres where positive. What is not finite is not valid."""
        with torch.no_grad():
            value = torch.cat([self._one(picture[None]) for picture in pictures.to(self._device).float()])
        valid = torch.isfinite(value) & ((value > 0) if self.metric else torch.ones_like(value, dtype=torch.bool))
        return {"depth": (torch.where(valid, value, torch.zeros_like(value)).clamp(min=0), valid)}

    def to(self, device: torch.device | str) -> DepthAnythingLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        self.net.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: the network now answers with these true maps, picture after picture, in its own convention.

        Relative: near is large, by an unknown scale and shift. Metric: metres.
        """
        depth, asked = maps["depth"], 0
        told = depth if self.metric else 7 / depth + 1

        def tell(shown: Tensor) -> Tensor:
            nonlocal asked
            row = asked % len(told)
            asked += 1
            return F.interpolate(told[row : row + 1].to(shown), shown.shape[-2:], mode="bilinear")[:, 0]

        self._answer = tell

    def _one(self, picture: Tensor) -> Tensor:
        answer = self._answer(self.processing.prepare(picture))
        return F.interpolate(answer[:, None].float(), picture.shape[-2:], mode="bicubic", align_corners=False)

    def _through_network(self, shown: Tensor) -> Tensor:
        return self.net(pixel_values=shown).predicted_depth


def depth_anything_v2(
    *,
    variant: str = "small",
    kind: str = "relative",
    weights: str = "",
    revision: str | None = None,
    local_only: bool = False,
) -> DepthAnythingLabeler:
    """A Depth Anything from weights.

    variant     small (Apache-2.0), base or large (non-commercial)
    kind        relative, metric-indoor (to 20 m) or metric-outdoor (to 80 m)
    weights     "" = the registry's for variant and kind; or a hub id or folder, which say themselves what they are
    local_only  take what the hub's cache holds and open no connection
    """
    for name, value, known in (("variant", variant, _SIZES), ("kind", kind, _KINDS)):
        if value not in known:
            raise ConfigError(f"labeler.{name} is one of {', '.join(known)}, not {value!r}.")
    published = f"depth-anything-v2-{variant}" if kind == "relative" else f"depth-anything-v2-{kind}-{variant}"
    folder, served = find_weights(weights or published, MODEL, revision=revision, local_only=local_only)
    net = _load(folder)
    return DepthAnythingLabeler(net, processing=Preprocessing.read(folder, net.config.patch_size), facts=served)


def tiny(*, kind: str = "relative") -> DepthAnythingLabeler:
    """Random weights on pictures of about 70², CPU, under a second: for tests and the conformance checks."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config={
            "model_type": "dinov2",
            "image_size": 70,
            "patch_size": 14,
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
        },
        reassemble_hidden_size=32,
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type="relative" if kind == "relative" else "metric",
        max_depth=1 if kind == "relative" else 20,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DepthAnythingForDepthEstimation(config)
        for parameter in net.parameters():  # as initialised, its map is the same everywhere
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        nn.init.ones_(net.head.conv3.bias)  # pyright: ignore[reportArgumentType]
    return DepthAnythingLabeler(net, processing=Preprocessing((70, 70)), facts={"weights": "tiny, random"})


def _load(folder: Path) -> Any:
    from transformers import DepthAnythingForDepthEstimation

    config = folder / "config.json"
    if not config.is_file():
        raise WeightsError(f"{folder} holds no config.json: it is no folder of transformers.")
    if (found := read_json(config).get("model_type")) != "depth_anything":
        raise WeightsError(f"{config} describes a {found}, not a depth_anything.")
    return load_pretrained(DepthAnythingForDepthEstimation, folder)
