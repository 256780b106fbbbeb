"""StyleGAN3 and StyleGAN-XL: Fourier features, then layers that treat their maps as samples of band-limited signals.

    input    sin(2π (f · p + φ)) on a grid of points p, moved by the style, mixed across channels
    layer    y = F(d · conv(x · s, W) / √m + b)         s = A w + b_s, one factor per input channel
             d = (Σ_ikl (W_oikl s_i)² + ε)^-½           F: `ilora_stylegan.filtered`, m: the trained input power
    ToRGB    conv(x · s, W) / √m + b, 1x1

(Karras et al. 2021, arXiv 2106.12423; Sauer et al. 2022, arXiv 2202.00273.) State keys are the official ones; constant gains
are folded into the weights (`ilora_stylegan.folding`). The official code divides styles by their mean square over the batch
before demodulating, which only moves ε; here a sample does not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds
from ilora_stylegan.configs import InputConfig, LayerConfig, StyleGAN3Config
from ilora_stylegan.design import filters_for
from ilora_stylegan.filtered import Resampling, filtered_lrelu, plainly
from ilora_stylegan.mapping import Mapping
from ilora_stylegan.modulated import linear, without_autocast
from ilora_stylegan.winograd import MIN_TILES, convolve3x3, tiles

__all__ = ["FourierInput", "StyleGAN3", "SynthesisLayer", "initialise"]

EPSILON = 1e-8
_WIDE = 64  # channels from which Winograd's way pays


class StyleGAN3(nn.Module):
    """Mapping and synthesis of a StyleGAN3Config. Weights and filters are NaN until a state is loaded, or `initialise`."""

    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        if config.mapping.num_ws != len(config.layers) + 1:
            raise ConfigError(
                f"{len(config.layers)} layers take {len(config.layers) + 1} styles, not {config.mapping.num_ws}."
            )
        self.config = config
        self.resolution, self.num_ws = config.resolution, config.mapping.num_ws
        self.z_dim, self.c_dim, self.w_dim = config.mapping.z_dim, config.mapping.c_dim, config.mapping.w_dim
        self.synthesis = _Synthesis(config)
        self.mapping = Mapping(config.mapping)
        with torch.no_grad():
            for value in self.state_dict(keep_vars=True).values():
                value.fill_(math.nan)

    def forward(self, ws: Tensor, *, noise: str = "const", noise_seed: Sequence[int] | Tensor | None = None) -> Tensor:
        """Raw image, float32 (N,3,R,R), nominally in [-1,1] and not clamped.

        ws     (N,num_ws,w_dim), from `mapping`
        noise  and its seed: accepted as by StyleGAN2; this network adds none
        """
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (self.num_ws, self.w_dim):
            raise ConfigError(f"styles are (N,{self.num_ws},{self.w_dim}) here, not {tuple(ws.shape)}.")
        return self.synthesis(ws) * self.config.output_scale


class _Synthesis(nn.Module):
    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        self.names = [layer.name for layer in config.layers]
        self.input = FourierInput(config.input, config.mapping.w_dim)
        for layer in config.layers:
            self.add_module(layer.name, SynthesisLayer(layer, config.mapping.w_dim))

    def forward(self, ws: Tensor) -> Tensor:
        x = self.input(ws[:, 0])
        for slot, name in enumerate(self.names, start=1):
            x = self.get_submodule(name)(x, ws[:, slot])
        return x.float()


class _PreciseBuffers(nn.Module):
    """A module whose buffers stay in float32 when the network is converted to a half precision."""

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype in (torch.bfloat16, torch.float16):
                self._buffers[name] = before[name].to(buffer.device)  # pyright: ignore[reportOptionalMemberAccess]
        return self


class FourierInput(_PreciseBuffers):
    """Fourier features of an InputConfig. Buffers: freqs (C,2) in cycles, phases (C,) in turns, transform (3,3).

    transform  moves the image, by the user's choice: a rotation and translation of the plane, the identity by default
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, config: InputConfig, w_dim: int):
        super().__init__()
        self.config = config
        self.affine = linear(w_dim, 4)
        self.weight = nn.Parameter(torch.empty(config.channels, config.channels))
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(config.channels, 2))
        self.register_buffer("phases", torch.empty(config.channels))

    def forward(self, w: Tensor) -> Tensor:
        """(N,w_dim) -> (N,C,size,size)."""
        with without_autocast(w):
            waves = self.waves(w)
        return torch.matmul(self.weight, waves.flatten(2).to(self.weight.dtype)).unflatten(2, waves.shape[2:])

    def waves(self, w: Tensor) -> Tensor:
        """The features before they are mixed, in the precision of the buffers; the image is the square [-0.5,0.5]²."""
        config = self.config
        moved = self._motion(_styles(self.affine, w)) @ self.transform
        phases = self.phases + (self.freqs @ moved[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ moved[:, :2, :2]
        radii = freqs.norm(dim=2)
        fade = 1 - (radii - config.bandwidth) / (config.sampling_rate / 2 - config.bandwidth)
        at = (torch.arange(config.size, device=w.device) + 0.5 - config.size / 2) / config.sampling_rate
        across, down = freqs[:, :, 0, None] * at, freqs[:, :, 1, None] * at
        turns = across[:, :, None, :] + (down + phases[:, :, None])[:, :, :, None]
        return torch.sin(2 * math.pi * turns) * fade.clamp(0, 1)[:, :, None, None]

    @staticmethod
    def _motion(t: Tensor) -> Tensor:
        """(N,4) -> (N,3,3): translate by minus the last two, rotate by the direction of the first two."""
        cos, sin, x, y = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rows = (cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y, zero, zero, one)
        return torch.stack(rows, 1).unflatten(1, (3, 3))


class SynthesisLayer(_PreciseBuffers):
    """A layer of a LayerConfig. Buffers: magnitude_ema (), up_filter and down_filter where the layer has them."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: LayerConfig, w_dim: int):
        super().__init__()
        self.config = config
        self.affine = linear(w_dim, config.in_channels)
        self.weight = nn.Parameter(torch.empty(config.out_channels, config.in_channels, config.kernel, config.kernel))
        self.bias = nn.Parameter(torch.empty(config.out_channels))
        self.register_buffer("magnitude_ema", torch.empty(()))
        self.register_buffer("up_filter", _room(config.up_taps, config.up_radial))
        self.register_buffer("down_filter", _room(config.down_taps, config.down_radial))
        self._resampling = None if config.is_torgb else Resampling.of(config)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N,C_in,in,in), (N,w_dim) -> (N,C_out,out,out)."""
        with without_autocast(w):
            styles, gain = _styles(self.affine, w), torch.rsqrt(self.magnitude_ema)
        if self._resampling is None:
            y = _convolved(x, styles * gain, self.weight).float() + self.bias.float()[:, None, None]
            return y if self.config.clamp is None else y.clamp(-self.config.clamp, self.config.clamp)
        with without_autocast(w):
            scale = _demodulation(styles, self.weight) * gain
        y = _convolved(x, styles, self.weight)
        return filtered_lrelu(y, scale, self.bias.to(scale.dtype), self.up_filter, self.down_filter, self._resampling)


def _room(taps: int, radial: bool) -> Tensor | None:
    return torch.empty((taps, taps) if radial else (taps,)) if taps else None


def _styles(affine: nn.Module, w: Tensor) -> Tensor:
    """(N,w_dim) -> (N,C), in float32 at least."""
    styles = affine(w.to(affine.weight.dtype))  # pyright: ignore[reportCallIssue, reportArgumentType]
    return styles.to(torch.promote_types(styles.dtype, torch.float32))


def _demodulation(styles: Tensor, weight: Tensor) -> Tensor:
    """(N,C_in) -> (N,C_out): one over the expected magnitude of the output."""
    square = weight.to(styles.dtype).square().flatten(2)
    power = square @ styles.new_ones(square.shape[2])  # quicker than a sum over so short an axis
    return torch.rsqrt(styles.square() @ power.t() + EPSILON)


def _convolved(x: Tensor, styles: Tensor, weight: Tensor) -> Tensor:
    """conv(x · s, W) with padding k − 1: the map grows by as much."""
    kernel = weight.shape[-1]
    if kernel == 3 and _winograd_pays(x, weight):
        return convolve3x3(x, styles, weight, padding=2)
    y = (x * styles[:, :, None, None]).to(weight.dtype)
    if kernel == 1:
        return torch.matmul(weight.flatten(1), y.flatten(2)).unflatten(2, y.shape[2:])
    return F.conv2d(y, weight, padding=kernel - 1)


def _winograd_pays(x: Tensor, weight: Tensor) -> bool:
    trained = weight.requires_grad and torch.is_grad_enabled()
    if trained or not plainly(x) or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") or min(weight.shape[:2]) < _WIDE:
        return False
    return len(x) * tiles(x.shape[2] + 2, x.shape[3] + 2) >= MIN_TILES


def initialise(net: StyleGAN3, seed: int) -> None:
    """Fill every weight as the official code does, in law, with gains folded; `w_avg` becomes 0. Nothing on meta.

    Filters are designed where the configuration tells their bands; one that was read from a checkpoint does not, and they
    stay as they are. A tensor depends on `seed` and on its place in the state alone, not on the device.
    """
    designed = filters_for(net.config) if all(layer.bands for layer in net.config.layers) else {}
    with torch.no_grad():
        for index, (key, value) in enumerate(net.state_dict(keep_vars=True).items()):
            if key in designed:
                value.copy_(designed[key])
            elif not value.is_meta and not key.endswith("_filter"):
                value.copy_(_drawn(net.config, key, value.shape, torch.Generator().manual_seed(mix_seeds(seed, index))))


def _drawn(config: StyleGAN3Config, key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """float32 on the CPU."""
    with torch.device("cpu"):
        if key.endswith("transform"):
            return torch.eye(3)
        if key == "synthesis.input.affine.weight":
            return torch.zeros(shape)
        if key == "synthesis.input.affine.bias":
            return torch.tensor([1.0, 0.0, 0.0, 0.0])
        if key.endswith("phases"):
            return torch.rand(shape, generator=generator) - 0.5
        if key.endswith("freqs"):
            return _disc(shape[0], generator) * config.input.bandwidth
        if key.endswith(("affine.bias", "magnitude_ema")):
            return torch.ones(shape)
        if key.endswith(("bias", "w_avg")):
            return torch.zeros(shape)
        drawn = torch.randn(shape, generator=generator)
        if len(shape) == 4 and key != f"synthesis.{config.layers[-1].name}.weight":
            return drawn * drawn.square().mean((1, 2, 3), keepdim=True).rsqrt()
        table = key == "mapping.embed.weight" and config.mapping.embed == "table"
        return drawn if table else drawn / drawn[0].numel() ** 0.5


def _disc(count: int, generator: torch.Generator) -> Tensor:
    """(count,2), uniform in the unit disc."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    return torch.stack((angle.cos(), angle.sin()), 1) * torch.rand(count, 1, generator=generator).sqrt()
