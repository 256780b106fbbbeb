"""A training step on cached latents against one that encodes every time, side by side in one run.

    cached      loss, backward, AdamW on prepared codes: what `ilora fit` does
    uncached    the same, after encoding the picture, the target and the prompt with the same modules: what the reference does
    reference   (GPU only) the uncached step as the reference ships it: float32 weights, no compilation

Steps are interleaved, so that other work on the machine slows both alike; the median of each is reported.

    python bench/cached_vs_uncached.py                                                       # a small model, any machine
    python bench/cached_vs_uncached.py --size sd15 --device cuda --precision bf16 --compile  # SD1.5's size, random weights
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from record import describe_device, record, synchronize
from torch import nn

from ilora_core.adapters import LoraAdapter
from ilora_core.config import RuntimeConfig, TrainConfig
from ilora_core.intrinsics import NORMALS
from ilora_core.runtime import make_accelerator, pick_device, place, prepare_network
from ilora_core.trainer import PreparedSet, Trainer
from ilora_sd.architectures import ARCHITECTURES, SCHEDULER
from ilora_sd.loading import Components
from ilora_sd.model import StableDiffusion

__all__ = ["build", "main", "measure"]

SMALL: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 16,
        "block_out_channels": [64, 128, 256],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 128,
        "attention_head_dim": 4,
    },
    "vae": {
        "block_out_channels": [32, 64, 128, 128],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 128,
    },
    "text": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "vocab_size": 49408,
    },
}


class Words:
    """Stands in for a tokenizer: the work of the text encoder does not depend on the words."""

    model_max_length = 77

    def __call__(self, text: str, **_: Any) -> Any:
        return argparse.Namespace(input_ids=torch.zeros(1, self.model_max_length, dtype=torch.long))


def build(size: str) -> StableDiffusion:
    """Random weights: "small", "sd15" or "sd21"."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    known = {"sd15": ARCHITECTURES["sd1"], "sd21": ARCHITECTURES["sd2"]}
    parts = SMALL if size == "small" else {k: getattr(known[size], k) for k in ("unet", "vae", "text")}
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel.from_config(dict(parts["unet"]))
    vae: Any = AutoencoderKL.from_config(dict(parts["vae"]))
    text = CLIPTextModel(CLIPTextConfig(**parts["text"]))
    return StableDiffusion(Components(unet, vae, text, Words(), SCHEDULER, {"weights": f"random, {size}"}))


class Bench:
    """A generator with an adapter, its trainer on cached codes, and the pictures for the uncached step."""

    def __init__(self, size: str, *, resolution: int, batch: int, runtime: RuntimeConfig):
        self.device, self.batch = pick_device(runtime.device), batch
        accelerator = make_accelerator(runtime)
        self.generator: Any = build(size)
        place(self.generator, runtime, accelerator)
        shape = (2 * batch, 3, resolution, resolution)
        noise = torch.Generator().manual_seed(1)
        self.pictures, self.targets = torch.rand(shape, generator=noise), torch.rand(shape, generator=noise)
        self.valid = torch.ones(2 * batch, 1, resolution, resolution, dtype=torch.bool)
        adapter = LoraAdapter(rank=8)
        adapter.attach(self.generator.net, self.generator.targets)
        prepare_network(self.generator, runtime)
        codes = {k: v.to(self.device) for k, v in self.encode(slice(None)).items()}
        keys = [str(i) for i in range(2 * batch)]
        config = TrainConfig(steps=10**6, batch=batch, keep_every=10**6)
        self.trainer = Trainer(self.generator, adapter, NORMALS, PreparedSet(keys, codes), config, accelerator)
        self.steps = iter(self.trainer)

    def encode(self, part: slice) -> dict[str, torch.Tensor]:
        """Two VAE encodes and one prompt, nothing remembered."""
        self.generator._prompts.clear()
        codes = dict(self.generator.encode(self.pictures[part]))
        return {**codes, **self.generator.prepare(codes, NORMALS, self.targets[part], self.valid[part])}

    def cached(self) -> None:
        """One step of `ilora fit`."""
        next(self.steps)

    def uncached(self) -> None:
        """The reference's order of work: encode this batch, then the same step on what came out."""
        with self.trainer.accelerator.autocast():  # the encoders in the training precision, as its users run them
            fresh = self.encode(slice(0, self.batch))
        stored = self.trainer.data
        self.trainer.data = Fixed(stored.keys, fresh)
        next(self.steps)
        self.trainer.data = stored

    @torch.inference_mode()
    def predict(self) -> None:
        """One map for each picture of a batch: encode, one pass, decode."""
        with self.trainer.accelerator.autocast():
            codes = self.generator.encode(self.pictures[: self.batch])
            self.generator.render(codes, NORMALS)


class Fixed(PreparedSet):
    """The batch that was just encoded, whatever rows are asked for."""

    def take(self, rows: Any, device: torch.device) -> dict[str, torch.Tensor]:
        return {name: value.to(device) for name, value in self.codes.items()}


def measure(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each call by the clock, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            synchronize(device)
            started = clock()
            call()
            synchronize(device)
            if number >= warmup:
                times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_gb(call: Callable[[], None], device: torch.device, *, park: StableDiffusion | None = None) -> float | None:
    """Peak memory of one call, GB; None on a CPU."""
    if device.type != "cuda":
        return None
    if park is not None:
        park.park()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)


def main() -> None:
    """Measure and write bench/results/."""
    options = _options()
    device = pick_device(options.device)
    runtime = RuntimeConfig(device=str(device), precision=options.precision, compile=options.compile)
    resolution = options.resolution or (128 if options.size == "small" else 512)
    bench = Bench(options.size, resolution=resolution, batch=options.batch, runtime=runtime)
    calls = {"cached": bench.cached, "uncached": bench.uncached, "predict": bench.predict}
    seconds = measure(calls, device, rounds=options.rounds, warmup=options.warmup)
    results: dict[str, Any] = {
        "cached_ms": round(1000 * seconds["cached"], 2),
        "uncached_ms": round(1000 * seconds["uncached"], 2),
        "cached_steps_per_second": round(1 / seconds["cached"], 3),
        "uncached_steps_per_second": round(1 / seconds["uncached"], 3),
        "speedup": round(seconds["uncached"] / seconds["cached"], 3),
        "predicted_images_per_second": round(options.batch / seconds["predict"], 3),
        "cached_peak_gb": peak_gb(bench.cached, device, park=bench.generator),
        "uncached_peak_gb": peak_gb(bench.uncached, device),
        "unet_parameters": _count(bench.generator.unet),
        "vae_parameters": _count(bench.generator.vae),
    }
    if device.type == "cuda" and options.precision != "fp32":
        results |= _reference(options, device, resolution)
    results = {key: value for key, value in results.items() if value is not None}
    settings = {**vars(options), "device": device.type, "resolution": resolution, "rank": 8, "intrinsic": "normals"}
    path = record(f"cached-vs-uncached-{options.size}", device, settings=settings, results=results)
    for key, value in results.items():
        print(f"{key:32} {value}")
    print(f"{describe_device(device)['name']}; written to {path.parent.name}/{path.name}")


def _reference(options: argparse.Namespace, device: torch.device, resolution: int) -> dict[str, Any]:
    """The recipe as released: float32, encoders at every step, in the same process on the same device."""
    runtime = RuntimeConfig(device=str(device), precision="fp32")
    bench = Bench(options.size, resolution=resolution, batch=options.batch, runtime=runtime)
    seconds = measure({"reference": bench.uncached}, device, rounds=max(3, options.rounds // 4), warmup=2)
    return {
        "reference_fp32_ms": round(1000 * seconds["reference"], 2),
        "reference_fp32_peak_gb": peak_gb(bench.uncached, device),
    }


def _count(module: nn.Module) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if "lora_" not in name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("small", "sd15", "sd21"), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--resolution", type=int, default=0, help="0 = 128 for small, 512 for the others")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
