"""What every latent diffusion model here shares: a VAE, prompts, masked targets in latent space, samples of its own.

    latent    z = s · (mode(E(picture)) − b)         s, b: the VAE's scaling and shift factors
    target    s · (mode(E(map)) − b) + s · std(E(map)) · ε, ε fresh at each step
    loss      weighted mean of a squared error over latent cells

Everything but the network is constant for a picture, so `prepare` computes it once. Masked pixels reach the loss in neither
of two ways: they are replaced by the mean of the valid pixels before encoding, and every latent cell that covers one of them,
or touches a cell that does (the encoder's convolutions look that far), has weight zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.adapters import bare
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.protocols import Codes
from ilora_sd.layouts import diffusers_layout
from ilora_sd.loading import Components

__all__ = ["ATTENTION", "LatentGenerator", "beside", "dtype_of"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_DRAW_STEPS = 30


class LatentGenerator(ABC):
    """A frozen denoising network between a VAE's encoder and decoder, told by prompts what to draw.

    components    the parts (`ilora_sd.loading`); `unet` may be a transformer
    resolution    side in pixels; None = the network's own
    patch         latent cells per side that the network's deepest level sees as one
    noisy_target  add the target posterior's own noise at each step, as the reference does
    loss          "latent", or "decoded": through the VAE's decoder (`ilora_sd.decoded`)

    Codes: "latent" (B,C,H/f,W/f), scaled. Prepared: "target" and "target_std" of the same shape, "weight"
    (B,1,H/f,W/f) in [0,1], and the prompt's embeddings (1,…). For loss="decoded": "picture" (B,3,H,W) float16 and
    "pixels" (B,1,H,W) in place of "target", "target_std" and "weight".
    """

    targets: Sequence[str] = ATTENTION
    takes_weights = True
    network = "unet"
    """What diffusers calls the network in a file of LoRA weights."""

    def __init__(
        self, components: Components, *, resolution: int | None, patch: int, noisy_target: bool, loss: str = "latent"
    ):
        if loss not in ("latent", "decoded"):
            raise ConfigError(f"generator.loss is latent or decoded, not {loss!r}.")
        self.unet: Any = components.unet.eval().requires_grad_(False)
        self.vae: Any = components.vae.eval().requires_grad_(False)
        self.tiny_vae: Any = components.tiny_vae and components.tiny_vae.eval().requires_grad_(False)
        self.text_encoder: Any = components.text_encoder.eval().requires_grad_(False)
        self.tokenizer = components.tokenizer
        further = [encoder.eval().requires_grad_(False) for encoder, _ in components.further]
        self.more_text_encoders: Any = nn.ModuleList(further) if further else ()
        self.more_tokenizers = tuple(tokenizer for _, tokenizer in components.further)
        self.provenance = components.provenance
        self.scheduler_config = components.scheduler_config
        self.noisy_target, self.decoded = noisy_target, loss == "decoded"
        self.scale = float(self.vae.config.scaling_factor)
        self.shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        self.factor = _vae_factor(self.vae)
        self.stride = self.factor * patch
        native = resolution or int(self.unet.config.sample_size) * self.factor
        self.resolution = (native, native)
        self._device = torch.device("cpu")
        self._prompts: dict[str, dict[str, Tensor]] = {}
        self.instruction: Any = None
        """What is told in place of an intrinsic's prompt (`ilora_sd.instructions`)."""

    @abstractmethod
    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor: ...

    @abstractmethod
    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor: ...

    @abstractmethod
    def _embed(self, text: str) -> dict[str, Tensor]:
        """A prompt's embeddings by name, each (1,…) float32."""

    @abstractmethod
    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """The network's raw output. timesteps: (B,); conditions: what `_embed` gives, each leading with 1 or B."""

    @property
    def net(self) -> nn.Module:
        """The network that adapters attach to."""
        return self.unet

    def to(self, device: torch.device | str) -> Self:
        """Choose the device. The network moves now, the VAE and the text encoders when they are needed."""
        self.unet.to(device)
        self._device = next(self.unet.parameters()).device  # with its number
        for known in self._prompts.values():
            known.update({name: value.to(self._device) for name, value in known.items()})
        return self

    def park(self) -> None:
        """Leave on the device what the loss needs: the network, the VAE if it looks through it, encoders of learnt words."""
        encoders = (self.text_encoder, *self.more_text_encoders)
        words = () if self.instruction is not None and self.instruction.encodes else encoders
        unused = (self.tiny_vae, *(() if self.decoded else (self.vae,)))
        for module in (*words, *filter(None, unused)):
            module.to("cpu")
        if self.decoded:
            self.vae.to(self._device)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def sample(self, n: int, *, seed: int) -> Codes:
        """Latents of n pictures drawn from the model itself, without a prompt, in 30 steps."""
        seeds = [mix_seeds(seed, i) for i in range(n)]
        with bare(self.unet):
            return {"latent": torch.cat([self._draw(seeds[i : i + 8]) for i in range(0, n, 8)])}

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Codes:
        """The mode of the VAE's posterior, scaled. pictures: (B,3,H,W) in [0,1], sides multiples of `stride`."""
        return {"latent": self._scaled(self._posterior(pictures).mode())}

    @torch.no_grad()
    def picture(self, codes: Codes) -> Tensor:
        """The VAE's reconstruction, (B,3,H,W) in [0,1]."""
        return self._decode(codes["latent"])

    @torch.no_grad()
    def prepare(self, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor) -> Codes:
        """The target's latent posterior, the weight of each latent cell, and the prompt's embeddings."""
        conditions = self._conditions(intrinsic.prompt)
        if self.decoded:
            # Half precision: at most 2.5e-4 off in [0,1], and half the cache.
            picture = _fill(target, valid).half()
            return {"picture": picture.to(self._device), "pixels": valid.to(self._device), **conditions}
        posterior = self._posterior(_fill(target, valid))
        prepared = {
            "target": self._scaled(posterior.mode()),
            "weight": _latent_weight(valid, self.factor).to(self._device),
            **conditions,
        }
        std = posterior.std * self.scale
        if self.noisy_target and (std.is_meta or float(std.max()) > 1e-6):
            prepared["target_std"] = std
        return prepared

    def layouts(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]:
        """A LoRA as `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(folder)` of diffusers finds by itself.

        diffusers reads no other kind of adapter from a file of its own.
        """
        if config.get("peft_type") != "LORA":
            return {}
        return {"pytorch_lora_weights.safetensors": diffusers_layout(state, config, self.network)}

    def _target(self, codes: Codes) -> Tensor:
        """The step's target latent, float32: a draw from the posterior, or its mode."""
        target = codes["target"].float()
        if "target_std" in codes:
            target = target + codes["target_std"].float() * noise_like(target, codes["seed"])
        return target

    def _latent_loss(self, predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean squared error over the cells that count; (B,) float32."""
        error = F.mse_loss(predicted.float(), target, reduction="none").mean(1, keepdim=True)
        weight = weight.float()
        return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)

    def _scaled(self, latent: Tensor) -> Tensor:
        return (latent - self.shift) * self.scale

    def _posterior(self, pictures: Tensor) -> Any:
        vae = self._here(self.vae)
        return vae.encode((pictures.to(self._device) * 2 - 1).to(dtype_of(vae))).latent_dist

    def _decoded(self, latent: Tensor) -> Tensor:
        """What the decoder puts out, (B,3,H,W), nominally in [-1,1]."""
        vae = self._here(self.vae)
        return vae.decode(latent.to(self._device, dtype_of(vae)) / self.scale + self.shift).sample

    def _decode(self, latent: Tensor) -> Tensor:
        return (self._decoded(latent).float() / 2 + 0.5).clamp(0, 1)

    def _decode_map(self, latent: Tensor, intrinsics: Sequence[Intrinsic] = ()) -> Tensor:
        """A map's latent as a picture, by the tiny VAE where there is one. That takes scaled latents as they are.

        intrinsics  what equal parts of the batch are; their values stay within [0,1] unless they are read beyond it
        """
        if self.tiny_vae is None:
            decoded = self._decoded(latent)
        else:
            tiny = self._here(self.tiny_vae)
            decoded = tiny.decode(latent.to(self._device, dtype_of(tiny))).sample
        picture = decoded.float() / 2 + 0.5
        if not any(i.decoding == "reference" for i in intrinsics):
            return picture.clamp(0, 1)
        parts = zip(picture.chunk(len(intrinsics)), intrinsics, strict=True)
        return torch.cat([part if i.decoding == "reference" else part.clamp(0, 1) for part, i in parts])

    def _here(self, module: Any) -> Any:
        """The module, on the device. `to` walks over all parameters, also where there is nothing to move."""
        return module if next(module.parameters()).device == self._device else module.to(self._device)

    @torch.no_grad()
    def _conditions(self, text: str) -> dict[str, Tensor]:
        """A prompt's embeddings, computed once."""
        if text not in self._prompts:
            self._prompts[text] = self.embed(text)
        return self._prompts[text]

    def _told(self, intrinsic: Intrinsic) -> dict[str, Tensor]:
        """The conditions that say what to draw: the prompt's, or what an adapter has learnt."""
        prompt = intrinsic.prompt
        return self._conditions(prompt) if self.instruction is None else self.instruction.conditions(prompt)

    def _as_told(self, codes: Codes, intrinsic: Intrinsic) -> Codes:
        """Prepared codes, with what an adapter has learnt in place of the prompt's embeddings."""
        return codes if self.instruction is None else {**codes, **self._told(intrinsic)}

    def embed(self, text: str) -> dict[str, Tensor]:
        """`_embed` on the device, computed afresh; gradients reach what is trained inside the text encoders."""
        for encoder, _ in self.encoders().values():
            self._here(encoder)
        return self._embed(text)

    def encoders(self) -> dict[str, tuple[Any, Any]]:
        """Name, as diffusers calls it -> (text encoder, its tokenizer)."""
        pairs = zip((self.text_encoder, *self.more_text_encoders), (self.tokenizer, *self.more_tokenizers), strict=True)
        return {f"text_encoder{f'_{number}' if number > 1 else ''}": pair for number, pair in enumerate(pairs, 1)}

    def _tokens(self, text: str, tokenizer: Any, length: int | None = None) -> Tensor:
        """(1,L) indices, padded to the tokenizer's own length or to the one given."""
        length = length or tokenizer.model_max_length
        found = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return found.input_ids.to(self._device)

    def _scheduler(self) -> Any:
        """What the model's own pictures are drawn with."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler.from_config(dict(self.scheduler_config))

    def _set_timesteps(self, scheduler: Any, steps: int, latent: Tensor) -> None:
        """Tell the scheduler how many steps to take. latent: (B,C,H/f,W/f), what is drawn."""
        scheduler.set_timesteps(steps, device=self._device)

    def _draw(self, seeds: Sequence[int]) -> Tensor:
        scheduler, side = self._scheduler(), self.resolution[0] // self.factor
        like = torch.empty(len(seeds), self.vae.config.latent_channels, side, side, device=self._device)
        latent, blank = noise_like(like, seeds), self._conditions("")
        self._set_timesteps(scheduler, _DRAW_STEPS, latent)
        for timestep in scheduler.timesteps:
            output = self._call(self._alone(latent), timestep.expand(len(seeds)), blank)
            latent = scheduler.step(output.float(), timestep, latent).prev_sample
        return latent

    def _alone(self, latent: Tensor) -> Tensor:
        """The network's input when it draws a picture of its own."""
        return latent


def beside(conditions: Sequence[Mapping[str, Tensor]], rows: int) -> dict[str, Tensor]:
    """Several prompts' embeddings, each repeated for its own rows of a batch."""
    return {
        name: torch.cat([one[name].expand(rows, *one[name].shape[1:]) for one in conditions]) for name in conditions[0]
    }


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of the weights. diffusers' `dtype` walks over every module: 13 ms for the UNet of SD1.5 with four adapters."""
    return next(module.parameters()).dtype


def _vae_factor(vae: Any) -> int:
    """Pixels per latent cell along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _fill(target: Tensor, valid: Tensor) -> Tensor:
    """Invalid pixels become the mean of the picture's valid ones, so that what stood there cannot matter."""
    valid = valid > 0
    weight = valid.to(target.dtype)
    clean = torch.where(valid, target, torch.zeros_like(target))
    mean = clean.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(valid, target, mean)


def _latent_weight(valid: Tensor, factor: int) -> Tensor:
    """(B,1,H,W) bool -> (B,1,H/f,W/f) bool: False for cells with an invalid pixel and for those beside them.

    Of weights in [0,1], 0 = not valid, the other cells get the mean of their pixels: float32.
    """
    invalid = F.max_pool2d((valid <= 0).float(), factor)
    counts = F.max_pool2d(invalid, 3, stride=1, padding=1) == 0
    return counts if valid.dtype == torch.bool else counts * F.avg_pool2d(valid.float(), factor)
