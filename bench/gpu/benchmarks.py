"""The steps that are one benchmark each, which records for itself. A CPU gets a small size of it: to try the step out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from machine import Settings
from pretraining import PRETRAININGS, seen

__all__ = ["BENCHMARKS", "Benchmark"]

_PYTHON = sys.executable


@dataclass(frozen=True)
class Benchmark:
    """One command.

    command  of these settings, the interpreter left out
    pattern  of the names of its results in bench/results/
    least_s  seconds below which it is not worth starting
    """

    name: str
    what: str
    command: Callable[[Settings], list[str]]
    pattern: str
    least_s: float

    def plan(self, settings: Settings) -> list[list[str]]:
        """As a step has it."""
        return [[_PYTHON, *self.command(settings), "--device", settings.device]]


def _predict(settings: Settings) -> list[str]:
    if _on_cpu(settings):
        return ["bench/predict_speed.py", "--size", "small", "--batch", "2", "--rounds", "2"]
    return ["bench/predict_speed.py", "--size", "sd15", "--precision", "bf16", "--batch", "4", "--rounds", "15"]


def _generators(name: str, generator: str, what: str) -> Benchmark:
    """Adapters on a rooms generator beside their controls, against the labeler and on real rooms."""
    return Benchmark(
        name,
        f"adapters on the rooms {what} beside their controls",
        lambda settings: [
            *("bench/rooms_generators.py", "--generator", generator, "--out", str(settings.scratch / generator)),
        ],
        f"rooms-generators-{generator}-*.json",
        240,
    )


def _keep(settings: Settings, name: str, package: str) -> list[str]:
    """Where adapters are kept for the next call; other weights of the package have other ones."""
    one = next(each for each in PRETRAININGS if each.package == package)
    return ["--keep", str(settings.scratch / f"{name}-{seen(one, one.shipped)}")]


def _on_cpu(settings: Settings) -> bool:
    return not settings.device.startswith("cuda")


BENCHMARKS: Sequence[Benchmark] = (
    Benchmark(
        "predict-sd15",
        "one map and four of a picture at SD1.5's size, with the VAE and with a tiny one",
        lambda settings: [*_predict(settings), "--tiny-vae"],
        "predict-speed-*.json",
        180,
    ),
    Benchmark(
        "predict-sd15-compiled",
        "four maps in one pass with torch.compile",
        # One way alone: one by one, every adapter and every size of a batch would be a graph.
        lambda settings: [*_predict(settings), "--compile", "--only", "together"],
        "predict-speed-*-compiled-*.json",
        300,
    ),
    _generators("rooms-gan", "rooms-stylegan2", "StyleGAN2"),
    _generators("rooms-vqgan", "rooms-vqgan", "VQGAN"),
    Benchmark(
        "vqgan-layers",
        "layers and ranks of adapters on the rooms VQGAN",
        lambda settings: ["bench/rooms_vqgan_layers.py"],
        "rooms-vqgan-layers-*.json",
        240,
    ),
    Benchmark(
        "rooms-aug",
        "maps in many steps: steps, guidance, SDEdit",
        lambda settings: ["bench/rooms_aug.py", *_keep(settings, "rooms-aug", "aug")],
        "rooms-aug-*.json",
        240,
    ),
    Benchmark(
        "rooms-losses",
        "latent or decoded loss on the rooms model",
        lambda settings: ["bench/rooms_losses.py", "--steps", "1000", *_keep(settings, "rooms-losses", "ldm")],
        "rooms-losses-*.json",
        240,
    ),
    Benchmark(
        "vqgan-sampling",
        "drawing codes with and without kept keys and values",
        lambda s: ["bench/vqgan_sampling.py", *([] if _on_cpu(s) else ["--batch", "128", "--size", "ffhq"])],
        "vqgan-sampling-*.json",
        120,
    ),
    Benchmark(
        "stylegan",
        "StyleGAN2 and StyleGAN-XL beside the plain formulation",
        lambda settings: ["bench/stylegan_speed.py", *(["--small"] if _on_cpu(settings) else [])],
        "stylegan-speed-*.json",
        240,
    ),
    Benchmark("renderer", "rooms per second", lambda _: ["bench/gpu/render_rooms.py"], "rooms-renderer-*.json", 60),
)
