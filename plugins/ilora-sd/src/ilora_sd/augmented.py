"""Multi-step I-LoRA (the paper's AUG): a map is drawn from noise beside the picture's latent.

    x_t        √a_t · x_0 + √(1 − a_t) · ε,   x_0 the map's latent, t uniform on 0 … T−1, a_{T−1} = 0
    loss       mean ‖ U([x_t, c], t, prompt) − v ‖²,   v = √a_t · ε − √(1 − a_t) · x_0,   c = mode(E(picture)), unscaled
    map        D(x) for x drawn by DPM-Solver++ with guidance (`ilora_sd.sampler`)

I-LoRA section 4.3 and the released training script. c goes in without the VAE's scaling factor, as in InstructPix2Pix, whose
convolution reads it (`ilora_sd.widening`). t and ε of a training sample follow from its seed alone; the starting noise of a map
from `noise_seed` and its size alone, so that a picture's map depends on nothing else.

Without c ("blind") the prompt alone says what to draw, and the picture is only where the trajectory starts: SDEdit (Meng et al.,
arXiv 2108.01073), which the paper puts beside its model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ilora_core.intrinsics import Intrinsic, unit_vectors
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.protocols import Codes
from ilora_sd.latent import LatentGenerator, beside, dtype_of
from ilora_sd.loading import Components
from ilora_sd.sampler import Sampling, branches, draw
from ilora_sd.schedule import alphas, noised, velocity

__all__ = ["Augmented"]

_TIME, _NOISE, _START = 0x71, 0x72, 0x73


class Augmented(LatentGenerator):
    """Stable Diffusion with a picture beside its latent, in many steps. components.unet takes 2C channels (`widen`).

    blind  in training and in drawing, zeros stand where the picture's latent would
    Codes and prepared codes are those of the single step.
    """

    def __init__(
        self,
        components: Components,
        *,
        sampling: Sampling | None = None,
        resolution: int | None = None,
        noisy_target: bool = True,
        blind: bool = False,
    ):
        unet: Any = components.unet
        patch = 2 ** (len(unet.config.block_out_channels) - 1)
        super().__init__(components, resolution=resolution, patch=patch, noisy_target=noisy_target)
        self.sampling, self.blind = sampling or Sampling(), blind
        self.alphas: list[float] = alphas(self.scheduler_config, zero_snr=True).tolist()

    @property
    def seeds(self) -> int:
        """How many maps `render` averages; from two on `render_with_spread` says how far they are apart."""
        return self.sampling.seeds

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """Squared error of the velocity, one float32 figure per sample, (B,)."""
        seeds = [int(seed) for seed in codes["seed"]]
        timesteps = [mix_seeds(seed, _TIME) % len(self.alphas) for seed in seeds]
        clean = self._target(codes)
        noise = noise_like(clean, [mix_seeds(seed, _NOISE) for seed in seeds])
        alpha = torch.tensor([self.alphas[t] for t in timesteps], device=clean.device).view(-1, 1, 1, 1)
        given = torch.cat([noised(clean, noise, alpha), self._condition(codes["latent"])], 1)
        predicted = self._call(given, torch.tensor(timesteps, device=clean.device), self._as_told(codes, intrinsic))
        return self._latent_loss(predicted, velocity(clean, noise, alpha), codes["weight"])

    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """A map as a picture, (B,3,H,W) in [0,1]: the mean of `seeds` draws, of unit vectors where it shows normals."""
        drawn = self._draws(codes, intrinsic)
        return drawn[0] if len(drawn) == 1 else _mean(drawn, intrinsic)

    def render_with_spread(self, codes: Codes, intrinsic: Intrinsic) -> tuple[Tensor, Tensor]:
        """`render`, and how far the draws are from it, (B,1,H,W).

        Normals: the mean angle in degrees. Others: the root mean square in the map's own unit, over draws and channels.
        """
        drawn = self._draws(codes, intrinsic)
        picture = _mean(drawn, intrinsic)
        centre = intrinsic.from_picture(picture)
        maps = torch.stack([intrinsic.from_picture(one) for one in drawn])
        if intrinsic.encoding != "unit_vector":
            return picture, (maps - centre).square().mean((0, 2))[:, None].sqrt()
        along = (maps * centre).sum(2, keepdim=True)
        across = torch.linalg.cross(maps, centre.expand_as(maps), dim=2).norm(dim=2, keepdim=True)
        return picture, torch.atan2(across, along).rad2deg().mean(0)

    @torch.no_grad()
    def _draws(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """(K,B,3,H,W) in [0,1], one map per seed."""
        condition = self._condition(codes["latent"])
        told, nothing = self._told(intrinsic), self._conditions("")
        wanted = branches(self.sampling)
        pictures = torch.cat([condition if branch.picture else torch.zeros_like(condition) for branch in wanted])
        words = beside([told if branch.text else nothing for branch in wanted], len(condition))

        def answer(latent: Tensor, timestep: int) -> Sequence[Tensor]:
            given = torch.cat([latent.repeat(len(wanted), 1, 1, 1), pictures], 1)
            timesteps = torch.full((len(given),), timestep, device=given.device)
            return self._call(given, timesteps, words).float().chunk(len(wanted))

        made, start = [], codes["latent"].to(self._device).float() if self.sampling.strength < 1 else None
        for number in range(self.seeds):
            row = noise_like(condition[:1], [mix_seeds(self.sampling.noise_seed, _START, number)])
            noise = row.expand_as(condition)
            drawn = draw(answer, noise, self.scheduler_config, self.sampling, self.alphas, start=start)
            made.append(self._decode_map(drawn, [intrinsic]))
        return torch.stack(made)

    def _condition(self, latent: Tensor) -> Tensor:
        """The picture's latent as the convolution reads it: without the VAE's scale, float32; zeros for the blind."""
        latent = latent.to(self._device).float() / self.scale
        return torch.zeros_like(latent) if self.blind else latent

    def _alone(self, latent: Tensor) -> Tensor:
        # Zeros leave the convolution's output what it was before it was widened.
        return torch.cat([latent, torch.zeros_like(latent)], 1)

    def _embed(self, text: str) -> dict[str, Tensor]:
        return {"prompt": self.text_encoder(self._tokens(text, self.tokenizer))[0].float()}

    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        dtype = dtype_of(self.unet)
        prompt = conditions["prompt"].to(dtype).expand(latent.shape[0], -1, -1)
        return self.unet(latent.to(dtype), timesteps, prompt).sample


def _mean(drawn: Tensor, intrinsic: Intrinsic) -> Tensor:
    """(K,B,3,H,W) -> (B,3,H,W) in [0,1]."""
    if intrinsic.encoding != "unit_vector":
        return drawn.mean(0)
    vectors = torch.stack([unit_vectors(one * 2 - 1) for one in drawn]).mean(0)
    return ((unit_vectors(vectors) + 1) / 2).clamp(0, 1)
