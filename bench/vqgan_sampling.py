"""Drawing a VQGAN's codes with keys and values kept against running over all earlier positions again, in one run.

    cached     one position per code: what `sample` does
    uncached   all positions so far per code: the same codes, position by position, without the cache

Both draw the same sequences from the same seeds (checked in the run), in turns, so that other work on the machine slows both
alike; the median of each is reported. Weights are random: speed does not depend on them.

    python bench/vqgan_sampling.py                                   # a small prior, any machine
    python bench/vqgan_sampling.py --size ffhq --device cuda         # the published one's size, 801.8 M parameters
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from record import describe_device, record, synchronize

from ilora_core.noise import mix_seeds
from ilora_core.runtime import pick_device
from ilora_vqgan.architecture import FFHQ, Prior
from ilora_vqgan.sampling import draw_codes

__all__ = ["SIZES", "build", "main", "measure"]

SIZES = {"small": Prior(512, 256, 5, 4, 128), "ffhq": FFHQ.prior}


def build(size: str, device: torch.device) -> Any:
    """A prior of a known size with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    architecture = SIZES[size]
    assert architecture is not None
    with torch.device(device):
        torch.manual_seed(0)
        prior: Any = GPT2LMHeadModel(GPT2Config(**architecture.config()))
    return prior.eval().requires_grad_(False)


def measure(
    prior: Any, device: torch.device, *, batch: int, length: int, rounds: int, warmup: int = 1
) -> tuple[dict[str, float], float]:
    """(median seconds with and without the cache, the share of codes on which both agree)."""
    seeds = [mix_seeds(0, i) for i in range(batch)]
    times: dict[str, list[float]] = {"cached": [], "uncached": []}
    drawn: dict[str, torch.Tensor] = {}
    for number in range(warmup + rounds):
        for name in times:
            synchronize(device)
            started = time.perf_counter()
            drawn[name] = draw_codes(prior, seeds, length=length, use_cache=name == "cached")
            synchronize(device)
            if number >= warmup:
                times[name].append(time.perf_counter() - started)
    agreement = float((drawn["cached"] == drawn["uncached"]).float().mean())
    return {name: statistics.median(values) for name, values in times.items()}, agreement


def main() -> None:
    """Measure and write bench/results/."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    prior = build(options.size, device)
    length = options.length or prior.config.n_positions
    seconds, agreement = measure(prior, device, batch=options.batch, length=length, rounds=options.rounds)
    tokens = options.batch * length
    results = {
        "cached_tokens_per_second": round(tokens / seconds["cached"], 1),
        "uncached_tokens_per_second": round(tokens / seconds["uncached"], 1),
        "speedup": round(seconds["uncached"] / seconds["cached"], 3),
        "cached_sequences_per_second": round(options.batch / seconds["cached"], 3),
        "uncached_sequences_per_second": round(options.batch / seconds["uncached"], 3),
        "same_codes": agreement,
        "prior_parameters": sum(p.numel() for p in prior.parameters()),
    }
    settings = {**vars(options), "device": device.type, "length": length, "precision": "fp32", "top_k": 250}
    path = record(f"vqgan-sampling-{options.size}", device, settings=settings, results=results)
    for key, value in results.items():
        print(f"{key:32} {value}")
    print(f"{describe_device(device)['name']}; written to {path.parent.name}/{path.name}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32, help="sequences drawn at once")
    parser.add_argument(
        "--length", type=int, default=0, help="codes per sequence; 0 = all that the prior has places for"
    )
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
