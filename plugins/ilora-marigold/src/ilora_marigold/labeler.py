"""Marigold as a labeler: one of its pipelines, one picture at a time, with noise that follows from the picture.

The noise of a picture is drawn from its content and the seed: the same picture gets the same label in any batch, order or
process, and two pictures do not share what one draw of noise does to a map.

Marigold: Ke et al. 2024 (arXiv 2312.02145) and 2025 (arXiv 2505.09358).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.label_cache import picture_key
from ilora_core.noise import mix_seeds
from ilora_core.pretrained import fingerprint
from ilora_marigold.borders import Border

__all__ = ["MarigoldLabeler"]


class MarigoldLabeler:
    """Maps at the pictures' own size.

    pipe        one of diffusers' Marigold pipelines; border: what its predictions mean
    steps       of denoising; None = as many as the weights recommend
    ensemble    predictions of a picture that are combined into one; the time grows with it
    resolution  of the longer side inside; None = what the weights recommend, 0 = the picture's own
    facts       plain data for the provenance
    Raises ConfigError for settings that the pipeline cannot run with.
    """

    version = "1"

    def __init__(
        self,
        pipe: Any,
        border: Border,
        *,
        steps: int | None = None,
        ensemble: int = 1,
        seed: int = 0,
        resolution: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.pipe, self.border = pipe, border
        self.intrinsics: tuple[Intrinsic, ...] = border.intrinsics
        self.steps = _chosen("steps", steps, pipe.default_denoising_steps, least=1)
        self.resolution = _chosen("resolution", resolution, pipe.default_processing_resolution, least=0)
        self.ensemble, self.seed = _chosen("ensemble", ensemble, 1, least=1), seed
        if self.resolution % pipe.vae_scale_factor:
            raise ConfigError(f"labeler.resolution is a multiple of {pipe.vae_scale_factor}, not {self.resolution}.")
        pipe.set_progress_bar_config(disable=True)
        self.weights_hash = fingerprint(pipe.unet, pipe.vae, pipe.text_encoder, beside=_beside(pipe))
        self.provenance = {**(facts or {}), "steps": self.steps, "resolution": self.resolution}
        self._device = torch.device("cpu")
        self._predict: Callable[[Tensor], Tensor] = self._through_pipeline

    def label(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Maps of pictures (B,3,H,W) in [0,1]; not valid where they are not finite, and where normals have no direction."""
        with torch.no_grad():
            rows = [
                self.border.read(self._predict(picture[None].float().clamp(0, 1)).to(self._device))
                for picture in pictures
            ]
        names = [intrinsic.name for intrinsic in self.intrinsics]
        return {n: (torch.cat([r[n][0] for r in rows]), torch.cat([r[n][1] for r in rows])) for n in names}

    def to(self, device: torch.device | str) -> MarigoldLabeler:
        """Move to a device; labels come back on it."""
        self._device = torch.device(device)
        self.pipe.to(self._device)
        return self

    def imitate(self, maps: Mapping[str, Tensor]) -> None:
        """For the checks: the pipeline now answers with these true maps, picture after picture, as Marigold tells them."""
        count, asked = len(next(iter(maps.values()))), 0

        def tell(_: Tensor) -> Tensor:
            nonlocal asked
            row = asked % count
            asked += 1
            return self.border.write({name: value[row : row + 1] for name, value in maps.items()})

        self._predict = tell

    def _through_pipeline(self, picture: Tensor) -> Tensor:
        """The pipeline's prediction for one picture (1,3,H,W)."""
        seed = mix_seeds(self.seed, int(picture_key(picture[0])[:15], 16))
        return self.pipe(
            picture,
            num_inference_steps=self.steps,
            ensemble_size=self.ensemble,
            processing_resolution=self.resolution,
            generator=torch.Generator().manual_seed(seed),  # on the CPU: the same numbers whatever the device
            output_type="pt",
        ).prediction


def _chosen(name: str, given: int | None, recommended: int | None, *, least: int) -> int:
    value = recommended if given is None else given
    if value is None:
        raise ConfigError(f"these weights recommend no {name}: say how many with --set labeler.{name}=…")
    if value < least:
        raise ConfigError(f"labeler.{name} is at least {least}, not {value}.")
    return value


def _beside(pipe: Any) -> dict[str, Any]:
    """What else decides a prediction: the schedule, and the pipeline's own settings."""
    named = {**pipe.scheduler.config, **{k: v for k, v in pipe.config.items() if not isinstance(v, (list, tuple))}}
    return {name: value for name, value in named.items() if not name.startswith("_")}
