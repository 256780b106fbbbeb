"""Inversion of real pictures into W+: one w per slot, found by Adam on the picture's error (Abdal et al., arXiv 1904.03189).

    w* = argmin ‖G(w) − x‖² over scales 1, 1/2, 1/4, 1/8  [+ ‖φ(G(w)) − φ(x)‖²]  + λ mean ‖w_i − w̄‖²

φ: VGG-16 features (torchvision's weights, fetched on first use) where `perceptual` is asked for. The start is the mean w. An
inversion is an approximation: always state its PSNR beside a map that was drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.errors import ConfigError, MissingDependency, WeightsError

__all__ = ["Projection", "project"]

_SCALES = (1, 2, 4, 8)
_LAYERS = (3, 8, 15, 22)  # relu1_2, relu2_2, relu3_3, relu4_3 of torchvision's VGG-16
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Projection:
    """steps of Adam at rate `lr` (cosine decay), weight `spread` of the pull towards the mean w; perceptual: VGG-16 too."""

    steps: int = 500
    lr: float = 0.05
    spread: float = 1e-3
    perceptual: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.spread < 0:
            raise ConfigError("projection needs at least one step, a positive rate and a spread that is not negative.")


def project(net: Any, pictures: Tensor, settings: Projection, *, noise: str = "const") -> Tensor:
    """Pictures (B,3,R,R) in [0,1] -> w (B, num_ws, w_dim). One picture's w does not depend on the others."""
    target = pictures.float() * 2 - 1
    mean = net.mapping.w_avg.float()
    mean = mean.mean(0) if mean.ndim == 2 else mean
    start = mean.expand(len(pictures), net.num_ws, -1)
    features = _Vgg(target.device) if settings.perceptual else None
    wanted = features(target) if features else []
    w = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=settings.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    with torch.enable_grad():
        for _ in range(settings.steps):
            drawn = net(w, noise=noise).float()
            loss = _pixels(drawn, target) + settings.spread * (w - start).square().mean((1, 2))
            if features:
                loss = loss + sum(
                    (a - b).square().mean((1, 2, 3)) for a, b in zip(features(drawn), wanted, strict=True)
                )
            (w.grad,) = torch.autograd.grad(loss.sum(), w)
            optimizer.step()
            schedule.step()
    return w.detach()


def _pixels(drawn: Tensor, target: Tensor) -> Tensor:
    """Mean square at several scales, (B,)."""
    scales = [scale for scale in _SCALES if drawn.shape[-1] % scale == 0]
    return torch.stack(
        [(F.avg_pool2d(drawn, s) - F.avg_pool2d(target, s)).square().mean((1, 2, 3)) for s in scales]
    ).sum(0)


class _Vgg:
    """Features of torchvision's VGG-16 (weights: ImageNet, BSD-3-Clause), each position of unit length."""

    def __init__(self, device: torch.device):
        try:
            from torchvision.models import VGG16_Weights, vgg16  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependency("perceptual projection needs torchvision: pip install torchvision.") from error
        try:
            stack: Any = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features
        except OSError as error:
            raise WeightsError(
                f"torchvision's VGG-16 weights could not be fetched ({error}). Connect once, or leave perceptual out."
            ) from error
        self.stack: nn.Module = stack[: max(_LAYERS) + 1].to(device).eval().requires_grad_(False)
        self.mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(_STD, device=device).view(1, 3, 1, 1)

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """Pictures in [-1,1] -> one tensor per layer."""
        x, caught = ((pictures + 1) / 2 - self.mean) / self.std, []
        for number, layer in enumerate(self.stack.children()):
            x = layer(x)
            if number in _LAYERS:
                caught.append(F.normalize(x, dim=1, eps=1e-8))
        return caught
