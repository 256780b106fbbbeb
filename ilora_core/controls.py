"""What a result must be held against: a map that looks at no picture, one matrix on frozen features, the decoder's own limit.

mean map   m = mean over training maps, per pixel: what the layout of the data alone predicts
probe      W = argmin Σ w ‖W f − z‖² + λ‖W‖²: features f of the frozen network to the map's latent z, in closed form
ceiling    decode(encode(picture(map))): nothing that ends in this decoder can do better
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import Intrinsic
from ilora_core.protocols import Generator

__all__ = ["LinearProbe", "MeanMap", "ceiling", "mean_map"]


def mean_map(intrinsic: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    """Training maps (N,C,H,W) with Valid (N,1,H,W) -> the map (1,C,H,W) whose picture is their pictures' mean."""
    mean = MeanMap(intrinsic)
    mean.add(value, valid)
    return mean.map()


@torch.no_grad()
def ceiling(generator: Generator, intrinsic: Intrinsic, value: Tensor, valid: Tensor) -> Tensor:
    """Maps (B,C,H,W) after their own pictures went through the generator's encoder and decoder."""
    picture = intrinsic.to_picture(value, valid)
    return intrinsic.from_picture(generator.picture(generator.encode(picture)).float().cpu())


@dataclass
class MeanMap:
    """`mean_map` of maps that come in batches."""

    intrinsic: Intrinsic
    _sums: list[Tensor] = field(default_factory=list)

    def add(self, value: Tensor, valid: Tensor) -> None:
        """Maps (B,C,H,W) with Valid (B,1,H,W)."""
        pictures = self.intrinsic.to_picture(value, valid)
        weight = valid.to(pictures.dtype)
        sums = [(pictures * weight).sum(0, keepdim=True), weight.sum(0, keepdim=True)]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums

    def map(self) -> Tensor:
        """The map (1,C,H,W) so far."""
        summed, weight = self._sums
        return self.intrinsic.from_picture(summed / weight.clamp(min=1))


@dataclass(frozen=True)
class LinearProbe:
    """One matrix from features to latents, the same at every place. weights (K+1,C); mean and std (1,K,1,1)."""

    weights: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, features: Tensor, latents: Tensor, weight: Tensor, *, ridge: float = 1e-2) -> LinearProbe:
        """features (N,K,h,w), latents (N,C,h,w), weight (N,1,h,w), zero where a latent does not count."""
        if features.shape[-2:] != latents.shape[-2:]:
            raise DataError(f"features are {tuple(features.shape[-2:])}, latents {tuple(latents.shape[-2:])}.")
        mean, std = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True) + 1e-6
        counts = weight.flatten().bool()
        rows, goal = _rows((features - mean) / std)[counts], latents.movedim(1, -1).flatten(0, 2).double()[counts]
        gram = rows.T @ rows / len(rows)
        gram += ridge * torch.eye(len(gram), dtype=gram.dtype)
        return cls(torch.linalg.solve(gram, rows.T @ goal / len(rows)), mean, std)

    def __call__(self, features: Tensor) -> Tensor:
        """Features (B,K,h,w) -> latents (B,C,h,w)."""
        batch, _, height, width = features.shape
        latents = _rows((features - self.mean) / self.std) @ self.weights
        return latents.float().reshape(batch, height, width, -1).movedim(-1, 1)


def _rows(x: Tensor) -> Tensor:
    """(N,K,h,w) -> (N·h·w, K+1) in float64, the last column one."""
    rows = x.movedim(1, -1).flatten(0, 2).double()
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
