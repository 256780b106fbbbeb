"""A codebook learnt as the moving mean of what falls to each code (van den Oord et al. 2017, appendix A.1).

    N_i ← γ N_i + (1 - γ) n_i        S_i ← γ S_i + (1 - γ) Σ z            e_i = S_i / N_i

It starts at the centroids of k-means on the encoder's outputs. A code that hardly anything falls to (N_i below a share of
the even one) is moved onto an output of the present batch, drawn at random, and begins anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Codebook", "kmeans", "nearest"]


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """(M,d), (K,d) -> the index of the nearest code for each vector, (M,). float32, whatever the inputs."""
    vectors, codes = vectors.float(), codes.float()
    return (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(1)


def kmeans(vectors: Tensor, k: int, rng: torch.Generator, *, rounds: int = 10) -> Tensor:
    """Centroids (K,d) of vectors (M,d); one that loses all its vectors is put onto a random one."""
    centres = vectors[_draw(len(vectors), k, rng)]
    for _ in range(rounds):
        counts, sums = _gather(vectors, nearest(vectors, centres), k)
        anew = vectors[_draw(len(vectors), k, rng)]
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), anew)
    return centres


class Codebook(nn.Module):
    """Counts and sums behind the vectors of a VQModel's `quantize.embedding`; parameters, so that a state holds them."""

    def __init__(self, codes: int, width: int, *, decay: float = 0.98, dead: float = 0.03) -> None:
        super().__init__()
        self.decay, self.dead = decay, dead
        self.counts = nn.Parameter(torch.zeros(codes), requires_grad=False)
        self.sums = nn.Parameter(torch.zeros(codes, width), requires_grad=False)

    @property
    def started(self) -> bool:
        return bool(self.counts.sum() > 0)

    @torch.no_grad()
    def start(self, vectors: Tensor, embedding: Tensor, rng: torch.Generator, *, batch: int) -> None:
        """k-means on vectors (M,d); `embedding` (K,d) is overwritten. batch: vectors that `update` will see at once."""
        centres = kmeans(vectors.float(), len(embedding), rng)
        counts, _ = _gather(vectors, nearest(vectors, centres), len(centres))
        self.counts.copy_((counts * batch / len(vectors)).clamp(min=1e-3))
        self.sums.copy_(centres * self.counts[:, None])
        embedding.copy_(centres)

    @torch.no_grad()
    def update(
        self, vectors: Tensor, index: Tensor, embedding: Tensor, rng: torch.Generator, *, revive: bool = True
    ) -> None:
        """One step of the moving mean; `revive` moves dead codes onto vectors of this batch."""
        counts, sums = _gather(vectors.float(), index, len(embedding))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        even = len(vectors) / len(embedding)
        chosen = vectors.float()[_draw(len(vectors), len(embedding), rng)]  # always drawn: a step's draws are fixed
        if revive:
            dead = (self.counts < self.dead * even)[:, None]
            self.sums.copy_(torch.where(dead, chosen * even, self.sums))
            self.counts.copy_(torch.where(dead[:, 0], torch.full_like(self.counts, even), self.counts))
        embedding.copy_(self.sums / self.counts[:, None].clamp(min=1e-6))


def _gather(vectors: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """How many vectors fall to each of k codes, and their sums."""
    counts = torch.zeros(k, device=vectors.device).index_add_(0, index, torch.ones_like(index, dtype=torch.float32))
    return counts, torch.zeros(k, vectors.shape[1], device=vectors.device).index_add_(0, index, vectors.float())


def _draw(n: int, k: int, rng: torch.Generator) -> Tensor:
    return torch.randint(n, (k,), generator=rng, device=rng.device)
