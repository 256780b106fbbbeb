"""The rooms generator: Stable Diffusion's layout in miniature.

UNet2DConditionModel (48, 96, 144), one layer per block, cross-attention 96: 4.95 M parameters on 16×16 latents;
CLIPTextModel of 2 layers × 96; PatchCodec; SD's scaled-linear schedule.
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .codec import PatchCodec
from .words import MAX_TOKENS, build_tokenizer

__all__ = ["Generator", "build", "sample", "scheduler", "text_encoder", "unet"]

WIDTHS = (48, 96, 144)


@dataclass
class Generator:
    """The parts that travel together. `networks` is what training moves."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    tokenizer: CLIPTokenizer
    codec: PatchCodec
    scheduler: DDIMScheduler

    @property
    def networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({"unet": self.unet, "text": self.text})

    def tokens(self, captions: list[str]) -> Tensor:
        padded = self.tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)
        return torch.tensor(padded["input_ids"])

    def latents(self, pictures: Tensor) -> Tensor:
        """Scaled latents of pictures in [0,1]."""
        return self.codec.encode(pictures * 2 - 1).latent_dist.mode() * self.codec.config.scaling_factor

    def pictures(self, latents: Tensor) -> Tensor:
        return (self.codec.decode(latents / self.codec.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def unet(
    channels: int, *, widths: tuple[int, ...] = WIDTHS, context: int = 96, sample_size: int = 16
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=context,
        attention_head_dim=4,  # SD's misnomer: the number of heads
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def text_encoder(tokenizer: CLIPTokenizer, *, width: int = 96) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def scheduler(prediction: str) -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def build(codec: PatchCodec, prediction: str, *, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> Generator:
    """A generator with random weights, the same for the same seed."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, text = unet(codec.config.latent_channels, widths=widths), text_encoder(tokenizer)
    return Generator(net, text, tokenizer, codec, scheduler(prediction))


@torch.no_grad()
def sample(
    generator: Generator, captions: list[str], *, seed: int = 0, steps: int = 30, guidance: float = 2.0
) -> Tensor:
    """Pictures (B,3,H,W) in [0,1] by DDIM with classifier-free guidance; guidance 1 = none, at half the evaluations."""
    net, device = generator.unet, generator.unet.device
    guided = guidance != 1
    tokens = generator.tokens([*captions, *[""] * len(captions) * guided]).to(device)
    context = generator.text(tokens).last_hidden_state
    side = net.config.sample_size
    noise = torch.Generator().manual_seed(seed)
    z = torch.randn(len(captions), net.config.in_channels, side, side, generator=noise).to(device)
    schedule = generator.scheduler
    schedule.set_timesteps(steps)
    for t in schedule.timesteps:
        answer = net(torch.cat([z, z]) if guided else z, t, context).sample.float()
        if guided:
            with_text, without = answer.chunk(2)
            answer = without + guidance * (with_text - without)
        z = schedule.step(answer, t, z).prev_sample
    return generator.pictures(z)
