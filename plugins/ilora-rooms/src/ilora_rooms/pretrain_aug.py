"""Teaches the rooms generator to look at a picture: InstructPix2Pix (Brooks et al., arXiv 2211.09800) in miniature.

    L = E_{A,B,t,ε} ‖ U([√a_t z_B + √(1−a_t) ε, c_A], t, caption of B) − v ‖²,    v = √a_t ε − √(1−a_t) z_B

A and B show one room in different colours and light (`restyle`), c_A = z_A without the codec's scale, a_{T−1} = 0 (zero terminal
SNR). The UNet starts as the shipped one, its first convolution widened by zeros, and turns from ε to v on the way; all of it is
trained, the text encoder is not. Caption and picture are each left out for a share of the samples, as guidance needs it. The
result is what `rooms-aug` puts adapters on, and no map was involved in it.

    python -m ilora_rooms.pretrain_aug --out DIR --device cpu --minutes 60 --resume
    python -m ilora_rooms.pretrain_aug --export DIR            # ships DIR's average as the package's weights
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from ilora_core.intrinsics import Intrinsic
from ilora_sd.loading import Components
from ilora_sd.schedule import alphas, noised, velocity
from ilora_sd.widening import widen

from .checkpoint import latest_state
from .data import Pictures
from .export import export_folder, load_folder
from .model import Generator
from .pretrain import SHIPPED as BASE
from .pretrain import Trainer as Pretraining
from .pretrain import versions
from .pretrain_loop import steps
from .pretrain_options import options, parsed, refuse_or_resume, rendered
from .render import render
from .sheet import grid, save
from .splits import seeds

__all__ = ["SHIPPED", "STYLES", "Plan", "Trainer", "main"]

SHIPPED = Path(__file__).parent / "weights" / "aug"
STYLES = 3
"""Pictures of each room."""
REPAINTED = (
    "a red room with a blue floor",
    "a white room with a green floor",
    "a teal room with a wooden floor",
)


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here."""

    batch: int = 16
    lr: float = 4e-4
    warmup: int = 100
    decay_visits: int = 0  # cosine decay to 5 % of lr at this many visits; 0 = constant
    weight_decay: float = 0.01
    ema: float = 0.998
    caption_dropout: float = 0.1
    picture_dropout: float = 0.1
    seed: int = 0


class Trainer(Pretraining):
    """`pretrain`'s trainer on pairs of styles, its UNet widened."""

    def __init__(self, plan: Plan, data: Pictures, device: str = "cpu", *, base: Path = BASE) -> None:
        generator, self.base = load_folder(base), _facts(base)
        parts = Components(generator.unet, generator.codec, generator.text, generator.tokenizer, {})
        channels = generator.unet.conv_in.weight
        generator.unet = widen(parts, torch.zeros_like(channels)).unet.requires_grad_(True)
        self.table = alphas(dict(generator.scheduler.config), zero_snr=True).to(device)
        self._begin(generator, nn.ModuleDict({"unet": generator.unet}), plan, data, device)
        generator.text.eval().requires_grad_(False)

    @torch.no_grad()
    def pair(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """z_B, c_A, tokens of B, timesteps and noise of this step, all drawn from the step's own generator."""
        n, plan = self.plan.batch, self.plan
        rng = torch.Generator(self.device).manual_seed((plan.seed << 40) + self.step_number)
        here: dict[str, Any] = {"generator": rng, "device": self.device}
        room = torch.randint(len(self.data) // STYLES, (n,), **here) * STYLES
        first = torch.randint(STYLES, (n,), **here)
        second = (first + torch.randint(1, STYLES, (n,), **here)) % STYLES
        flip = torch.rand(n, **here) < 0.5
        no_words, no_picture = (torch.rand(n, **here) < p for p in (plan.caption_dropout, plan.picture_dropout))
        given, wanted = (self._latents(room + style, flip) for style in (first, second))
        condition = given / self.generator.codec.config.scaling_factor
        condition = torch.where(no_picture[:, None, None, None], torch.zeros_like(condition), condition)
        tokens = self.tokens[torch.where(no_words, len(self.data), room + second)]
        return (
            wanted,
            condition,
            tokens,
            torch.randint(len(self.table), (n,), **here),
            torch.randn(wanted.shape, **here),
        )

    def loss(self) -> Tensor:
        wanted, condition, tokens, t, noise = self.pair()
        alpha = self.table[t][:, None, None, None]
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            context = self.generator.text(tokens).last_hidden_state
            guess = self.net(torch.cat([noised(wanted, noise, alpha), condition], 1), t, context).sample
        return (guess.float() - velocity(wanted, noise, alpha)).square().mean()

    def averaged(self) -> Generator:
        """A generator on the CPU that holds the averaged UNet, and a scheduler that knows what it was trained for."""
        unet, text, codec = (
            copy.deepcopy(part).to("cpu") for part in (self.generator.unet, self.generator.text, self.generator.codec)
        )
        for name, parameter in unet.named_parameters():
            parameter.data.copy_(self.average[f"unet.{name}"])
        changed = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        scheduler = DDIMScheduler.from_config(self.generator.scheduler.config, **changed)
        unet.eval().requires_grad_(False)
        return Generator(unet, text, self.generator.tokenizer, codec, scheduler)

    def save(self, out: Path, meta: dict[str, object], *, compact: bool = False) -> Path:
        return super().save(out, {**meta, "base": self.base}, compact=compact)

    def load(self, folder: Path) -> dict[str, object]:
        meta = super().load(folder)
        if meta["base"] != self.base:
            raise SystemExit(f"{folder} began from other weights of the base model: {meta['base']}, not {self.base}")
        return meta

    def _latents(self, index: Tensor, flip: Tensor) -> Tensor:
        pictures = self.pictures[index].float() / 255
        return self.generator.latents(torch.where(flip[:, None, None, None], pictures.flip(-1), pictures))


def _facts(base: Path) -> dict[str, object]:
    """Which weights a run begins from."""
    card = json.loads((base / "weights.json").read_text())
    return {key: card[key] for key in ("name", "visits", "date")}


def ship(out: Path, target: Path) -> None:
    """Export the latest state of a run; `target` defaults to the package's own weights."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pre-training first")
    meta = json.loads((state / "state.json").read_text())
    trainer = Trainer(Plan(**meta["plan"]), Pictures(out / "nowhere", styles=STYLES))
    trainer.load(state)
    facts = {"name": "rooms-aug"}
    facts |= {key: meta[key] for key in ("visits", "device", "torch", "diffusers", "base", "plan")}
    export_folder(trainer.averaged(), target, facts, pipeline="StableDiffusionInstructPix2PixPipeline")
    sheet(target, out / "shipped.png")
    print(f"exported {meta['visits']} visits to {target}; repainted rooms in {out / 'shipped.png'}")


def sheet(folder: Path, path: Path) -> None:
    """Eight test rooms, and below them what the exported model makes of them for each caption of REPAINTED."""
    from .aug import augmented

    model = augmented(weights=str(folder), steps=10)
    pictures = render(seeds("test", 8)).picture.cpu()
    rows = [model.render(model.encode(pictures), Intrinsic("words", 3, "", "srgb", prompt=w)) for w in REPAINTED]
    save(grid(torch.cat([pictures, *rows]), len(pictures)), path)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, shipped=SHIPPED, holds="", exports="write OUT's average as the shipped weights")
    parser.add_argument("--visits", type=int, default=1_000_000)
    for name in ("batch", "seed", "decay_visits"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Plan, name))
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument("--compile", action="store_true", help="torch.compile the UNet")
    return parsed(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return ship(args.export, args.to)
    data = Pictures(rendered(args, styles=STYLES), styles=STYLES)
    plan = Plan(batch=args.batch, lr=args.lr, seed=args.seed, decay_visits=args.decay_visits)
    trainer = Trainer(plan, data, args.device)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    if args.compile:
        trainer.net = torch.compile(trainer.generator.unet)
    steps(trainer, args.out, args, dict(versions(args.device)))
    return None


if __name__ == "__main__":
    main()
