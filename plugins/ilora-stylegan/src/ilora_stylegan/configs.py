"""What decides a network's shape, as plain data: read from a checkpoint, computed by a schedule, stored as JSON.

Weights are stored with every constant gain folded in (equalised learning rate, ToRGB's 1/sqrt(fan-in), the pre-normalisation of
StyleGAN3's convolutions), so that an affine layer is a plain `torch.nn.Linear` and an adapter on it is not scaled by accident.
State keys are the official ones otherwise, without StyleGAN2's constant `resample_filter` buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ilora_core.errors import WeightsError

__all__ = [
    "Config",
    "InputConfig",
    "LayerConfig",
    "MappingConfig",
    "StyleGAN2Config",
    "StyleGAN3Config",
    "from_json",
    "to_json",
]


@dataclass(frozen=True)
class MappingConfig:
    """z (and class) -> w.

    widths     outputs of fc0 … fc{n-1}; the last is w_dim
    embed      "none"; "linear": a matrix on the one-hot class (StyleGAN2/3); "table": rows, then a projection (StyleGAN-XL)
    embed_dim  width of what joins z: z and it are normalised apart and concatenated
    table      (rows, width) of the table; it may exist unused when c_dim is 0
    """

    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    widths: tuple[int, ...]
    embed: str = "none"
    embed_dim: int = 0
    table: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class StyleGAN2Config:
    """channels: of the blocks at 4, 8, …, resolution. architecture: "skip", "orig" or "resnet". clamp: None = off."""

    resolution: int
    channels: tuple[int, ...]
    mapping: MappingConfig
    img_channels: int = 3
    clamp: float | None = None
    architecture: str = "skip"
    resample_kernel: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    family: str = "stylegan2"


@dataclass(frozen=True)
class InputConfig:
    """Fourier features: `channels` of them on a size×size grid at `sampling_rate` per unit, frequencies within `bandwidth`."""

    channels: int
    size: int
    sampling_rate: float
    bandwidth: float


@dataclass(frozen=True)
class LayerConfig:
    """One synthesis layer: modulated convolution, upsampling, leaky ReLU, downsampling.

    padding           of the zero-stuffed map: (left, right, top, bottom), negative values crop
    up, down          integer factors; up_taps, down_taps the filters' lengths, 0 = no filter
    up_radial, down_radial  a two-dimensional filter rather than a separable one
    bands             cutoff and transition half-width before and after the layer, and the rate in between, for the design of
                      its filters (`ilora_stylegan.design`); empty where a checkpoint brings the filters
    """

    name: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    kernel: int
    up: int
    down: int
    padding: tuple[int, int, int, int]
    up_taps: int
    down_taps: int
    up_radial: bool = False
    down_radial: bool = False
    is_torgb: bool = False
    clamp: float | None = 256.0
    bands: tuple[float, ...] = ()


@dataclass(frozen=True)
class StyleGAN3Config:
    """StyleGAN3 and StyleGAN-XL: `layers` in the order of execution; layer i takes w slot i + 1, the input slot 0."""

    resolution: int
    input: InputConfig
    layers: tuple[LayerConfig, ...]
    mapping: MappingConfig
    output_scale: float = 0.25
    family: str = "stylegan3"


Config = StyleGAN2Config | StyleGAN3Config


def to_json(config: Config) -> dict[str, Any]:
    """Plain data."""
    return asdict(config)


def from_json(data: Mapping[str, Any]) -> Config:
    """The inverse of `to_json`. Raises WeightsError for anything else."""
    try:
        given = dict(data)
        mapping = dict(given.pop("mapping"))
        mapping |= {name: tuple(mapping[name]) for name in ("widths", "table") if name in mapping}
        given["mapping"] = MappingConfig(**mapping)
        if given.get("family") == "stylegan2":
            lists = {name: tuple(given[name]) for name in ("channels", "resample_kernel")}
            return StyleGAN2Config(**{**given, **lists})
        if given.get("family") == "stylegan3":
            lists = ("padding", "bands")
            layers = tuple(
                LayerConfig(**{**layer, **{name: tuple(layer[name]) for name in lists if name in layer}})
                for layer in given["layers"]
            )
            return StyleGAN3Config(**{**given, "input": InputConfig(**given["input"]), "layers": layers})
    except (AttributeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"this is no configuration of a StyleGAN network ({type(error).__name__}: {error})."
        ) from error
    raise WeightsError(f"no StyleGAN family is called {data.get('family')!r}; known are stylegan2 and stylegan3.")
