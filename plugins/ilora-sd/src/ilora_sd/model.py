"""One-step I-LoRA on Stable Diffusion: the clean latent goes into the UNet at the last timestep.

    latent     z = s · mode(E(picture))
    map        D(U(z, T-1, prompt) / s), U's raw output taken as the map's latent, with no epsilon or v conversion
    loss       mean ‖ U(z, T-1, prompt) − (s · mode(E(target)) + s · std(E(target)) · ε) ‖²

I-LoRA section 4.2 and the released `train_sd_single_step.py`: s is the VAE's scaling factor, U carries a rank-8 LoRA on
to_q, to_k, to_v and to_out.0 of every attention layer, and ε is fresh at each step.

Everything but U is constant for a picture, so `prepare` computes it once. Masked pixels reach the loss in neither of two
ways: they are replaced by the mean of the valid pixels before encoding, and every latent cell that covers one of them, or
touches a cell that does (the encoder's convolutions look that far), has weight zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.adapters import bare
from ilora_core.intrinsics import Intrinsic
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.protocols import Codes
from ilora_sd.layouts import diffusers_layout
from ilora_sd.loading import Components

__all__ = ["ATTENTION", "StableDiffusion"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class StableDiffusion:
    """A latent diffusion model of the Stable Diffusion family as a one-step map generator.

    components  UNet, VAE, text encoder and tokenizer (`ilora_sd.loading`)
    timestep    at which the UNet is read; None = the last one, T-1, as in the paper
    noisy_target  add the target posterior's own noise at each step, as the reference does

    Codes: "latent" (B,C,H/f,W/f), scaled. Prepared: "target" and "target_std" of the same shape, "weight"
    (B,1,H/f,W/f) in {0,1}, "prompt" (1,L,D).
    """

    targets: Sequence[str] = ATTENTION

    def __init__(
        self,
        components: Components,
        *,
        timestep: int | None = None,
        resolution: int | None = None,
        noisy_target: bool = True,
    ):
        self.unet: Any = components.unet.eval().requires_grad_(False)
        self.vae: Any = components.vae.eval().requires_grad_(False)
        self.text_encoder: Any = components.text_encoder.eval().requires_grad_(False)
        self.tokenizer = components.tokenizer
        self.provenance = components.provenance
        self.timestep = components.timesteps - 1 if timestep is None else timestep
        self.noisy_target = noisy_target
        self.scale = float(self.vae.config.scaling_factor)
        self.factor = _vae_factor(self.vae)
        self.stride = self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        native = resolution or int(self.unet.config.sample_size) * self.factor
        self.resolution = (native, native)
        self.scheduler_config = components.scheduler_config
        self._device = torch.device("cpu")
        self._prompts: dict[str, Tensor] = {}

    @property
    def net(self) -> nn.Module:
        """The UNet."""
        return self.unet

    def to(self, device: torch.device | str) -> Self:
        """Choose the device. The UNet moves now, the VAE and the text encoder when they are needed."""
        self._device = torch.device(device)
        self.unet.to(self._device)
        self._prompts = {text: value.to(self._device) for text, value in self._prompts.items()}
        return self

    def park(self) -> None:
        """Leave only the UNet on the device."""
        for module in (self.vae, self.text_encoder):
            module.to("cpu")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def sample(self, n: int, *, seed: int) -> Codes:
        """Latents of n pictures drawn from the model itself, without a prompt, by 30 DDIM steps."""
        seeds = [mix_seeds(seed, i) for i in range(n)]
        with bare(self.unet):
            return {"latent": torch.cat([self._draw(seeds[i : i + 8]) for i in range(0, n, 8)])}

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Codes:
        """The mode of the VAE's posterior, scaled. pictures: (B,3,H,W) in [0,1], sides multiples of `stride`."""
        return {"latent": self._posterior(pictures).mode() * self.scale}

    @torch.no_grad()
    def picture(self, codes: Codes) -> Tensor:
        """The VAE's reconstruction, (B,3,H,W) in [0,1]."""
        return self._decode(codes["latent"])

    @torch.no_grad()
    def prepare(self, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor) -> Codes:
        """The target's latent posterior, the weight of each latent cell, and the prompt's embedding."""
        posterior = self._posterior(_fill(target, valid))
        prepared = {
            "target": posterior.mode() * self.scale,
            "weight": _latent_weight(valid, self.factor).to(self._device),
            "prompt": self._prompt(intrinsic.prompt),
        }
        std = posterior.std * self.scale
        if self.noisy_target and (std.is_meta or float(std.max()) > 1e-6):
            prepared["target_std"] = std
        return prepared

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """Mean squared error in latent space over the cells that count; (B,) float32."""
        target = codes["target"]
        if "target_std" in codes:
            target = target + codes["target_std"] * noise_like(target, codes["seed"])
        predicted = self._predict(codes["latent"], codes["prompt"]).float()
        error = F.mse_loss(predicted, target.float(), reduction="none").mean(1, keepdim=True)
        weight = codes["weight"].float()
        return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1.0)

    @torch.no_grad()
    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """One UNet pass and one decode: (B,3,H,W) in [0,1]."""
        return self._decode(self._predict(codes["latent"], self._prompt(intrinsic.prompt)))

    @torch.no_grad()
    def features(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """What the UNet's up-blocks put out at the same timestep and prompt, (B,K,H/f,W/f): a linear probe's input."""
        caught: list[Tensor] = []
        sites = [site for block in self.unet.up_blocks for site in getattr(block, "attentions", None) or block.resnets]
        hooks = [site.register_forward_hook(lambda _m, _i, out: caught.append(_tensor(out))) for site in sites]
        try:
            self._predict(codes["latent"], self._prompt(intrinsic.prompt))
        finally:
            for hook in hooks:
                hook.remove()
        size = codes["latent"].shape[-2:]
        return torch.cat([F.interpolate(value.float(), size=size) for value in caught], 1)

    def layouts(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]:
        """`pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(folder)` of diffusers finds by itself."""
        return {"pytorch_lora_weights.safetensors": diffusers_layout(state, config)}

    def _predict(self, latent: Tensor, prompt: Tensor) -> Tensor:
        batch, dtype = latent.shape[0], self.unet.dtype
        latent = latent.to(self._device, dtype)
        timestep = torch.full((batch,), self.timestep, device=self._device, dtype=torch.long)
        return self.unet(latent, timestep, prompt.to(dtype).expand(batch, -1, -1)).sample

    def _posterior(self, pictures: Tensor) -> Any:
        self.vae.to(self._device)
        return self.vae.encode((pictures.to(self._device) * 2 - 1).to(self.vae.dtype)).latent_dist

    def _decode(self, latent: Tensor) -> Tensor:
        self.vae.to(self._device)
        decoded = self.vae.decode(latent.to(self._device, self.vae.dtype) / self.scale).sample
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def _prompt(self, text: str) -> Tensor:
        """The text encoder's last hidden state of the padded prompt, (1,L,D)."""
        if text not in self._prompts:
            self.text_encoder.to(self._device)
            length = self.tokenizer.model_max_length
            tokens = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            self._prompts[text] = self.text_encoder(tokens.input_ids.to(self._device))[0].float()
        return self._prompts[text]

    def _draw(self, seeds: Sequence[int]) -> Tensor:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        scheduler: Any = DDIMScheduler.from_config(dict(self.scheduler_config))
        scheduler.set_timesteps(30, device=self._device)
        side = self.resolution[0] // self.factor
        like = torch.empty(len(seeds), self.unet.config.in_channels, side, side, device=self._device)
        latent = noise_like(like, seeds) * scheduler.init_noise_sigma
        prompt = self._prompt("").to(self.unet.dtype).expand(len(seeds), -1, -1)
        for timestep in scheduler.timesteps:
            predicted = self.unet(latent.to(self.unet.dtype), timestep, prompt).sample
            latent = scheduler.step(predicted.float(), timestep, latent).prev_sample
        return latent


def _tensor(output: Any) -> Tensor:
    """A block's output, bare or wrapped."""
    return output[0] if isinstance(output, tuple) else getattr(output, "sample", output)


def _vae_factor(vae: Any) -> int:
    """Pixels per latent cell along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _fill(target: Tensor, valid: Tensor) -> Tensor:
    """Invalid pixels become the mean of the picture's valid ones, so that what stood there cannot matter."""
    weight = valid.to(target.dtype)
    clean = torch.where(valid, target, torch.zeros_like(target))
    mean = clean.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(valid, target, mean)


def _latent_weight(valid: Tensor, factor: int) -> Tensor:
    """(B,1,H,W) bool -> (B,1,H/f,W/f) bool: False for cells with an invalid pixel and for those beside them."""
    invalid = F.max_pool2d((~valid).float(), factor)
    return F.max_pool2d(invalid, 3, stride=1, padding=1) == 0
