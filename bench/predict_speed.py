"""Seconds per picture of `ilora predict`: one map and four, one picture at a time and several, in one run.

    1 map          encode, one pass, decode
    4 maps, …      together     one encode, one pass of the network for all maps, each with its own adapter, one decode
                   one by one   one encode, one pass and one decode per map (--one-by-one)
                   apart        each map with its own encode too, as by four calls
    … tiny VAE     maps decoded by a distilled decoder of TAESD's shape (--tiny-vae; of Stable Diffusion's layout only)
    decoder, …     one latent per picture through the decoder alone

All draw the same pictures with one network and take turns, so that other work on the machine slows them alike; medians are
reported, of one thread's CPU time on a CPU. That the ways agree is checked in the run. Speed does not depend on what adapters and
networks have learnt: without --adapters they are fitted for one step, or random.

    python bench/predict_speed.py                                                         # the rooms generator, any machine
    python bench/predict_speed.py --size sd15 --device cuda --precision bf16 --tiny-vae [--compile]
    python bench/predict_speed.py --adapters runs/mine --resolution 512 --device cuda --precision bf16
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from predict_models import RESOLUTIONS, drawer_of, tiny_decoder
from record import describe_device, record, synchronize
from torch import Tensor

from ilora_core.artefact import find_artefacts
from ilora_core.config import RuntimeConfig
from ilora_core.predict import Predictor
from ilora_core.runtime import pick_device

__all__ = ["Ways", "main", "measure", "ratios", "shares_of_floor"]

Draw = Callable[[Tensor], Any]

FLOOR_MS = {"1 map": 5.6, "4 maps": 18.2}
"""Per picture of SD1.5 at 512² on an H100 in bf16: 4.44 and 14.4 TFLOP at 790 TFLOP/s, four fifths of its peak."""


class Ways:
    """Every way to draw with one predictor, by name."""

    def __init__(self, drawer: Predictor, tiny: Any = None):
        self.drawer, self.tiny, self.adapters = drawer, tiny, dict(drawer.adapters)

    def all(self) -> Iterator[tuple[str, Draw]]:
        """(name, what draws): with the VAE, then with the tiny one, then decoders alone."""
        first, *_ = names = list(self.adapters)
        every = f"{len(names)} maps"
        for decoder, note in ((None, ""), (self.tiny, ", tiny VAE")) if self.tiny else ((None, ""),):
            yield f"1 map{note}", partial(self.draw, [first], one_by_one=True, decoder=decoder)
            if len(names) > 1:
                yield f"{every}, together{note}", partial(self.draw, names, one_by_one=False, decoder=decoder)
                yield f"{every}, one by one{note}", partial(self.draw, names, one_by_one=True, decoder=decoder)
        if len(names) > 1:
            yield f"{every}, apart", self.apart
        if self.tiny:
            yield "decoder, full", partial(self.decode, decoder=None)
            yield "decoder, tiny", partial(self.decode, decoder=self.tiny)

    def draw(
        self, names: Sequence[str], pictures: Tensor, *, one_by_one: bool, decoder: Any = None
    ) -> dict[str, Tensor]:
        """Maps by these adapters from one encode."""
        self.drawer.adapters = {name: self.adapters[name] for name in names}
        self.drawer.one_by_one = one_by_one
        self._put(decoder)
        return self.drawer(pictures)

    def apart(self, pictures: Tensor) -> dict[str, Tensor]:
        """All maps, each from an encode of its own."""
        drawn: dict[str, Tensor] = {}
        for name in self.adapters:
            drawn |= self.draw([name], pictures, one_by_one=True)
        return drawn

    @torch.inference_mode()
    def decode(self, pictures: Tensor, *, decoder: Any) -> Tensor:
        """A random latent per picture."""
        generator: Any = self.drawer.generator
        self._put(decoder)
        size = (
            len(pictures),
            generator.vae.config.latent_channels,
            *(s // generator.factor for s in pictures.shape[-2:]),
        )
        with self.drawer._accelerator.autocast():
            return generator._decode_map(torch.randn(size, generator=torch.Generator().manual_seed(0)))

    def _put(self, decoder: Any) -> None:
        if hasattr(self.drawer.generator, "tiny_vae"):
            self.drawer.generator.tiny_vae = decoder  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    """Measure and write bench/results/."""
    args = _options()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    runtime = RuntimeConfig(device=args.device, precision=args.precision, compile=args.compile)
    with tempfile.TemporaryDirectory() as folder:
        if args.adapters:
            drawer = Predictor(find_artefacts(args.adapters), runtime=runtime)
        else:
            drawer = drawer_of(args.size, Path(folder) / "run", runtime)
    side = args.resolution or (drawer.generator.resolution[0] if args.adapters else RESOLUTIONS[args.size])
    drawer.generator.resolution = (side, side)
    ways = Ways(drawer, tiny_decoder() if args.tiny_vae else None)
    chosen = {name: draw for name, draw in ways.all() if args.only in name}
    pictures = torch.rand(args.batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds = measure(chosen, pictures, device, rounds=args.rounds)
    results = {
        "seconds_per_picture": {f"{way}, batch {batch}": told for (way, batch), told in seconds.items()},
        **ratios(seconds),
        "largest_difference": difference(chosen, pictures),
        "peak_gb": {way: peak_gb(draw, pictures, device) for way, draw in chosen.items()},
        "share_of_floor": shares_of_floor(seconds, describe_device(device)["name"], args, side),
    }
    results = {key: value for key, value in results.items() if value and None not in value.values()}
    network = "adapters" if args.adapters else args.size
    settings = {**vars(args), "resolution": side, "maps": len(ways.adapters), "clock": _clock(device).__name__}
    name = f"predict-speed-{network}{'-compiled' if args.compile else ''}{f'-{args.only}' if args.only else ''}"
    path = record(name, device, settings=settings, results=results)
    for key, told in results.items():
        print(key, *(f"\n    {what}: {value:.4g}" for what, value in told.items()))
    print(path.name)


def measure(
    ways: dict[str, Draw], pictures: Tensor, device: torch.device, *, rounds: int, warmup: int = 1
) -> dict[tuple[str, int], float]:
    """(way, pictures at once) -> median seconds per picture, for one at once and for all."""
    clock = _clock(device)
    times: dict[tuple[str, int], list[float]] = {(way, batch): [] for way in ways for batch in (1, len(pictures))}
    for number in range(warmup + rounds):
        for (way, batch), taken in times.items():
            synchronize(device)
            started = clock()
            for part in pictures.split(batch):
                ways[way](part)
            synchronize(device)
            if number >= warmup:
                taken.append((clock() - started) / len(pictures))
    return {key: statistics.median(taken) for key, taken in times.items()}


def ratios(seconds: dict[tuple[str, int], float]) -> dict[str, dict[str, float]]:
    """How many times as long one way takes as another, at each batch."""
    every = next((way.partition(",")[0] for way, _ in seconds if " maps" in way), "")
    pairs = {
        "one_by_one_over_together": (f"{every}, one by one", f"{every}, together"),
        "apart_over_together": (f"{every}, apart", f"{every}, together"),
        "apart_over_one_by_one": (f"{every}, apart", f"{every}, one by one"),
        "all_maps_over_one": (f"{every}, together", "1 map"),
        "full_over_tiny_vae_1_map": ("1 map", "1 map, tiny VAE"),
        "full_over_tiny_vae_all_maps": (f"{every}, together", f"{every}, together, tiny VAE"),
        "full_over_tiny_decoder": ("decoder, full", "decoder, tiny"),
    }
    told = {}
    for name, (slow, quick) in pairs.items():
        both = {
            f"batch {b}": s / seconds[quick, b]
            for (way, b), s in seconds.items()
            if way == slow and (quick, b) in seconds
        }
        told |= {name: both} if both else {}
    return told


def difference(ways: dict[str, Draw], pictures: Tensor) -> dict[str, float]:
    """The largest difference of any map drawn together to the same map one by one, and apart."""
    every = [way for way in ways if " maps" in way and "tiny" not in way]
    drawn = {way: ways[way](pictures) for way in every}
    together = [way for way in every if "together" in way]
    return {
        f"{first} to {way}": max(float((drawn[first][name] - value).abs().max()) for name, value in drawn[way].items())
        for first in together
        for way in every
        if way != first
    }


def shares_of_floor(
    seconds: dict[tuple[str, int], float], device: str, args: argparse.Namespace, side: int
) -> dict[str, float]:
    """What an H100 could do at best over what was measured; empty on any other device and for any other work."""
    if "H100" not in device or (args.size, args.precision, side, args.adapters) != ("sd15", "bf16", 512, ""):
        return {}
    return {
        f"{way}, batch {batch}": FLOOR_MS[way.partition(",")[0]] / (1000 * told)
        for (way, batch), told in seconds.items()
        if way.partition(",")[0] in FLOOR_MS and "tiny" not in way and "apart" not in way
    }


def peak_gb(draw: Draw, pictures: Tensor, device: torch.device) -> float | None:
    """Peak memory of drawing all pictures at once; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    draw(pictures)
    synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)


def _clock(device: torch.device) -> Callable[[], float]:
    """Of a CPU the time that the process had, which other work on the machine does not lengthen."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=tuple(RESOLUTIONS), default="rooms")
    parser.add_argument("--adapters", default="", help="what a fit wrote, in place of --size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny-vae", action="store_true", help="of --size small and sd15")
    parser.add_argument("--only", default="", help="ways that have this word in their name")
    parser.add_argument("--resolution", type=int, default=0, help="0 = what the network is for")
    for name, value in (("batch", 8), ("rounds", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.tiny_vae and (args.size == "rooms" or args.adapters):
        parser.error("--tiny-vae is for --size small or sd15: the rooms codec is no VAE of Stable Diffusion.")
    return args


if __name__ == "__main__":
    main()
