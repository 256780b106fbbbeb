"""Configurations of StyleGAN2 from a few numbers: channels(r) = min(channel_base / r, channel_max)."""

from __future__ import annotations

from ilora_core.errors import ConfigError
from ilora_stylegan.configs import MappingConfig, StyleGAN2Config

__all__ = ["stylegan2_config"]


def stylegan2_config(
    *,
    resolution: int = 256,
    channel_base: int = 32768,
    channel_max: int = 512,
    mapping_layers: int = 8,
    z_dim: int = 512,
    w_dim: int = 512,
    c_dim: int = 0,
    clamp: float | None = None,
    architecture: str = "skip",
) -> StyleGAN2Config:
    """The network that the official trainers build from these numbers; c_dim > 0 makes it class-conditional.

    Raises ConfigError for a resolution that is no power of two from 8, or a mapping without layers.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ConfigError(f"a StyleGAN2 draws a power of two from 8 pixels on, not {resolution}.")
    if mapping_layers < 1:
        raise ConfigError(f"a mapping has at least one layer, not {mapping_layers}.")
    levels = resolution.bit_length() - 2
    mapping = MappingConfig(
        z_dim=z_dim,
        c_dim=c_dim,
        w_dim=w_dim,
        num_ws=2 * levels,
        widths=(w_dim,) * mapping_layers,
        embed="linear" if c_dim else "none",
        embed_dim=w_dim if c_dim else 0,
    )
    channels = tuple(min(channel_base // (4 << level), channel_max) for level in range(levels))
    return StyleGAN2Config(resolution, channels, mapping, clamp=clamp, architecture=architecture)
