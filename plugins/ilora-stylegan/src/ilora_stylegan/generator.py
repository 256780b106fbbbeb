"""A StyleGAN as an intrinsic generator: w drawn once by the frozen mapping, then the same synthesis with and without an adapter.

    picture = G(w)          G = frozen synthesis
    map     = G_θ(w)        G_θ = G with rank-r updates of all its affine layers w -> style
    loss    = 1 − cos + L1 for normals, mean square otherwise, on the raw three channels

(I-LoRA, arXiv 2311.17137, section 3 and Table 5.) Picture and map share w and the noise buffers. A GAN has no encoder:
`encode` raises CannotEncode unless projection is asked for (`ilora_stylegan.projection`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ilora_core.adapters import bare
from ilora_core.errors import CannotEncode, ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.losses import picture_loss
from ilora_core.protocols import Codes
from ilora_stylegan.features import layer_features
from ilora_stylegan.projection import Projection, project

__all__ = ["NOISE", "StyleGAN", "draw_z"]

NOISE = ("const", "none", "random")
_BLOCK = 1_000_000  # published seeds of sample(…, seed=1) start here


class StyleGAN:
    """The generator.

    net         StyleGAN2 or StyleGAN3 network; its mapping is frozen and used by `sample` alone
    psi         truncation towards the mean w (of the class, where there is one per class); 1 = none
    cutoff      number of w slots that are truncated; None = all
    noise       "const": the network's own buffers, "none", or "random": of each sample's seed, the same for picture and map
    label       the class of every sample; None = drawn by the sample's seed, as the official scripts do
    projection  how real pictures are inverted; None: `encode` raises CannotEncode

    Codes: "w" (B, num_ws, w_dim) and "noise_seed" int64 (B,); samples of a conditional network also "label" int64 (B,).
    """

    targets: Sequence[str] | str = ("affine",)
    takes_weights = True

    def __init__(
        self,
        net: nn.Module,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: str = "const",
        label: int | None = None,
        projection: Projection | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        self.net: Any = net.eval().requires_grad_(False)
        if noise not in NOISE:
            raise ConfigError(f"generator.noise is one of {', '.join(NOISE)}, not {noise!r}.")
        if not 0 <= psi <= 2:
            raise ConfigError(f"generator.psi lies between 0 and 2, not at {psi}.")
        if label is not None and not 0 <= label < self.net.c_dim:
            known = f"0 … {self.net.c_dim - 1}" if self.net.c_dim else "none: this network has no classes"
            raise ConfigError(f"generator.label is one of {known}; not {label}.")
        self.psi, self.cutoff, self.noise, self.label = psi, cutoff, noise, label
        self.projection, self.provenance = projection, dict(provenance or {})
        self.resolution, self.stride = (self.net.resolution, self.net.resolution), self.net.resolution

    @property
    def inverts(self) -> bool:
        """Whether `encode` approximates pictures instead of coding them."""
        return self.projection is not None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.net.mapping.w_avg.device

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> Codes:
        """w of n samples, (n, num_ws, w_dim). seed 0 gives the published seeds 0 … n-1, seed s those from s·10⁶ on."""
        seeds = [(seed * _BLOCK + index) % 2**32 for index in range(n)]
        return self.from_seeds(seeds)

    @torch.no_grad()
    def from_seeds(self, seeds: Sequence[int]) -> Codes:
        """The samples that the official scripts call by these seeds (numpy's RandomState)."""
        z = draw_z(seeds, self.net.z_dim).to(self.device)
        labels = self._labels(seeds)
        parts = [
            self.net.mapping(
                z[i : i + 1], None if labels is None else labels[i : i + 1], psi=self.psi, cutoff=self.cutoff
            )
            for i in range(len(seeds))
        ]
        codes = {"w": torch.cat(parts).float(), "noise_seed": torch.tensor(list(seeds), device=self.device)}
        return codes if labels is None else {**codes, "label": labels}

    def encode(self, pictures: Tensor) -> Codes:
        """w of real pictures (B,3,H,W) at the network's size, by optimisation. Raises CannotEncode where that is off."""
        if self.projection is None:
            raise CannotEncode(
                "a GAN has no encoder: it draws its own samples (--samples N). To try real pictures by optimising w for each "
                "of them, which takes hundreds of passes, give --set generator.projection=500."
            )
        if tuple(pictures.shape[-2:]) != self.resolution:
            side = self.resolution[0]
            height, width = pictures.shape[-2:]
            raise CannotEncode(
                f"this network draws squares of {side}×{side}, and the picture came as {width}×{height}. Cut it square first."
            )
        with torch.inference_mode(False), bare(self.net):
            w = project(self.net, pictures.to(self.device).clone(), self.projection, noise=self._still)
        return {"w": w, "noise_seed": torch.zeros(len(w), dtype=torch.long, device=w.device)}

    @torch.no_grad()
    def picture(self, codes: Codes) -> Tensor:
        """(B,3,R,R) in [0,1], with every adapter off."""
        with bare(self.net):
            return _unit(self._draw(codes))

    def prepare(self, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor) -> Codes:
        """The target at the network's own range, [-1,1]."""
        if tuple(target.shape[-2:]) != self.resolution:
            side = self.resolution[0]
            raise ConfigError(f"maps of this generator's samples are {side}×{side}, not {tuple(target.shape[-2:])}.")
        return {"target": target * 2 - 1, "valid": valid}

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """The intrinsic's loss on the raw output; (B,) float32."""
        raw = self._draw(codes)
        return picture_loss(raw, codes["target"].to(raw.device), codes["valid"].to(raw.device), intrinsic.loss)

    @torch.no_grad()
    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """The map as a picture, (B,3,R,R) in [0,1]."""
        return _unit(self._draw(codes))

    @torch.no_grad()
    def render_many(self, codes: Codes, intrinsics: Sequence[Intrinsic]) -> Sequence[Tensor]:
        """`render` for several intrinsics in one pass."""
        k = len(intrinsics)
        together = {name: value.repeat(k, *[1] * (value.ndim - 1)) for name, value in codes.items()}
        return _unit(self._draw(together)).chunk(k)

    @torch.no_grad()
    def features(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """What the synthesis layers put out, at the picture's size, (B,K,R,R): a linear probe's input."""
        return layer_features(self.net, lambda: self._draw(codes), self.resolution)

    def target_picture(self, target: Tensor) -> Tensor:
        """What is in "target", as a picture."""
        return _unit(target)

    def to(self, device: torch.device | str) -> StyleGAN:
        """Move the network."""
        self.net.to(device)
        return self

    def park(self) -> None:
        """Nothing to free: the mapping is 0.2 to 2 million parameters."""

    def layouts(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]:
        """No other tool loads adapters of these networks."""
        return {}

    @property
    def _still(self) -> str:
        """A noise mode that does not depend on a seed, for projection."""
        return "const" if self.noise == "const" else "none"

    def _draw(self, codes: Codes) -> Tensor:
        w = codes["w"].to(self.device)
        if self.noise == "random":
            return self.net(w, noise="random", noise_seed=codes["noise_seed"])
        return self.net(w, noise=self.noise)

    def _labels(self, seeds: Sequence[int]) -> Tensor | None:
        if not self.net.c_dim:
            return None
        drawn = [
            np.random.RandomState(s).randint(0, self.net.c_dim) if self.label is None else self.label for s in seeds
        ]
        return torch.tensor(drawn, device=self.device)


def draw_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z as the official scripts draw it: RandomState(seed).randn(1, z_dim); (N, z_dim) float32."""
    return torch.from_numpy(np.stack([np.random.RandomState(seed).randn(z_dim) for seed in seeds])).float()


def _unit(raw: Tensor) -> Tensor:
    return (raw.float() / 2 + 0.5).clamp(0, 1)
