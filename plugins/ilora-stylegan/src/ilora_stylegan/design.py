"""How StyleGAN3 and StyleGAN-XL choose rates, cut-offs, widths and filters for their layers.

    e_i = min(i / (N − 2), 1)                      i = 0 … N; the last two of N layers are critically sampled, N is ToRGB
    c_i = c_0 (c_N / c_0)^e_i                      cut-off, c_0 = 2, c_N = R/2
    t_i = t_0 (2^0.3 c_N / t_0)^e_i                minimum stopband, t_0 = 2^2.1
    s_i = 2^⌈log₂ min(2 t_i, R)⌉                   sampling rate;  size_i = s_i + 20, of the last two R
    h_i = max(t_i, s_i/2) − c_i                    half the transition band
    C_i = min(C_base / (2 c_i), C_max)             channels

A layer goes from i−1 to i through twice the higher of the two rates, with filters of 6 taps per sample (Karras et al. 2021,
arXiv 2106.12423). StyleGAN-XL drops the critically sampled layers of a trained stem and appends a head of the same law that
starts where the last kept layer ends (Sauer et al. 2022, arXiv 2202.00273).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_stylegan.configs import InputConfig, LayerConfig, MappingConfig, StyleGAN3Config
from ilora_stylegan.fir import lowpass

__all__ = ["filters_for", "stylegan3_config", "superres_config", "xl_ffhq", "xl_imagenet"]

CRITICAL = 2
MARGIN = 10
FIRST_CUTOFF = 2.0
FIRST_STOPBAND = 2**2.1
LAST_STOPBAND = 2**0.3
TAPS_PER_SAMPLE = 6
TABLE = (1000, 320)


@dataclass(frozen=True)
class _Signal:
    """A map between two layers. cutoff and half_width in cycles, rate in samples per side of the image."""

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


@dataclass(frozen=True)
class _Kind:
    """What a layer is beyond the signals that it joins."""

    kernel: int
    radial: bool = False
    is_torgb: bool = False


def stylegan3_config(
    *,
    resolution: int,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    kernel: int = 3,
    radial: bool = False,
    z_dim: int = 512,
    w_dim: int = 512,
    c_dim: int = 0,
    mapping_layers: int = 2,
    embed: str = "linear",
    table: tuple[int, int] = TABLE,
) -> StyleGAN3Config:
    """A StyleGAN3, or the stem of a StyleGAN-XL.

    resolution      of the image, a power of two from 16
    channel_base    channels times cut-off frequency, doubled; channel_max bounds it
    num_layers      without ToRGB
    kernel, radial  3 and False for the "t" family, 1 and True for "r" (with twice the channels)
    embed           of classes: "linear", or "table" with so many (rows, columns); a table exists without classes as well
    Raises ConfigError for sizes that make no network.
    """
    if num_layers <= CRITICAL or mapping_layers < 1:
        raise ConfigError(f"a StyleGAN3 has more than {CRITICAL} layers and a mapping, not {num_layers} layers.")
    first = _Signal(0, 0, 0, FIRST_CUTOFF, FIRST_STOPBAND - FIRST_CUTOFF)
    signals = _schedule(first, resolution, num_layers, channel_base, channel_max)
    layers = _layers(signals, kernel=kernel, radial=radial, offset=0)
    start = signals[0]
    embedded = embed if c_dim or embed == "table" else "none"
    mapping = MappingConfig(
        z_dim=z_dim,
        c_dim=c_dim,
        w_dim=w_dim,
        num_ws=len(layers) + 1,
        widths=(w_dim,) * mapping_layers,
        embed=embedded,
        embed_dim=0 if not c_dim else z_dim if embed == "table" else w_dim,
        table=table if embed == "table" else (0, 0),
    )
    return StyleGAN3Config(
        resolution, InputConfig(start.channels, start.size, float(start.rate), start.cutoff), layers, mapping
    )


def superres_config(
    stem: StyleGAN3Config,
    *,
    resolution: int,
    head_layers: int,
    channel_base: int | None = None,
    channel_max: int | None = None,
    kernel: int = 3,
    radial: bool = False,
) -> StyleGAN3Config:
    """StyleGAN-XL: `stem` without its last three layers, and a head of `head_layers` layers and ToRGB.

    channel_base, channel_max  as the stem was made with; None = the head is not narrower than the kept layers
    kernel, radial             of the head; the released networks have 3 and False whatever their stem has
    Raises ConfigError for a stem without `bands` (one that was read from a checkpoint), or too short.
    """
    kept = stem.layers[: -(CRITICAL + 1)]
    if not kept or not kept[-1].bands or head_layers <= CRITICAL:
        raise ConfigError(
            "a head needs more than two layers and a stem that `stylegan3_config` made, of over two layers."
        )
    last = kept[-1]
    _, _, cutoff, half_width, rate = last.bands
    first = _Signal(last.out_channels, last.out_size, round(rate) // last.down, cutoff, half_width)
    base = channel_base or resolution * first.channels
    signals = _schedule(first, resolution, head_layers, base, channel_max or first.channels)
    layers = kept + _layers(signals, kernel=kernel, radial=radial, offset=len(kept) + 1)
    mapping = replace(stem.mapping, num_ws=len(layers) + 1)
    return replace(stem, resolution=resolution, layers=layers, mapping=mapping)


def xl_ffhq(resolution: int = 256) -> StyleGAN3Config:
    """StyleGAN-XL for faces: a 32-pixel stem of 1x1 convolutions, then heads of four layers, each doubling the resolution."""
    return _xl(resolution, stem=32, head_layers=4, c_dim=0)


def xl_imagenet(resolution: int = 256) -> StyleGAN3Config:
    """StyleGAN-XL for ImageNet's 1000 classes: a 16-pixel stem of 1x1 convolutions, then heads of seven layers."""
    return _xl(resolution, stem=16, head_layers=7, c_dim=1000)


def filters_for(config: StyleGAN3Config) -> dict[str, Tensor]:
    """State key -> float32 taps, for every filter of the network. Raises ConfigError where a layer has no `bands`."""
    found = {}
    for layer in config.layers:
        for name, taps, radial, first in (
            ("up_filter", layer.up_taps, layer.up_radial, 0),
            ("down_filter", layer.down_taps, layer.down_radial, 2),
        ):
            if not taps:
                continue
            if not layer.bands:
                raise ConfigError(
                    f"layer {layer.name} says nothing about its bands: take its filters from a checkpoint."
                )
            cutoff, half_width = layer.bands[first : first + 2]
            found[f"synthesis.{layer.name}.{name}"] = lowpass(
                taps, cutoff=cutoff, half_width=half_width, rate=layer.bands[4], radial=radial
            )
    return found


def _xl(resolution: int, *, stem: int, head_layers: int, c_dim: int) -> StyleGAN3Config:
    if resolution < stem or resolution & (resolution - 1):
        raise ConfigError(f"this StyleGAN-XL draws a power of two from {stem} pixels on, not {resolution}.")
    base, most = 65536, 1024
    config = stylegan3_config(
        resolution=stem,
        channel_base=base,
        channel_max=most,
        num_layers=10,
        kernel=1,
        radial=True,
        z_dim=64,
        c_dim=c_dim,
        embed="table",
    )
    while config.resolution < resolution:
        config = superres_config(
            config, resolution=2 * config.resolution, head_layers=head_layers, channel_base=base, channel_max=most
        )
    return config


def _schedule(first: _Signal, resolution: int, count: int, base: int, most: int) -> list[_Signal]:
    """Signals 0 … count. first: its cut-off and stopband start the laws; its rate and channels stay, where it has any."""
    if resolution < 16 or resolution & (resolution - 1):
        raise ConfigError(f"a StyleGAN3 draws a power of two from 16 pixels on, not {resolution}.")
    stopband, last = first.cutoff + first.half_width, resolution / 2
    signals = []
    for i in range(count + 1):
        e = min(i / (count - CRITICAL), 1)
        cutoff = first.cutoff * (last / first.cutoff) ** e
        stop = stopband * (last * LAST_STOPBAND / stopband) ** e
        rate = 2 ** math.ceil(math.log2(min(2 * stop, resolution)))
        channels = round(min(base / 2 / cutoff, most))
        if i == 0 and first.rate:
            rate, channels = first.rate, first.channels
        size = resolution if i >= count - 1 else rate + 2 * MARGIN
        signals.append(_Signal(3 if i == count else channels, size, rate, cutoff, max(stop, rate / 2) - cutoff))
    return signals


def _layers(signals: list[_Signal], *, kernel: int, radial: bool, offset: int) -> tuple[LayerConfig, ...]:
    """Layer i joins signals i − 1 and i; layer 0 begins and ends at signal 0."""
    last = len(signals) - 1
    made = []
    for i, after in enumerate(signals):
        kind = _Kind(1, is_torgb=True) if i == last else _Kind(kernel, radial and i < last - CRITICAL)
        made.append(_layer(signals[max(i - 1, 0)], after, kind, index=offset + i))
    return tuple(made)


def _layer(before: _Signal, after: _Signal, kind: _Kind, *, index: int) -> LayerConfig:
    rate = max(before.rate, after.rate) * (1 if kind.is_torgb else 2)
    up, down = rate // before.rate, rate // after.rate
    up_taps = TAPS_PER_SAMPLE * up if up > 1 and not kind.is_torgb else 1
    down_taps = TAPS_PER_SAMPLE * down if down > 1 and not kind.is_torgb else 1
    # What must be added to the zero-stuffed map for `out_size` samples to come out; the first ones lie between old ones.
    total = (after.size - 1) * down + 1 - (before.size + kind.kernel - 1) * up + up_taps + down_taps - 2
    low = (total + up) // 2
    return LayerConfig(
        name=f"L{index}_{after.size}_{after.channels}",
        in_channels=before.channels,
        out_channels=after.channels,
        in_size=before.size,
        out_size=after.size,
        kernel=kind.kernel,
        up=up,
        down=down,
        padding=(low, total - low, low, total - low),
        up_taps=up_taps if up_taps > 1 else 0,
        down_taps=down_taps if down_taps > 1 else 0,
        down_radial=kind.radial and down_taps > 1,
        is_torgb=kind.is_torgb,
        bands=(before.cutoff, before.half_width, after.cutoff, after.half_width, float(rate)),
    )
