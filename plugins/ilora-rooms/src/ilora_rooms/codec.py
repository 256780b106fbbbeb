"""A closed-form codec with AutoencoderKL's interface: principal components of 4×4 patches.

    z = B x / g            B (C, 48) orthonormal rows, x the 4×4×3 patch of a picture in [-1, 1]
    x̂ = Bᵀ (g z)           g (C,) = σ^0.75, σ the standard deviation of B x over pictures

B holds the leading eigenvectors of the patches' second moment M = E[x xᵀ], symmetrised over what an unsupervised
augmentation would do at random, but exactly: inverting a picture makes the mean zero, permuting colours averages M over
the six orders, and independent colour gains shrink the cross-colour blocks by E[g]²/E[g²]. The gains g bring the
channels near one scale, as a diffusion model expects its latents to be: without them the fine channels, a tenth of the
coarse ones in size, drown in the model's own noise. Only pictures are used,
never label maps, so a label picture's round trip is an honest ceiling (`gate`).
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .render import Rooms
from .sheet import depth_picture

__all__ = ["GATE_DEPTH_RMS", "GATE_NORMALS_DEG", "Ceiling", "PatchCodec", "gate"]

GATE_NORMALS_DEG, GATE_DEPTH_RMS = 6.5, 0.03
EVENNESS = 0.75  # 0 keeps the components' own sizes, 1 makes every channel's standard deviation one
LOGVAR = -30.0  # diffusers clamps to this too: the codec is deterministic


class PatchCodec(ModelMixin, ConfigMixin):
    """Latents (B, C, H/p, W/p); unit standard deviation over pictures after `config.scaling_factor`."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 12,
        patch_size: int = 4,
        in_channels: int = 3,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1),  # its length tells pipelines the scale, 2^(n-1)
    ) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.eye(latent_channels, in_channels * patch_size**2), requires_grad=False)
        self.gain = nn.Parameter(torch.ones(latent_channels), requires_grad=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        patches = pixel_unshuffle(x, self.config.patch_size)
        mean = torch.einsum("ck,bkhw->bchw", self.basis / self.gain[:, None], patches)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, LOGVAR)], 1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: object = None) -> DecoderOutput | tuple[Tensor]:
        sample = pixel_shuffle(
            torch.einsum("ck,bchw->bkhw", self.basis * self.gain[:, None], z), self.config.patch_size
        )
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict)

    @classmethod
    def fit(cls, pictures: Tensor, *, channels: int = 12, patch: int = 4, cross: float = 0.7) -> PatchCodec:
        """From pictures (B,3,H,W) in [0,1]; `cross` = E[g]²/E[g²] of the colour-gain augmentation."""
        x = pixel_unshuffle(pictures * 2 - 1, patch).movedim(1, -1).flatten(0, -2).double()
        colour = torch.arange(x.shape[1]) // patch**2
        moment = _symmetrised(x.T @ x / len(x), patch**2)
        moment = moment * torch.where(colour[:, None] == colour[None, :], 1.0, cross)
        _, vectors = torch.linalg.eigh(moment)
        basis = vectors.flip(1)[:, :channels].T
        # A sign that does not depend on the solver, but for components that sum to 0: they keep the solver's.
        basis = torch.where(basis.sum(1, keepdim=True) < 0, -basis, basis)
        latents = x @ basis.T
        gain = latents.std(0) ** EVENNESS
        codec = cls(latent_channels=channels, patch_size=patch, scaling_factor=1 / float((latents / gain).std()))
        codec.basis.data.copy_(basis.float())
        codec.gain.data.copy_(gain.float())
        return codec


def _symmetrised(moment: Tensor, block: int) -> Tensor:
    """Average a (3·block)² second moment over the six orders of the colours."""
    m = moment.reshape(3, block, 3, block)
    orders = [list(p) for p in permutations(range(3))]
    return torch.stack([m[o][:, :, o] for o in orders]).mean(0).reshape(moment.shape)


@dataclass(frozen=True)
class Ceiling:
    """What the codec alone costs on label pictures: no generator behind it can do better."""

    normals_mean_deg: float
    normals_median_deg: float
    depth_rms: float
    picture_psnr_db: float

    @property
    def passed(self) -> bool:
        return self.normals_mean_deg <= GATE_NORMALS_DEG and self.depth_rms <= GATE_DEPTH_RMS


@torch.no_grad()
def gate(codec: PatchCodec, rooms: Rooms) -> Ceiling:
    """Round-trip the label pictures of `rooms`; raise nothing, report everything (`.passed`)."""

    def trip(picture: Tensor) -> Tensor:
        return codec(picture * 2 - 1).sample / 2 + 0.5

    valid = rooms.valid[:, 0]
    back = torch.nn.functional.normalize(trip((rooms.normals + 1) / 2) * 2 - 1, dim=1)
    angle = torch.rad2deg(torch.acos((back * rooms.normals).sum(1).clamp(-1, 1)))[valid]
    depth = depth_picture(rooms.depth, rooms.valid)
    error = (trip(depth.expand(-1, 3, -1, -1)).mean(1).clamp(0, 1) - depth[:, 0])[valid]
    mse = (trip(rooms.picture).clamp(0, 1) - rooms.picture).square().mean()
    return Ceiling(
        float(angle.mean()), float(angle.median()), float(error.square().mean().sqrt()), float(-10 * mse.log10())
    )
