"""What a result must be held against: a map that looks at no picture, one matrix on frozen features, the decoder's own limit.

mean map   m = mean over training maps, per pixel: what the layout of the data alone predicts
probe      W = argmin mean ‖W f − z‖² + λ‖W‖²: features f of the frozen network, of mean 0 and variance 1, to the map's latent
           or pixels z, in closed form, over the places that count. Linear probes of a diffusion model's activations: Chen,
           Viégas and Wattenberg (arXiv 2306.05720)
ceiling    decode(encode(picture(map))): nothing that ends in this decoder can do better
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilora_core.errors import DataError
from ilora_core.intrinsics import Intrinsic
from ilora_core.protocols import Generator

__all__ = ["LinearProbe", "MeanMap", "ProbeMoments", "ceiling", "mean_map"]

RIDGE = 1e-2
"""Of features of variance one."""


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
    """One matrix from features to values, the same at every place. weights (K+1,C), float64; mean and std (1,K,1,1)."""

    weights: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, features: Tensor, values: Tensor, weight: Tensor, *, ridge: float = RIDGE) -> LinearProbe:
        """features (N,K,h,w), values (N,C,h,w), weight (N,1,h,w), zero where a value does not count."""
        moments = ProbeMoments()
        moments.add(features, values, weight)
        return moments.solve(ridge=ridge)

    def __call__(self, features: Tensor) -> Tensor:
        """Features (B,K,h,w) -> values (B,C,h,w)."""
        batch, _, height, width = features.shape
        values = _rows((features - self.mean) / self.std) @ self.weights
        return values.float().reshape(batch, height, width, -1).movedim(-1, 1)

    def to(self, device: torch.device | str) -> LinearProbe:
        """The same on a device that knows float64."""
        return LinearProbe(self.weights.to(device), self.mean.to(device), self.std.to(device))


class ProbeMoments:
    """What `LinearProbe.fit` needs of features that come in batches: (K+1)² sums, however many there are.

    All are of features minus the mean of the first batch, in float64, so that little cancels when mean and standard deviation
    are taken out afterwards: with x = (f, 1) and the normalised x' = T x, Σ x'x'ᵀ = T (Σ x xᵀ) Tᵀ.
    """

    def __init__(self) -> None:
        self.pictures = self.places = self.counted = 0
        """How many were added; counted: places that the fit looks at."""
        self._origin = torch.empty(0)

    def add(self, features: Tensor, values: Tensor, weight: Tensor) -> None:
        """features (B,K,h,w), values (B,C,h,w), weight (B,1,h,w), zero where a value does not count."""
        if features.shape[-2:] != values.shape[-2:]:
            raise DataError(f"features are {tuple(features.shape[-2:])}, values {tuple(values.shape[-2:])}.")
        x, goal, counts = _rows(features), values.movedim(1, -1).flatten(0, 2), weight.flatten().bool()
        if not self.places:
            self._origin = x.mean(0)
            self._origin[-1] = 0  # the ones stay ones
            k, c = x.shape[1], goal.shape[1]
            self._all, self._square, self._gram, self._cross = (x.new_zeros(s) for s in (k, k, (k, k), (k, c)))
        x -= self._origin
        self._all += x.sum(0)
        self._square += x.square().sum(0)
        x, goal = (x, goal.double()) if counts.all() else (x[counts], goal[counts].double())
        self._gram += x.T @ x
        self._cross += x.T @ goal
        self.pictures, self.places = self.pictures + len(features), self.places + len(counts)
        self.counted += len(x)

    def solve(self, *, ridge: float = RIDGE) -> LinearProbe:
        """The probe. Mean and standard deviation are of all places, the fit is over those that count."""
        if self.counted < 2:
            raise DataError("a probe needs places to learn from, and all of these are masked.")
        mean = (self._all / self.places)[:-1]
        std = ((self._square[:-1] - self.places * mean.square()).clamp(min=0) / (self.places - 1)).sqrt() + 1e-6
        normalise = torch.diag(torch.cat([1 / std, std.new_ones(1)]))
        normalise[:-1, -1] = -mean / std
        gram = normalise @ self._gram @ normalise.T / self.counted
        gram += ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram, normalise @ self._cross / self.counted)
        mean = mean + self._origin[:-1]
        return LinearProbe(weights, *(part.float().view(1, -1, 1, 1) for part in (mean, std)))


def _rows(x: Tensor) -> Tensor:
    """(N,K,h,w) -> (N·h·w, K+1) in float64, the last column one."""
    rows = x.movedim(1, -1).flatten(0, 2).double()
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
