"""One-step I-LoRA on Stable Diffusion: the clean latent goes into the UNet at the last timestep.

    map        D(U(z, T-1, prompt)), U's raw output taken as the map's latent, with no epsilon or v conversion
    loss       mean ‖ U(z, T-1, prompt) − target latent ‖²

I-LoRA section 4.2 and the released `train_sd_single_step.py`: U carries a rank-8 LoRA on to_q, to_k, to_v and to_out.0 of every
attention layer. With output="clean" the map's latent is instead the clean latent that U's output stands for
(`ilora_sd.schedule`): that of a flow is then z − σ v.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.protocols import Codes
from ilora_core.registry import load_registry
from ilora_sd.decoded import decoded_loss
from ilora_sd.latent import ATTENTION, LatentGenerator, beside, dtype_of
from ilora_sd.loading import Components
from ilora_sd.pipeline import save_pipeline
from ilora_sd.schedule import alphas, clean_latent, prediction_of

__all__ = ["ATTENTION", "OneStep", "StableDiffusion", "up_block_features"]


class OneStep(LatentGenerator, ABC):
    """The recipe of the single step, whatever the network.

    timestep  at which the network is read; None = the noisiest one
    output    "raw": the network's output is the map's latent; "clean": the clean latent that it stands for is
    """

    pipeline = ""
    """What diffusers calls the whole model."""

    one_pass = True

    def __init__(
        self,
        components: Components,
        *,
        timestep: int | None,
        resolution: int | None,
        patch: int,
        noisy_target: bool,
        output: str,
        loss: str,
    ):
        super().__init__(components, resolution=resolution, patch=patch, noisy_target=noisy_target, loss=loss)
        if output not in ("raw", "clean"):
            raise ConfigError(f"generator.output is raw or clean, not {output!r}.")
        self.output, self.prediction = output, prediction_of(components.scheduler_config)
        flow = self.prediction == "flow"
        self.timestep = components.timesteps - (not flow) if timestep is None else timestep
        self._level = 1.0
        if output == "clean":
            share = self.timestep / components.timesteps
            self._level = share if flow else float(alphas(components.scheduler_config)[self.timestep])

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """One float32 loss per sample, (B,): in latent space over the cells that count, or behind the decoder."""
        predicted = self._map(codes["latent"], self._as_told(codes, intrinsic))
        if self.decoded:
            return decoded_loss(self._decoded(predicted), codes["picture"], codes["pixels"], intrinsic)
        return self._latent_loss(predicted, self._target(codes), codes["weight"])

    @torch.no_grad()
    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """One pass and one decode: (B,3,H,W) in [0,1]."""
        return self._decode_map(self._map(codes["latent"], self._told(intrinsic)), [intrinsic])

    @torch.no_grad()
    def render_many(self, codes: Codes, intrinsics: Sequence[Intrinsic]) -> Sequence[Tensor]:
        """`render` for several intrinsics in one pass and one decode, each with its own prompt."""
        latent, prompts = codes["latent"], [self._told(intrinsic) for intrinsic in intrinsics]
        together = latent.repeat(len(intrinsics), 1, 1, 1)
        drawn = self._decode_map(self._map(together, beside(prompts, len(latent))), intrinsics)
        return drawn.chunk(len(intrinsics))

    def save_pipeline(self, folder: Path) -> None:
        """The parts as they are, a merged adapter with them, as a diffusers pipeline."""
        save_pipeline(self, folder, self.pipeline)

    def _predict(self, latent: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """The network's raw output at the one timestep."""
        latent = latent.to(self._device, dtype_of(self.unet))
        timesteps = torch.full((latent.shape[0],), self.timestep, device=self._device, dtype=torch.long)
        return self._call(latent, timesteps, conditions)

    def _map(self, latent: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """The map's latent, float32."""
        drawn = self._predict(latent, conditions).float()
        if self.output == "raw":
            return drawn
        return clean_latent(drawn, latent.to(self._device).float(), self.prediction, self._level)


class OneStepUNet(OneStep):
    """What one-step models with a UNet share."""

    def __init__(
        self,
        components: Components,
        *,
        timestep: int | None = None,
        resolution: int | None = None,
        noisy_target: bool = True,
        output: str = "raw",
        loss: str = "latent",
    ):
        unet: Any = components.unet
        super().__init__(
            components,
            timestep=timestep,
            resolution=resolution,
            patch=2 ** (len(unet.config.block_out_channels) - 1),
            noisy_target=noisy_target,
            output=output,
            loss=loss,
        )

    @torch.no_grad()
    def features(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """What the UNet's up-blocks put out at the same timestep and prompt, (B,K,H/f,W/f): a linear probe's input."""
        conditions = self._told(intrinsic)
        return up_block_features(self.unet, lambda: self._predict(codes["latent"], conditions), codes["latent"])

    @torch.no_grad()
    def target_picture(self, target: Tensor) -> Tensor:
        """A map's latent (B,C,H/f,W/f), as in "target", through the decoder that maps are drawn with."""
        return self._decode_map(target)

    def comfyui(self, intrinsic: Intrinsic, lora: str, checkpoint: str = "") -> Mapping[str, str]:
        """The adapter's ComfyUI workflow: file name -> JSON text, for the editor and for the server (`ilora_sd.comfyui`).

        A skeleton will do: no weights are read.

        lora, checkpoint  names of the files that its two loaders name; checkpoint "" = the usual file of the generator's weights

        Raises ConfigError where ComfyUI's stock nodes cannot draw the map as this generator does.
        """
        from ilora_sd.comfyui import sigma_of, workflow

        self._check_stock(intrinsic)
        weights = str(self.provenance.get("weights", "model"))
        known = load_registry().weights.get(weights)
        files = [name for name in known.sha256 if "/" not in name and name.endswith(".safetensors")] if known else []
        usual = files[0] if files else f"{Path(weights).name.removesuffix('.safetensors')}.safetensors"
        return workflow(
            intrinsic=intrinsic,
            lora=lora,
            checkpoint=checkpoint or usual,
            prompt=intrinsic.prompt,
            timestep=self.timestep,
            sigma=sigma_of(self.scheduler_config, self.timestep),
            resolution=self.resolution[0],
            depth_channels="max" if intrinsic.decoding == "max" else "mean",
            licence=known.licence if known else "",
        ).files()

    def _check_stock(self, intrinsic: Intrinsic) -> None:
        """Raise ConfigError for what a checkpoint and a LoRA do not hold."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        if self.output != "raw":
            reason = f"generator.output={self.output} turns the network's output into a clean latent"
        elif intrinsic.decoding == "reference" and intrinsic.encoding == "relative_depth":
            reason = "they clamp the picture before the reference's decoding could stretch it"
        elif self.instruction is not None:
            reason = "what this adapter tells the network has no file there"
        elif not isinstance(self.vae, AutoencoderKL):
            reason = f"it has no {type(self.vae).__name__}"
        elif "random_unet" in self.provenance:
            reason = "a random network is in no checkpoint"
        else:
            return
        raise ConfigError(f"ComfyUI's stock nodes cannot draw these maps: {reason}.")


class StableDiffusion(OneStepUNet):
    """Stable Diffusion 1.x and 2.x, one step. Conditions: "prompt" (1,L,D), the text encoder's last hidden state."""

    pipeline = "StableDiffusionPipeline"

    def _embed(self, text: str) -> dict[str, Tensor]:
        return {"prompt": self.text_encoder(self._tokens(text, self.tokenizer))[0].float()}

    def _call(self, latent: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        dtype = dtype_of(self.unet)
        prompt = conditions["prompt"].to(dtype).expand(latent.shape[0], -1, -1)
        return self.unet(latent.to(dtype), timesteps, prompt).sample


def up_block_features(unet: Any, run: Callable[[], object], like: Tensor) -> Tensor:
    """What the attention layers of a UNet's up-blocks put out during `run`, at the size of `like`, side by side."""
    caught: list[Tensor] = []
    sites = [site for block in unet.up_blocks for site in getattr(block, "attentions", None) or block.resnets]
    hooks = [site.register_forward_hook(lambda _m, _i, out: caught.append(_tensor(out))) for site in sites]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([F.interpolate(value.float(), size=like.shape[-2:]) for value in caught], 1)


def _tensor(output: Any) -> Tensor:
    """A block's output, bare or wrapped."""
    return output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
