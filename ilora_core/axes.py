"""Are the axes right? Statistics over many maps that tell flipped normals and inverted depth from sound ones.

Each is a sum over pixels, so that pictures can be added one by one; agreements lie in [-1, 1], sound maps near 1.

    facing      mean n_z. What a camera sees faces it: below 0 in our frame, whatever the scene.
    integrable  with slopes p = n_x/|n_z| and q = n_y/|n_z| of a surface, ∂p/∂y = ∂q/∂x. If one of the two axes is
                mirrored, the products of both sides turn negative.
    along x, y  a surface that recedes to the right has n_x of the sign of ∂depth/∂x; so has n_y downwards. Exact for
                any perspective camera and any depth up to scale and shift.
    floors      mean n_y in the bottom third: floors and tables point up, below 0. True of rooms and streets.
    below       mean rank of depth in the bottom third minus elsewhere: the ground near the camera, below 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic, resize_map

__all__ = ["Agreement", "AxisEvidence"]

_SIDE = 96  # pixels of the shorter side that is looked at: enough for shapes, too coarse for noise
_STEEP = 0.2  # |n_z| below this: seen at a grazing angle, slopes explode
_LEAST = 20.0  # pixels of evidence without which nothing is said


@dataclass
class Agreement:
    """Σ product / Σ |product|, and how many pixels have a say."""

    together: float = 0.0
    either: float = 0.0
    count: float = 0.0

    def add(self, product: Tensor, where: Tensor) -> None:
        """product: any shape; where: bool, the same shape."""
        chosen = product[where].double()
        self.together += float(chosen.sum())
        self.either += float(chosen.abs().sum())
        self.count += float((chosen.abs() > 1e-4).sum())

    @property
    def value(self) -> float | None:
        """In [-1, 1], or None where too few pixels have a say."""
        return self.together / self.either if self.count >= _LEAST and self.either > 0 else None


@dataclass
class AxisEvidence:
    """What is known of a folder's normals and depth so far."""

    facing: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    below: list[float] = field(default_factory=list)
    integrable: Agreement = field(default_factory=Agreement)
    along_x: Agreement = field(default_factory=Agreement)
    along_y: Agreement = field(default_factory=Agreement)

    def add(self, normals: tuple[Tensor, Tensor] | None, depth: tuple[Tensor, Tensor] | None, kind: Intrinsic) -> None:
        """One picture's maps, (C,H,W) with (1,H,W); `kind` is the depth's intrinsic."""
        small_normals = None if normals is None else _small(NORMALS, *normals)
        small_depth = None if depth is None else _small(DEPTH, *depth)
        if small_normals is not None:
            self._add_normals(*small_normals)
        if small_depth is not None:
            away = -small_depth[0] if kind.kind == "affine_disparity" else small_depth[0]
            self._add_depth(away, small_depth[1])
            if small_normals is not None:
                self._cross(small_normals, away, small_depth[1])

    def _add_normals(self, n: Tensor, valid: Tensor) -> None:
        if not valid.any():
            return
        self.facing.append(float(n[2][valid].mean()))
        bottom = valid.clone()
        bottom[: valid.shape[0] * 2 // 3] = False
        if bottom.any():
            self.floors.append(float(n[1][bottom].mean()))
        steady = valid & (n[2].abs() > _STEEP)
        p, q = (n[axis] / n[2].abs().clamp(min=_STEEP) for axis in (0, 1))
        # Differences over the same 2×2 pixels, so that both belong to one point.
        p_down = (p[1:, :-1] + p[1:, 1:] - p[:-1, :-1] - p[:-1, 1:]) / 2
        q_right = (q[:-1, 1:] + q[1:, 1:] - q[:-1, :-1] - q[1:, :-1]) / 2
        whole = steady[1:, 1:] & steady[1:, :-1] & steady[:-1, 1:] & steady[:-1, :-1]
        self.integrable.add(p_down.clamp(-1, 1) * q_right.clamp(-1, 1), whole)

    def _add_depth(self, away: Tensor, valid: Tensor) -> None:
        bottom = valid.clone()
        bottom[: valid.shape[0] * 2 // 3] = False
        rest = valid & ~bottom
        if not bottom.any() or not rest.any() or away[valid].max() == away[valid].min():
            return
        # Ranks: the same for metres, disparity and anything up to scale and shift. Equal depths share a rank.
        _, where, counts = away[valid].unique(return_inverse=True, return_counts=True)
        rank = torch.zeros_like(away)
        rank[valid] = ((counts.cumsum(0) - counts / 2) / counts.sum())[where].to(rank.dtype)
        self.below.append(float(rank[bottom].mean() - rank[rest].mean()))

    def _cross(self, normals: tuple[Tensor, Tensor], away: Tensor, valid: Tensor) -> None:
        n, seen = normals
        if n.shape[-2:] != away.shape or not valid.any():
            return
        whole = valid & seen
        spread = float(away[valid].max() - away[valid].min())
        for agreement, axis, dim in ((self.along_x, 0, 1), (self.along_y, 1, 0)):
            length = away.shape[dim] - 2
            before, after = away.narrow(dim, 0, length), away.narrow(dim, 2, length)
            both = whole.narrow(dim, 0, length) & whole.narrow(dim, 1, length) & whole.narrow(dim, 2, length)
            step = after - before
            # A jump is the edge of something in front, and says nothing of slopes; a tiny step is rounding.
            slope = (step.abs() < 0.1 * spread) & (step.abs() > 1e-4 * spread)
            agreement.add(step.sign() * n[axis].narrow(dim, 1, length), both & slope)


def _small(intrinsic: Intrinsic, value: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """At most `_SIDE` pixels on the shorter side; depth as (H,W), normals (3,H,W), valid (H,W)."""
    height, width = value.shape[-2:]
    shrink = min(1.0, _SIDE / min(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small, ok = resize_map(intrinsic, value[None], valid[None], size)
    return (small[0] if intrinsic is NORMALS else small[0, 0]), ok[0, 0]
