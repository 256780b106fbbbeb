"""Synthesis and a training step of StyleGAN2-256 and StyleGAN-XL-256, ours against the plain formulation, in one run.

    synthesis  one image per style, no gradients
    step       forward, backward of a pixel loss to rank-8 updates of all affine layers
    reference  grouped convolutions, zero-stuffing and filters at the full rate (`stylegan_reference`): what the published code
               does without its CUDA kernels

The weights are random, the images the same: the largest difference is recorded. Calls are interleaved; medians are reported.
On a CPU the process's own time is measured beside the clock's, since other work on the machine slows the clock only.

    python bench/stylegan_speed.py --small                 # a minute, any machine
    python bench/stylegan_speed.py --net xl --threads 1    # StyleGAN-XL; on a CPU its reference takes minutes and 20 GB
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from record import record, synchronize
from stylegan_reference import draw

from ilora_core.adapters import LoraAdapter
from ilora_core.runtime import pick_device
from ilora_stylegan.configs import StyleGAN2Config, StyleGAN3Config
from ilora_stylegan.design import stylegan3_config, superres_config, xl_ffhq
from ilora_stylegan.stylegan2 import StyleGAN2, stylegan2_config
from ilora_stylegan.stylegan2 import initialise as initialise2
from ilora_stylegan.stylegan3 import StyleGAN3
from ilora_stylegan.stylegan3 import initialise as initialise3

__all__ = ["Bench", "build", "main"]

TOLERANCE = 1e-4


def build(name: str, *, small: bool) -> StyleGAN2 | StyleGAN3:
    """Random weights. name: "sg2" or "xl"; small: the same structure, a fraction of the size."""
    config = _config(name, small=small)
    if isinstance(config, StyleGAN2Config):
        net = StyleGAN2(config)
        initialise2(net, 0)
        return net
    net = StyleGAN3(config)
    initialise3(net, 0)
    return net


def _config(name: str, *, small: bool) -> StyleGAN2Config | StyleGAN3Config:
    if name == "sg2":
        return stylegan2_config(resolution=64 if small else 256, channel_base=2048 if small else 16384)
    if not small:
        return xl_ffhq()
    stem = stylegan3_config(
        resolution=16, channel_base=2048, channel_max=64, num_layers=7, kernel=1, radial=True, z_dim=64, embed="table"
    )
    return superres_config(stem, resolution=32, head_layers=4)


class Bench:
    """A network with an adapter, styles and a target; ours and the reference's calls."""

    def __init__(self, name: str, device: torch.device, *, small: bool, batch: int, precision: str):
        self.device, self.precision = device, precision
        self.net = build(name, small=small).eval().requires_grad_(False)
        self.parameters = sum(p.numel() for p in self.net.parameters())
        self.adapter = LoraAdapter(rank=8)
        self.adapter.attach(self.net, ("affine",))
        self.net.to(device)
        noise = torch.Generator().manual_seed(1)
        for parameter in self.adapter.parameters():  # B is 0 at first, which would leave A without a gradient
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=noise).to(device)
        z = torch.randn(batch, self.net.z_dim, generator=noise).to(device)
        with torch.no_grad():
            self.ws = self.net.mapping(z)
        self.target = torch.rand(batch, 3, self.net.resolution, self.net.resolution, generator=noise).to(device)

    def calls(self) -> dict[str, Callable[[], Any]]:
        """What is measured, by name."""

        def reference(ws: torch.Tensor) -> torch.Tensor:
            return draw(self.net, ws)

        return {
            "synthesis": lambda: self._synthesis(self.net),
            "synthesis_reference": lambda: self._synthesis(reference),
            "step": lambda: self._step(self.net),
            "step_reference": lambda: self._step(reference),
        }

    def differences(self, found: dict[str, Any]) -> dict[str, float]:
        """Of the images and of the gradients, each relative to the largest value."""
        result = {"image_difference": _relative(found["synthesis"], found["synthesis_reference"])}
        if "step" in found:
            ours, theirs = (torch.cat([g.flatten() for g in found[key]]) for key in ("step", "step_reference"))
            result["gradient_difference"] = _relative(ours, theirs)
        return result

    @torch.no_grad()
    def _synthesis(self, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with self._autocast():
            return network(self.ws).float()

    def _step(self, network: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with self._autocast():
            loss = (network(self.ws).float() - self.target).square().mean()
        return torch.autograd.grad(loss, list(self.adapter.parameters()))

    def _autocast(self) -> Any:
        half = self.precision != "fp32"
        return torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()


def measure(
    calls: dict[str, Callable[[], Any]], device: torch.device, rounds: dict[str, int]
) -> tuple[dict[str, Any], ...]:
    """(last results, median seconds, median seconds of the process) of each call, taken in turns, so many times each.

    On a GPU the first two rounds go uncounted: kernels are chosen there. On a CPU, where a call may take minutes, none does.
    """
    found: dict[str, Any] = {}
    clock: dict[str, list[float]] = {name: [] for name in calls}
    own: dict[str, list[float]] = {name: [] for name in calls}
    warmup = 2 if device.type == "cuda" else 0
    for number in range(warmup + max(rounds.values())):
        for name, call in calls.items():
            if number >= warmup + rounds[name]:
                continue
            synchronize(device)
            started, used = time.perf_counter(), time.process_time()
            found[name] = call()
            synchronize(device)
            if number >= warmup:
                clock[name].append(time.perf_counter() - started)
                own[name].append(time.process_time() - used)
    return found, *({name: statistics.median(values) for name, values in times.items()} for times in (clock, own))


def run(name: str, options: argparse.Namespace, device: torch.device) -> None:
    """Measure one network and record it."""
    bench = Bench(name, device, small=options.small, batch=options.batch, precision=options.precision)
    calls = bench.calls()
    rounds = {key: options.rounds if key.startswith("synthesis") else options.step_rounds for key in calls}
    calls = {key: call for key, call in calls.items() if rounds[key]}
    found, clock, own = measure(calls, device, rounds)
    results: dict[str, Any] = {"parameters": bench.parameters, "num_ws": bench.net.num_ws}
    kinds = [("s", clock)] + ([("cpu_s", own)] if device.type == "cpu" else [])
    for unit, times in kinds:
        results |= {f"{key}_{unit}": round(value, 4) for key, value in times.items()}
        ratio = "speedup" if unit == "s" else "cpu_speedup"
        for key in ("synthesis", "step"):
            if key in times:
                results[f"{key}_{ratio}"] = round(times[f"{key}_reference"] / times[key], 2)
    results |= bench.differences(found)
    results |= {f"{key}_peak_gb": _peak_gb(call, device) for key, call in calls.items() if device.type == "cuda"}
    settings = {**vars(options), "net": name, "device": device.type, "rank": 8}
    path = record(
        f"stylegan-speed-{name}{'-small' if options.small else ''}", device, settings=settings, results=results
    )
    for key, value in results.items():
        print(f"{key:32} {value}")
    print(f"written to {path.parent.name}/{path.name}")
    _check(results, options.precision)


def _check(results: dict[str, Any], precision: str) -> None:
    """Raises SystemExit when the two do not draw the same image."""
    difference = results["image_difference"]
    if precision == "fp32" and difference > TOLERANCE:
        raise SystemExit(f"the images differ by {difference:.1e} of the largest value, more than {TOLERANCE:.0e}.")


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(f"{((ours - theirs).abs().max() / theirs.abs().max()).item():.2e}")


def _peak_gb(call: Callable[[], Any], device: torch.device) -> float:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)


def main() -> None:
    """Measure and write bench/results/."""
    options = _options()
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    # Convolutions in TF32, torch's default on a GPU, would differ by more than the two formulations do.
    torch.backends.cudnn.allow_tf32 = options.precision != "fp32"
    for name in ("sg2", "xl") if options.net == "all" else (options.net,):
        run(name, options, device)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--net", choices=("sg2", "xl", "all"), default="all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of synthesis")
    parser.add_argument("--step-rounds", type=int, default=3, help="of training steps; 0 = none")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 = torch's choice")
    parser.add_argument("--small", action="store_true", help="networks of a fraction of the size")
    return parser.parse_args()


if __name__ == "__main__":
    main()
