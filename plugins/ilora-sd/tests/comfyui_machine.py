"""ComfyUI's stock nodes re-made from their description, to run a workflow's server format on a tiny generator.

Written from what the nodes do (files and classes in data/comfyui_nodes.json; `comfy/model_sampling.py`, `comfy/samplers.py`,
`comfy/sd.py`). Images are (B,H,W,3) in [0,1], masks (B,H,W), latents unscaled.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt().float()


def timestep_of(sigma: Tensor) -> Tensor:
    """The index of the nearest log σ in the table."""
    return (sigma.log() - SIGMAS.log()[:, None]).abs().argmin(0)


class Model(NamedTuple):
    """A UNet and how its sampling reads it: "eps", "v_prediction" or "img_to_img"."""

    generator: Any
    sampling: str
    timesteps: list[int]

    def denoised(self, x: Tensor, sigma: Tensor, conditions: Any) -> Tensor:
        given = x if self.sampling == "img_to_img" else x / (sigma**2 + 1) ** 0.5
        timestep = timestep_of(sigma.view(1)).float()
        self.timesteps.append(int(timestep))
        output = self.generator._call(given, timestep.expand(len(x)), conditions).float()
        if self.sampling == "img_to_img":
            return output
        if self.sampling == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        return x - output * sigma


class Machine:
    """Runs a prompt. `saved`: prefix -> image; `encoded`: the picture that went into the VAE; `timesteps` of all passes."""

    def __init__(self, generator: Any, picture: Tensor):
        self.generator, self.picture = generator, picture
        self.saved: dict[str, Tensor] = {}
        self.encoded: Tensor | None = None
        self.timesteps: list[int] = []

    def run(self, prompt: dict[str, Any]) -> None:
        done: dict[str, tuple[Any, ...]] = {}

        def value_of(given: Any) -> Any:
            return outputs(given[0])[given[1]] if isinstance(given, list) else given

        def outputs(key: str) -> tuple[Any, ...]:
            if key not in done:
                node = prompt[key]
                inputs = {name: value_of(given) for name, given in node["inputs"].items()}
                done[key] = getattr(self, node["class_type"])(**inputs)
            return done[key]

        for key, node in prompt.items():
            if node["class_type"] == "SaveImage":
                outputs(key)

    def LoadImage(self, image):
        return self.picture, torch.zeros(len(self.picture), 64, 64)

    def CheckpointLoaderSimple(self, ckpt_name):
        default = {"epsilon": "eps"}.get(self.generator.prediction, self.generator.prediction)
        return Model(self.generator, default, self.timesteps), self.generator, self.generator

    def LoraLoaderModelOnly(self, model, lora_name, strength_model):
        assert strength_model == 1.0, "the generator's adapter is on, at strength 1"
        return (model,)

    def ModelSamplingDiscrete(self, model, sampling, zsnr):
        assert not zsnr
        return (model._replace(sampling=sampling),)

    def CLIPTextEncode(self, text, clip):
        return (clip.embed(text.replace(r"\(", "(").replace(r"\)", ")")),)

    def ImageScale(self, image, upscale_method, width, height, crop):
        assert crop == "disabled"
        high, wide = image.shape[1:3]
        size = (height or max(1, round(high * width / wide)), width or max(1, round(wide * height / high)))
        return (F.interpolate(image.movedim(-1, 1), size, mode=upscale_method).movedim(1, -1),)

    def VAEEncode(self, pixels, vae):
        for dim in (1, 2):  # the middle, in whole cells
            side, rest = divmod(pixels.shape[dim], vae.factor)
            pixels = pixels.narrow(dim, rest // 2, side * vae.factor)
        self.encoded = pixels[..., :3].movedim(-1, 1)
        return (vae.vae.encode(self.encoded * 2 - 1).latent_dist.mode(),)

    def VAEDecode(self, samples, vae):
        return (((vae.vae.decode(samples).sample + 1) / 2).clamp(0, 1).movedim(1, -1),)

    def DisableNoise(self):
        return (torch.zeros_like,)

    def KSamplerSelect(self, sampler_name):
        assert sampler_name == "euler"
        return (sampler_name,)

    def BasicGuider(self, model, conditioning):
        return ((model, conditioning),)

    def BasicScheduler(self, model, scheduler, steps, denoise):
        assert (scheduler, denoise) == ("simple", 1.0)
        picked = [SIGMAS[-(1 + int(i * len(SIGMAS) / steps))] for i in range(steps)]
        return (torch.stack([*picked, torch.tensor(0.0)]),)

    def SetFirstSigma(self, sigmas, sigma):
        return (torch.cat([torch.tensor([sigma]), sigmas[1:]]),)

    def SamplerCustomAdvanced(self, noise, guider, sampler, sigmas, latent_image):
        model, conditions = guider
        scaled = latent_image * self.generator.scale
        x = noise(scaled) * sigmas[0] + scaled
        for sigma, following in pairwise(sigmas):
            denoised = model.denoised(x, sigma, conditions)
            x = x + (x - denoised) / sigma * (following - sigma)
        result = x / self.generator.scale
        return result, denoised / self.generator.scale

    def EmptyImage(self, width, height, batch_size, color):
        channels = torch.tensor([(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)])
        return (channels.expand(batch_size, height, width, 3),)

    def ImageBlend(self, image1, image2, blend_factor, blend_mode):
        assert blend_mode == "multiply"
        if image2.shape != image1.shape:
            image2 = F.interpolate(image2.movedim(-1, 1), image1.shape[1:3], mode="bicubic").movedim(1, -1)
        return ((image1 * (1 - blend_factor) + image1 * image2 * blend_factor).clamp(0, 1),)

    def ImageToMask(self, image, channel):
        return (image[..., ("red", "green", "blue", "alpha").index(channel)],)

    def MaskComposite(self, destination, source, x, y, operation):
        assert (x, y) == (0, 0)
        both = destination + source if operation == "add" else destination - source
        assert operation in ("add", "subtract")
        return (both.clamp(0, 1),)

    def MaskToImage(self, mask):
        return (mask.unsqueeze(-1).expand(-1, -1, -1, 3),)

    def ImageInvert(self, image):
        return (1 - image,)

    def SaveImage(self, images, filename_prefix):
        self.saved[filename_prefix] = images
        return (images,)
