"""The critic of the rooms StyleGAN2: residual blocks, colour read in at every resolution, minibatch deviation at the end.

    x_R = rgb_R(image);   x_{r/2} = g_r · block_r(x_r) + rgb_{r/2}(image halved down to r/2);   score = head([x_4, deviation])
    block(x) = (conv(half(conv(x))) + conv1x1(half(x))) / √2

Because every resolution reads the image itself, the critic works at any size up to its own, and a resolution whose g_r is
zero changes nothing: training may start small and grow without a jump. Weights are unit normal and scaled at run time by
1/sqrt(fan-in). (Residual critic and colour inputs: Karras et al. 2020; minibatch deviation: Karras et al. 2018.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Discriminator", "minibatch_deviation"]


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of a unit normal input."""
    return F.leaky_relu(x, 0.2) * 2**0.5


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """(B,C,H,W) -> (B,C+1,H,W): the standard deviation across groups of samples, averaged to one number per group.

    Sample i belongs to group i modulo the number of groups; a batch that `group` does not divide is one group.
    """
    b, _, h, w = x.shape
    size = group if b % group == 0 else b
    spread = x.float().unflatten(0, (size, b // size)).var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, spread.to(x.dtype).repeat(size).view(b, 1, 1, 1).expand(b, 1, h, w)], 1)


class Scaled(nn.Module):
    """A convolution (kernel k, padding k//2) or, for k = 0, a linear layer; weights unit normal, scaled at run time."""

    def __init__(self, inputs: int, outputs: int, k: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(k, k)[: 2 * (k > 0)]))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        return F.linear(x, weight, self.bias) if weight.ndim == 2 else F.conv2d(x, weight, self.bias, padding="same")


class Block(nn.Module):
    """(B,inputs,r,r) -> (B,outputs,r/2,r/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Scaled(inputs, inputs, 3)
        self.conv1 = Scaled(inputs, outputs, 3)
        self.skip = Scaled(inputs, outputs, 1, bias=False)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        inner = activate(self.conv1(F.avg_pool2d(activate(self.conv0(x)), 2)))
        return (inner + self.skip(F.avg_pool2d(x, 2))) * (self.gain * 0.5**0.5)


class Discriminator(nn.Module):
    """image (B,3,r,r) with values about [-1,1], r = 8, 16, …, resolution -> scores (B,), high = real.

    channels: widths at 4, 8, …, resolution. start: the resolution that training starts at; higher blocks begin at gain 0.
    """

    def __init__(self, channels: tuple[int, ...], *, start: int | None = None, seed: int = 0) -> None:
        super().__init__()
        sizes = [4 * 2**i for i in range(len(channels))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = list(zip(sizes, channels, strict=True))
            self.colours = nn.ModuleDict({f"b{r}": Scaled(3, width, 1) for r, width in pairs})
            self.blocks = nn.ModuleDict({f"b{r}": Block(w, channels[i]) for i, (r, w) in enumerate(pairs[1:])})
            self.last = Scaled(channels[0] + 1, channels[0], 3)
            self.dense = Scaled(channels[0] * 16, channels[0], 0)
            self.score = Scaled(channels[0], 1, 0)
        for r in sizes[1:]:
            if start is not None and r > start:
                nn.init.zeros_(self.blocks[f"b{r}"].get_parameter("gain"))

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[-1]
        x = activate(self.colours[f"b{size}"](image))
        while size > 4:
            image = F.avg_pool2d(image, 2)
            x = self.blocks[f"b{size}"](x)
            size //= 2
            x = x + activate(self.colours[f"b{size}"](image))
        x = activate(self.last(minibatch_deviation(x)))
        return self.score(activate(self.dense(x.flatten(1)))).squeeze(1)
