"""A patch discriminator: one score per patch of a picture, and the hinge losses that go with it.

    L_D = mean max(0, 1 - D(x)) + mean max(0, 1 + D(x̂))          L_G = - mean D(x̂)

Isola et al. 2017 (patches); Lim & Ye 2017 (hinge); Esser et al. 2021 use both for VQGAN, and weigh L_G by the ratio of the
two losses' gradients at the decoder's last layer (`balance`), so that neither drowns the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PatchDiscriminator", "balance", "discriminator_loss", "generator_loss"]


class PatchDiscriminator(nn.Module):
    """(B,3,H,W) in [-1,1] -> scores (B,1,H/2^levels,W/2^levels). Group normalisation: no statistics across pictures."""

    def __init__(self, width: int = 32, levels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, levels):
            before, after = width * 2 ** (level - 1), width * 2**level
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * 2 ** (levels - 1), 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge: 0 once real patches score above 1 and fake ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What the decoder lowers."""
    return -fake.mean()


def balance(wanted: Tensor, other: Tensor, last: Tensor, *, limit: float = 1e3) -> Tensor:
    """‖∂wanted/∂last‖ / ‖∂other/∂last‖, without a gradient: times this, `other` pulls at `last` as hard as `wanted`."""
    first, second = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (wanted, other))
    return (first / (second + 1e-4)).clamp(0, limit).detach()
