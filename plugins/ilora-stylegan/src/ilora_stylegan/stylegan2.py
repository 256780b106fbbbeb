"""StyleGAN2: a constant grows into an image, block by block (Karras et al. 2019, arXiv 1912.04958).

    b4    const -> conv1                    b_r    conv0 (up 2) -> conv1
    skip    image <- up2(image) + torgb(x)  in every block
    orig    image <- torgb(x)               in the last one
    resnet  x <- (up2(skip x) + conv1(conv0 x)) / √2, torgb in the last block

Block b_r takes the styles from slot 2 log2(r) - 5 on (b4 from 0); a torgb shares its slot with the next block's conv0.
State keys are the official ones; constant gains are folded into the weights (`ilora_stylegan.folding`), and
`learning_rate_groups` gives the optimiser back what that takes from the equalised learning rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds, noise_like
from ilora_stylegan.configs import StyleGAN2Config
from ilora_stylegan.folding import MAPPING_LR
from ilora_stylegan.mapping import Mapping
from ilora_stylegan.modulated import ModulatedLayer, ToRGB, without_autocast
from ilora_stylegan.resample import fir, upsample2
from ilora_stylegan.schedules2 import stylegan2_config

__all__ = ["StyleGAN2", "initialise", "learning_rate_groups", "stylegan2_config"]

ARCHITECTURES = ("skip", "orig", "resnet")
NOISES = ("const", "random", "none")


class StyleGAN2(nn.Module):
    """Mapping and synthesis of a StyleGAN2Config; a fresh one is initialised with seed 0.

    Raises ConfigError for a configuration that does not hang together.
    """

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        _check(config)
        self.config = config
        self.resolution, self.num_ws = config.resolution, config.mapping.num_ws
        self.z_dim, self.c_dim, self.w_dim = config.mapping.z_dim, config.mapping.c_dim, config.mapping.w_dim
        self.synthesis = _Synthesis(config)
        self.mapping = Mapping(config.mapping)
        initialise(self, 0)

    def forward(
        self,
        ws: Tensor,
        *,
        noise: str = "const",
        noise_seed: Sequence[int] | Tensor | None = None,
        up_to: int | None = None,
    ) -> Tensor:
        """Raw image, float32 (N,img_channels,R,R), nominally in [-1,1] and not clamped.

        ws           (N,num_ws,w_dim), from `mapping`
        noise        "const": the network's own; "none"; "random": fresh, sample i's from noise_seed[i] alone
        noise_seed  N integers, for "random"
        up_to        stop at the block of this resolution and return the image there (architecture "skip" only)
        Raises ConfigError for settings that do not fit.
        """
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (self.num_ws, self.w_dim):
            raise ConfigError(f"styles are (N,{self.num_ws},{self.w_dim}) here, not {tuple(ws.shape)}.")
        if noise not in NOISES:
            raise ConfigError(f"noise is one of {', '.join(NOISES)}, not {noise!r}.")
        if noise == "random" and (noise_seed is None or len(noise_seed) != len(ws)):
            raise ConfigError('noise="random" needs noise_seed, one integer per sample.')
        if up_to is not None:
            reachable = [4 << level for level in range(len(self.config.channels))]
            if up_to not in reachable or (up_to != self.resolution and self.config.architecture != "skip"):
                raise ConfigError(
                    f"up_to={up_to}: this {self.config.architecture} network has an image at "
                    f"{', '.join(map(str, reachable)) if self.config.architecture == 'skip' else self.resolution}."
                )
        seeds = noise_seed.tolist() if isinstance(noise_seed, Tensor) else list(noise_seed or ())
        return self.synthesis(ws, noise, seeds, up_to or self.resolution)


class _Synthesis(nn.Module):
    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.resolutions = [4 << level for level in range(len(config.channels))]
        self._taps = fir(config.resample_kernel)
        for level, resolution in enumerate(self.resolutions):
            self.add_module(f"b{resolution}", _Block(config, level))

    def forward(self, ws: Tensor, noise: str, seeds: Sequence[int], up_to: int) -> Tensor:
        x, image, slot = None, None, 0
        for resolution in self.resolutions:
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, _Block)
            noises = _noises(block, noise, seeds, len(ws), slot)
            x = block(x, ws[:, slot:], noises)
            slot += len(noises)
            if block.torgb is not None:
                fresh = block.torgb(x, ws[:, slot])
                with without_autocast(fresh):  # the image is a sum over all resolutions: rounding would add up
                    image = fresh if image is None else upsample2(image, self._taps) + fresh
            if resolution == up_to:
                break
        assert image is not None
        return image


def _noises(block: _Block, noise: str, seeds: Sequence[int], n: int, slot: int) -> list[Tensor | None]:
    """What each of the block's layers adds, in order; "random" of sample i and slot k comes from (seeds[i], k)."""
    if noise == "none":
        return [None] * len(block.layers)
    if noise == "const":
        return [layer.noise_const for layer in block.layers]
    return [
        noise_like(
            layer.noise_const.expand(n, 1, layer.resolution, layer.resolution),
            [mix_seeds(seed, slot + index) for seed in seeds],
        )
        for index, layer in enumerate(block.layers)
    ]


class _Block(nn.Module):
    """const or conv0, conv1, torgb, and skip where the architecture has one."""

    def __init__(self, config: StyleGAN2Config, level: int):
        super().__init__()
        outputs, inputs = config.channels[level], config.channels[level - 1]
        w_dim, resolution = config.mapping.w_dim, 4 << level
        settings: dict[str, Any] = {
            "resolution": resolution,
            "clamp": config.clamp,
            "kernel": config.resample_kernel,
        }
        self.residual = config.architecture == "resnet" and level > 0
        self._taps = fir(config.resample_kernel)
        if level == 0:
            self.const = nn.Parameter(torch.empty(outputs, resolution, resolution))
            self.conv0 = None
        else:
            self.conv0 = ModulatedLayer(inputs, outputs, w_dim, up=True, **settings)
        self.conv1 = ModulatedLayer(outputs, outputs, w_dim, up=False, **settings)
        shown = config.architecture == "skip" or resolution == config.resolution
        self.torgb = ToRGB(outputs, config.img_channels, w_dim, clamp=config.clamp) if shown else None
        if self.residual:
            self.skip = _Shortcut(inputs, outputs)

    @property
    def layers(self) -> list[ModulatedLayer]:
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def forward(self, x: Tensor | None, ws: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        """(N,C_in,r/2,r/2) -> (N,C_out,r,r); the first block takes no x. ws (N,…,w_dim): conv0, conv1, …"""
        if self.conv0 is None:
            const = self.const.unsqueeze(0)
            return self.conv1(const.expand(len(ws), -1, -1, -1), ws[:, 0], noises[0])
        assert x is not None
        if not self.residual:
            return self.conv1(self.conv0(x, ws[:, 0], noises[0]), ws[:, 1], noises[1])
        shortcut = upsample2(self.skip(x), self._taps) * math.sqrt(0.5)
        deep = self.conv1(self.conv0(x, ws[:, 0], noises[0]), ws[:, 1], noises[1], gain=math.sqrt(0.5))
        return shortcut + deep


class _Shortcut(nn.Module):
    """1x1 convolution without a bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


def initialise(net: StyleGAN2, seed: int) -> None:
    """Fill every weight as the official code does, in law, with gains folded; `w_avg` becomes 0. Nothing on meta.

    A tensor depends on `seed` and on its place in the state alone, not on the device or the global generator.
    """
    with torch.no_grad():
        for index, (key, value) in enumerate(net.state_dict(keep_vars=True).items()):
            if not value.is_meta:
                generator = torch.Generator().manual_seed(mix_seeds(seed, index))
                _fill(value, key, generator)


def _fill(value: Tensor, key: str, generator: torch.Generator) -> None:
    if key.endswith("affine.bias"):
        value.fill_(1)
    elif key.endswith(("bias", "noise_strength", "w_avg")):
        value.zero_()
    else:
        # The mapping's learning-rate multiplier cancels: stored weights have the standard deviation 1 / multiplier.
        value.copy_(torch.randn(value.shape, generator=generator) * _fan_in_gain(key, value))


def _fan_in_gain(key: str, value: Tensor) -> float:
    """1 / sqrt(fan-in) where the equalised learning rate scales a weight at run time, else 1."""
    scaled = key.endswith(("torgb.weight", "skip.weight", "affine.weight"))
    return value[0].numel() ** -0.5 if scaled or re.fullmatch(r"mapping\..*\.weight", key) else 1.0


def learning_rate_groups(net: StyleGAN2, lr: float, *, eps: float = 1e-8) -> list[dict[str, Any]]:
    """Groups for `torch.optim.Adam` that step as it would on the official, unfolded weights.

    With W = g V and Adam on V: W moves by lr g m / (sqrt(v) + eps / g) in the moments of W's own gradient. g is 1/sqrt(fan-in)
    for linear layers, ToRGB and shortcuts, times 0.01 in the mapping's fc layers (0.01 for their biases), else 1.
    (Karras et al. 2017, arXiv 1710.10196, section 4.1.) Parameters that are frozen are left out.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for key, parameter in net.named_parameters():
        gain = _fan_in_gain(key, parameter)
        if re.match(r"mapping\.fc\d+\.", key):
            gain *= MAPPING_LR
        if parameter.requires_grad:
            groups.setdefault(gain, []).append(parameter)
    return [{"params": found, "lr": lr * gain, "eps": eps / gain} for gain, found in groups.items()]


def _check(config: StyleGAN2Config) -> None:
    levels = len(config.channels)
    if config.architecture not in ARCHITECTURES:
        raise ConfigError(f"a StyleGAN2's architecture is {', '.join(ARCHITECTURES)}, not {config.architecture!r}.")
    if levels < 2 or config.resolution != 2 << levels or config.mapping.num_ws != 2 * levels:
        raise ConfigError(
            f"{config.resolution} pixels need channels at 4, 8, …, {config.resolution} and two styles each, "
            f"not {levels} widths and {config.mapping.num_ws} styles."
        )
