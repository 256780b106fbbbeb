"""How near a generator's samples come to rooms: a Fréchet distance on the features of the rooms labeler.

    d² = ‖μ_a − μ_b‖² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)          (FID: Heusel et al. 2017, arXiv 1706.08500)

μ and Σ are mean and covariance of 128 features a picture: what the deepest blocks of the shipped labeler network put out,
averaged over places. torchmetrics computes the distance. It is a FID of the rooms world and cannot be compared with one on
Inception's features, nor across numbers of pictures: fewer make it larger, for real rooms too. So it is read between bounds
from as many pictures:

    real rooms   the next n rooms of the split
    codec        those, through the generator's encoder and decoder, where it has an encoder
    untrained    samples of the same architecture with random weights

References are the first n rooms of the `test` split, which no generator, codec or labeler learnt from. The rooms LDM draws
with their captions, other generators draw from their prior.

    python -m ilora_rooms.quality --generator rooms --n 500
    python -m ilora_rooms.quality --generator rooms --weights OUT/visits-001000 OUT/visits-004000 shipped --out quality.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ilora_core.errors import CannotEncode, DataError
from ilora_core.files import write_json
from ilora_core.noise import mix_seeds
from ilora_core.plugins import load_plugins
from ilora_core.protocols import Generator
from ilora_core.report import versions
from ilora_sd.model import StableDiffusion

from . import model
from .labeller import WIDTHS, RoomsNet, labeler
from .scene import build_scene
from .sheet import grid, save
from .source import RoomsSource

__all__ = ["Quality", "RoomsFeatures", "draw", "frechet", "main", "quality", "rooms_fid"]

_BATCH = 50
_UNTRAINED = {
    "rooms": {"random_unet": True},
    "rooms-aug": {"random_unet": True},
    "rooms-stylegan2": {"random_weights": True},
    "rooms-vqgan": {"random_decoder": True},
}


class RoomsFeatures(nn.Module):
    """Pictures (B,3,H,W) in [0,1], sides multiples of 8, to (B,128): the labeler's deepest activations, averaged over places."""

    num_features = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.net: RoomsNet = labeler().net  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        caught: list[Tensor] = []
        hook = self.net.low.register_forward_hook(lambda _m, _i, out: caught.append(out.mean((2, 3))))
        try:
            for part in pictures.split(_BATCH):
                self.net(part)
        finally:
            hook.remove()
        return torch.cat(caught)


class _Given(nn.Identity):
    """For rows that are features already."""

    num_features = RoomsFeatures.num_features


@dataclass(frozen=True)
class Quality:
    """A rooms FID, and the standard deviation of its bootstrap over the pictures of both sides."""

    fid: float
    sd: float
    n: int


def rooms_fid(pictures_a: Tensor, pictures_b: Tensor) -> float:
    """Between two sets of pictures (N,3,H,W) in [0,1]."""
    return frechet(*(_features(pictures) for pictures in (pictures_a, pictures_b)))


def frechet(rows_a: Tensor, rows_b: Tensor) -> float:
    """Between two sets of features (N,128)."""
    metric = FrechetInceptionDistance(feature=_Given(), normalize=True)
    metric.update(rows_a.double(), real=True)
    metric.update(rows_b.double(), real=False)
    return float(metric.compute())


def quality(rows: Tensor, reference: Tensor, *, resamples: int = 50, seed: int = 0) -> Quality:
    """From features (N,128). Resampled sets hold repeats, which lifts their distances: their spread is used, not their mean."""
    rng = torch.Generator().manual_seed(seed)
    draws = [
        frechet(*(x[torch.randint(len(x), (len(x),), generator=rng)] for x in (rows, reference)))
        for _ in range(resamples)
    ]
    return Quality(frechet(rows, reference), float(torch.tensor(draws).std()), len(rows))


def draw(
    generator: Generator, captions: Sequence[str], *, seed: int = 0, steps: int = 25, guidance: float = 1.0
) -> Tensor:
    """As many samples as captions, (N,3,H,W) in [0,1], rounded to 8 bits as any picture is.

    steps and guidance are DDIM's and hold for the rooms LDM, as captions do: others draw from their prior, by their own settings.
    """
    parts = []
    for start in range(0, len(captions), _BATCH):
        some, own = list(captions[start : start + _BATCH]), mix_seeds(seed, start)
        if isinstance(generator, StableDiffusion):
            parts.append(model.sample(_parts(generator), some, seed=own, steps=steps, guidance=guidance))
        else:
            parts.append(generator.picture(generator.sample(len(some), seed=own)))
    return (torch.cat(parts).cpu() * 255).round() / 255


def _parts(generator: StableDiffusion) -> model.Generator:
    scheduler: Any = DDIMScheduler.from_config(dict(generator.scheduler_config))
    tokenizer: Any = generator.tokenizer
    unet, text, codec = (
        part.to(generator.unet.device) for part in (generator.unet, generator.text_encoder, generator.vae)
    )
    return model.Generator(unet, text, tokenizer, codec, scheduler)


def _features(pictures: Tensor) -> Tensor:
    if len(pictures) < 2 or pictures.shape[-2] % 8 or pictures.shape[-1] % 8:
        raise DataError(
            f"a rooms FID needs two pictures or more with sides that are multiples of 8, not {tuple(pictures.shape)}."
        )
    return RoomsFeatures()(pictures.float())


def _measured(args: argparse.Namespace) -> Iterator[tuple[str, Tensor, Mapping[str, Any]]]:
    """Reference, bounds and samples: a name, pictures (N,3,H,W), and what is known of the generator."""
    host, n = load_plugins(), args.n
    made: dict[str, Any] = {}
    if args.untrained and args.generator in _UNTRAINED:
        made["untrained"] = host.make("generators", args.generator, **_UNTRAINED[args.generator])
    for name in args.weights:  # all of them before the first is drawn from: what is missing is told at once
        made[name] = host.make("generators", args.generator, weights="" if name == "shipped" else name)
    source = RoomsSource(split="test", n=2 * n, device=args.device)
    rooms = torch.cat([batch.pictures for batch in source])
    captions = [build_scene(seed).caption for seed in source.seeds[:n]]
    yield "reference", rooms[:n], {}
    yield "real rooms", rooms[n:], {}
    try:
        codec = made[args.weights[0]].to(args.device)
        yield "codec", torch.cat([codec.picture(codec.encode(x)).cpu() for x in rooms[n:].split(_BATCH)]), {}
    except CannotEncode:
        pass
    for name, generator in made.items():
        drawn = draw(generator.to(args.device), captions, seed=args.seed, steps=args.steps, guidance=args.guidance)
        yield name, drawn, generator.provenance


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="rooms", help="a generator of rooms, such as rooms-stylegan2")
    parser.add_argument("--weights", nargs="+", default=["shipped"], help="folders of its weights, or `shipped`")
    parser.add_argument("--n", type=int, default=500, help="samples, and rooms to hold them against")
    parser.add_argument("--steps", type=int, default=25, help="of DDIM, for the rooms LDM")
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="weight of the caption, for the rooms LDM; 1 = none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where rooms are rendered and samples drawn")
    parser.add_argument("--untrained", action=argparse.BooleanOptionalAction, default=True, help="random weights too")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures there")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="draw the first 64 pictures of each row there")
    args = parser.parse_args(argv)
    if args.n < 2:
        parser.error("--n is at least 2: a single picture has no covariance")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args, features = parse(argv), RoomsFeatures()
    reference, results = torch.empty(0), {}
    for number, (name, pictures, about) in enumerate(_measured(args)):
        rows = features(pictures)
        if args.sheets:
            args.sheets.mkdir(parents=True, exist_ok=True)
            save(grid(pictures[:64], 8), args.sheets / f"{number}-{Path(name).name.replace(' ', '-')}.png")
        if not number:
            reference = rows
            continue
        found = quality(rows, reference)
        results[name] = {**asdict(found), "visits": about.get("visits")}
        seen = f", {about['visits']} visits" if "visits" in about and name != "untrained" else ""
        print(f"{name}{seen}: rooms FID {found.fid:.1f} ± {found.sd:.1f} (n = {found.n})", flush=True)
    if args.out:
        settings = {key: getattr(args, key) for key in ("generator", "n", "steps", "guidance", "seed")}
        write_json(
            args.out, {"benchmark": "rooms-fid", "settings": settings, "versions": versions(), "results": results}
        )


if __name__ == "__main__":
    main()
