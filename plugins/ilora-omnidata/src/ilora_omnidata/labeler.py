"""Omnidata v2 as labelers: any picture in, its normals or its affine depth out, at the picture's own size.

A picture is resized whole (shorter side 384, the other to a multiple of 32) and not cut as in the official demo, so that
the label covers all of it; the answer is resized back by its valid pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic, resize_map
from ilora_omnidata.network import STRIDE, TINY, DPTHybrid
from ilora_omnidata.pictures import TASKS, Task, to_network

__all__ = ["OmnidataLabeler", "depth", "normal", "tiny_depth", "tiny_normal"]


class OmnidataLabeler:
    """One of the two networks.

    net           gives raw answers (B,C,h,w) to normalised pictures whose sides are multiples of 32
    task          which of the two it is
    size          shorter side that the network sees, a multiple of 32
    weights_hash  fingerprint of the weights, which keeps cached labels apart
    """

    version = "1"

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        *,
        size: int = 384,
        weights_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if size < STRIDE or size % STRIDE:
            raise ConfigError(f"labeler.size is a multiple of {STRIDE}, not {size}; the network was trained at 384.")
        self.net: Callable[[Tensor], Tensor] = net.eval().requires_grad_(False)
        self.task, self.size = task, size
        self.intrinsics: tuple[Intrinsic, ...] = (task.intrinsic,)
        self.weights_hash, self.provenance = weights_hash, dict(provenance or {})
        self._device = torch.device("cpu")

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Normals or depth of pictures (B,3,H,W) in [0,1], with Valid (B,1,H,W)."""
        size = (pictures.shape[-2], pictures.shape[-1])
        with torch.no_grad():
            answers = self.net(to_network(pictures.to(self._device).float(), self.task, self.size))
            value, valid = self.task.decode(answers.float())
            return {self.task.intrinsic.name: resize_map(self.task.intrinsic, value, valid, size)}

    def to(self, device: torch.device | str) -> OmnidataLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        if isinstance(self.net, nn.Module):
            self.net.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: answer with these true maps from now on, as Omnidata's documentation draws them.

        Normals: red = right, green = down, blue = away from the camera, each as (n + 1) / 2. Depth: black is nearest.
        """
        if self.task.name == "normal":
            answers = (maps["normals"] + 1) / 2
        else:
            near, far = maps["depth"].amin((1, 2, 3), keepdim=True), maps["depth"].amax((1, 2, 3), keepdim=True)
            answers = (maps["depth"] - near) / (far - near)
        self.net = lambda pictures: answers.to(pictures)


def normal(
    *, weights: str = "", size: int = 384, revision: str | None = None, local_only: bool = False
) -> OmnidataLabeler:
    """The normals network.

    weights     .ckpt, .pth, .safetensors, a folder with one, or a hub id; "" = registry.toml's omnidata-normal
    size        shorter side that the network sees
    revision    of a hub repository
    local_only  take what the hub's cache holds and open no connection
    Raises WeightsError that says what is wrong and where.
    """
    return _loaded("normal", weights, size, revision, local_only)


def depth(
    *, weights: str = "", size: int = 384, revision: str | None = None, local_only: bool = False
) -> OmnidataLabeler:
    """The depth network; settings as for `normal`, and "" = registry.toml's omnidata-depth."""
    return _loaded("depth", weights, size, revision, local_only)


def tiny_normal() -> OmnidataLabeler:
    """A narrow untrained normals network that sees 64²."""
    return _untrained(TASKS["normal"])


def tiny_depth() -> OmnidataLabeler:
    """A narrow untrained depth network that sees 64²."""
    return _untrained(TASKS["depth"])


def _loaded(name: str, weights: str, size: int, revision: str | None, local_only: bool) -> OmnidataLabeler:
    from ilora_omnidata.weights import find_network, load_network

    path, told = find_network(weights, name, revision=revision, local_only=local_only)
    net, digest = load_network(path, TASKS[name])
    return OmnidataLabeler(net, TASKS[name], size=size, weights_hash=digest, provenance=told)


def _untrained(task: Task) -> OmnidataLabeler:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DPTHybrid(task.channels, TINY)
    last = net.scratch.output_conv[4]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, 0.5)  # the middle of the range: at 0 the last ReLU silences half of it
    return OmnidataLabeler(net, task, size=64)
