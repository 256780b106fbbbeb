"""Maps from pictures: one encode, then one pass for all adapters or one per adapter, at any picture size.

A generator works at its own resolution and in multiples of its stride. `process` says how a picture gets there:

    native  resize so that the shorter side is the generator's resolution, pad to the stride by repeating the edge
    full    keep the picture's own size, pad to the stride; what does not fit into the device's memory is drawn as by tile
    tile    draw it native, then in overlapping squares of the generator's resolution at twice that size, twice again and so on
            up to the picture's own, each size brought to the one before (`ilora_core.tiling`); a picture whose shorter side
            is no longer than the generator's resolution is drawn native

No picture is cropped; maps come back at the picture's own size.

All maps are drawn in one pass where the generator offers it (`render_many`) and the adapters can be mixed
(`ilora_core.mixture`): as many rows as pictures times maps, sooner and with more memory. Else one after the other.

A generator that draws a map more than once (an attribute `seeds` of 2 or more, and `render_with_spread` like `render`, giving
a picture and how far its draws are apart, (B,1,H,W)) has its spread returned beside the map, under "spread-" and its name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.artefact import Artefact
from ilora_core.attaching import attach
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.mixture import Mixture, mix
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.protocols import Adapter, Codes, Generator
from ilora_core.runtime import make_accelerator, place, prepare_network
from ilora_core.tiling import OVERLAP, pyramid, resize_maps

__all__ = ["PROCESSES", "Predictor", "adapter_from", "pad_to_stride", "spread_of", "to_native"]

PROCESSES = ("native", "full", "tile")

_log = logging.getLogger("ilora")


class Predictor:
    """One generator with one or several adapters on it.

    artefacts  of the same generator with the same settings
    generator, settings  use this card, or these settings, instead of what the artefacts name (local weights, say)
    one_by_one           one map after the other, whatever the generator offers: less memory
    """

    def __init__(
        self,
        artefacts: Sequence[Artefact],
        *,
        runtime: RuntimeConfig | None = None,
        generator: str = "",
        settings: Mapping[str, Any] | None = None,
        one_by_one: bool = False,
        host: PluginHost | None = None,
    ):
        first = _same_generator(artefacts)
        self.artefacts = tuple(artefacts)
        host, runtime = host or load_plugins(), runtime or RuntimeConfig()
        self._accelerator = make_accelerator(runtime)
        made = {**first.generator_settings, **(settings or {})}
        self.generator: Generator = host.make("generators", generator or first.generator, **made)
        place(self.generator, runtime, self._accelerator)
        self.psnr_db: list[float] | None = None
        """Of each picture of the last call, where the generator can only approximate pictures (`inverts`), else None."""
        self.adapters: dict[str, Adapter] = {}
        self.intrinsics: dict[str, Intrinsic] = {}
        for artefact in artefacts:
            name = artefact.intrinsic.name
            if name in self.adapters:
                raise ConfigError(f"two adapters draw {name}: {artefact.folder} is the second. Give one of them.")
            self.adapters[name] = adapter_from(artefact, self.generator, host)
            self.intrinsics[name] = artefact.intrinsic
            if self._spreads:
                self.intrinsics[spread_of(artefact.intrinsic).name] = spread_of(artefact.intrinsic)
        self.one_by_one = one_by_one
        several = len(self.adapters) > 1 and hasattr(self.generator, "render_many") and not self._spreads
        self._mixture = mix(list(self.adapters.values())) if several else None
        prepare_network(self.generator, runtime)
        self.generator.net.eval()

    @torch.inference_mode()
    def __call__(
        self, pictures: Tensor, *, process: str = "native", overlap: float = OVERLAP, batch: int = 1
    ) -> dict[str, Tensor]:
        """Intrinsic's name -> map (B,C,H,W) at the size of `pictures` (B,3,H,W) in [0,1], drawn together.

        overlap, batch  of process "tile": the least share of a tile's side that neighbours have in common, and how many tiles
                        are drawn at once
        """
        if process not in PROCESSES:
            raise ConfigError(f"--process is one of {', '.join(PROCESSES)}, not {process!r}.")
        side, size = self.generator.resolution[0], (pictures.shape[-2], pictures.shape[-1])
        if process == "full":
            try:
                return self._whole(pictures, native=False)
            except torch.OutOfMemoryError:
                _log.warning(
                    "a picture of %d×%d does not fit into memory at its own size: drawn by tiles.", *size[::-1]
                )
            torch.cuda.empty_cache()  # here, where the error no longer holds what the pass had made
        maps = self._whole(pictures, native=True)
        if process == "native" or min(size) <= side:
            return resize_maps(maps, self.intrinsics, size)
        for finer in pyramid(
            lambda tiles: self.from_codes(self.generator.encode(tiles)),
            pictures.cpu(),
            maps,
            self.intrinsics,
            side=side,
            overlap=overlap,
            batch=batch,
        ):
            maps = finer
        return maps

    def _whole(self, pictures: Tensor, *, native: bool) -> dict[str, Tensor]:
        """Maps from one pass over whole pictures, at the size they are drawn."""
        small = to_native(pictures, self.generator.resolution[0]) if native else pictures
        padded = pad_to_stride(small, self.generator.stride)
        codes = self.generator.encode(padded)
        if getattr(self.generator, "inverts", False):
            self.psnr_db = _psnr_db(self.generator.picture(codes).cpu(), padded.cpu())
        height, width = small.shape[-2:]
        return {name: value[..., :height, :width] for name, value in self.from_codes(codes).items()}

    @torch.inference_mode()
    def from_codes(self, codes: Codes) -> dict[str, Tensor]:
        """Intrinsic's name -> map (B,C,H,W) for codes, the generator's own samples or encoded pictures."""
        mixture = None if self.one_by_one else self._mixture
        maps = self._mixed(codes, mixture) if mixture else self._one_at_a_time(codes)
        return {name: value.cpu() for name, value in maps.items()}  # at the end: each copy waits for the device

    def _mixed(self, codes: Codes, mixture: Mixture) -> dict[str, Tensor]:
        """All maps from one pass."""
        mixture.activate()
        generator: Any = self.generator  # the protocol leaves `render_many` open
        intrinsics = [self.intrinsics[name] for name in self.adapters]
        with self._accelerator.autocast():
            drawn = generator.render_many(codes, intrinsics)
        return {i.name: i.from_picture(one.float()) for i, one in zip(intrinsics, drawn, strict=True)}

    def _one_at_a_time(self, codes: Codes) -> dict[str, Tensor]:
        maps = {}
        for name, adapter in self.adapters.items():
            adapter.activate(trainable=False)
            intrinsic = self.intrinsics[name]
            with self._accelerator.autocast():
                if self._spreads:
                    render: Any = getattr(self.generator, "render_with_spread")  # noqa: B009, no protocol has it
                    drawn, spread = render(codes, intrinsic)
                    maps[spread_of(intrinsic).name] = spread.float()
                else:
                    drawn = self.generator.render(codes, intrinsic)
            maps[name] = intrinsic.from_picture(drawn.float())
        return maps

    @property
    def _spreads(self) -> bool:
        return getattr(self.generator, "seeds", 1) > 1


def adapter_from(artefact: Artefact, generator: Generator, host: PluginHost) -> Adapter:
    """Attach an artefact's adapter to a generator. Raises ArtefactError when the two do not fit."""
    name = artefact.record.get("adapter", "lora")
    settings, config = {"name": artefact.intrinsic.name}, artefact.config
    targets: Any = config.get("target_modules", ())
    if name == "lora":
        try:
            settings |= {"rank": int(config["r"]), "alpha": float(config["lora_alpha"])}
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{artefact.folder}/adapter_config.json is no LoRA configuration ({error}).") from error
        settings["dora"] = bool(config.get("use_dora", False))
    else:
        given = artefact.record.get("config", {}).get("settings", {}).get("adapter", {})
        settings |= {key: value for key, value in given.items() if key not in ("targets", "name")}
    tensors = artefact.tensors()
    adapter: Adapter = host.make("adapters", name, **settings)
    attach(adapter, generator, artefact.intrinsic, targets)
    adapter.load_state_dict(tensors)
    return adapter


def spread_of(intrinsic: Intrinsic) -> Intrinsic:
    """The intrinsic that an uncertainty map is: one channel, in degrees for unit vectors, else in the map's own unit."""
    if intrinsic.encoding == "unit_vector":
        unit, high = "deg", 90.0
    elif intrinsic.encoding in ("relative_depth", "shading"):
        unit, high = "relative", 0.5
    else:
        unit, high = intrinsic.unit, (intrinsic.high - intrinsic.low) / 2
    return Intrinsic(f"spread-{intrinsic.name}", 1, unit, "linear", 0.0, high)


def _same_generator(artefacts: Sequence[Artefact]) -> Artefact:
    if not artefacts:
        raise ConfigError("give at least one adapter.")
    first = artefacts[0]
    for other in artefacts[1:]:
        if (other.generator, other.generator_settings) != (first.generator, first.generator_settings):
            raise ConfigError(
                f"{first.folder} was made for {first.generator} and {other.folder} for {other.generator} or other settings. "
                "Predict with them one after the other."
            )
    return first


def to_native(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B,3,H,W) resized so that the shorter side is `side`."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def pad_to_stride(pictures: Tensor, stride: int) -> Tensor:
    """Edges repeated to the right and below until both sides are multiples of `stride`."""
    height, width = pictures.shape[-2:]
    return F.pad(pictures, (0, -width % stride, 0, -height % stride), mode="replicate")


def _psnr_db(found: Tensor, wanted: Tensor) -> list[float]:
    """10 log10(1 / mean square) per picture."""
    return (-10 * (found.float() - wanted).square().mean((1, 2, 3)).clamp(min=1e-10).log10()).tolist()
