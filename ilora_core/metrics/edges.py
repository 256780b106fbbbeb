"""Whether what a map draws stands where the picture has it: edge agreement.

    E(x)       pixels whose slope √(Σ_c |∂_x c|² + |∂_y c|²), after a Gaussian of one pixel, is among x's largest 10 %
    agreement  | E(map) ∩ E⁺(picture) | / | E(map) |,   E⁺: the picture's largest 20 %, grown by `reach` pixels

A map's edges should be edges of its picture, though not the other way round (texture has none in depth). By chance they are as
often as E⁺ covers the picture: compare with the same maps beside other pictures. It says nothing of the map's values.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ilora_core.tiling import low_pass

__all__ = ["edge_agreement"]

_MAP, _PICTURE = 0.1, 0.2


def edge_agreement(drawn: Tensor, picture: Tensor, *, reach: int = 1) -> Tensor:
    """(B,) in [0,1] for maps (B,C,H,W) and their pictures (B,3,H,W); NaN for a map without an edge."""
    if drawn.shape[-2:] != picture.shape[-2:] or len(drawn) != len(picture):
        raise ValueError(f"maps {tuple(drawn.shape)} and pictures {tuple(picture.shape)} are not of one size.")
    own, there = _edges(drawn, _MAP), _edges(picture, _PICTURE)
    near = F.max_pool2d(there.float(), 2 * reach + 1, stride=1, padding=reach) > 0
    return (own & near).sum((1, 2, 3)) / own.sum((1, 2, 3))


def _edges(value: Tensor, share: float) -> Tensor:
    """bool (B,1,H,W): the strongest `share` of the pixels, as far as there is any slope."""
    smooth = F.pad(low_pass(value.float(), 1.0), (1, 1, 1, 1), mode="replicate")
    across = (smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]).square()
    down = (smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]).square()
    slope = (across + down).sum(1, keepdim=True).sqrt()
    ranked = slope.flatten(1).sort(1, descending=True).values
    least = ranked[:, max(0, round(share * ranked.shape[1]) - 1)].view(-1, 1, 1, 1)
    return (slope >= least) & (slope > 1e-6)
