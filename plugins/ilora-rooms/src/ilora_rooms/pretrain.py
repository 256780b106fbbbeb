"""Pre-trains the rooms generator from nothing, on a GPU or a CPU, in pieces that resume.

    L = E_{z,t,ε} [ w(t) ‖ target − f(√ᾱ_t z + √(1−ᾱ_t) ε, t, caption) ‖² ]
    target = ε,  w = min(SNR, 5)/SNR          or         target = √ᾱ ε − √(1−ᾱ) z,  w = min(SNR, 5)/(SNR + 1)

(Ho et al. 2020; Salimans & Ho 2022; min-SNR: Hang et al. 2023.) Every random draw of step n comes from a generator
seeded by (seed, n), so an interrupted run continues as if it had not been interrupted.

    python -m ilora_rooms.pretrain --out DIR --device cpu --minutes 60 --resume
    python -m ilora_rooms.pretrain --export DIR            # ships DIR's average as the package's weights
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import argparse
import json
import math
import platform
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .checkpoint import latest_state, load_state, save_state
from .codec import PatchCodec, gate
from .data import Pictures
from .export import export_folder
from .model import WIDTHS, Generator, build, sample
from .pretrain_options import options, parsed, refuse_or_resume, rendered
from .render import WORLD, render
from .sheet import grid, save
from .splits import seeds

__all__ = ["Plan", "Trainer", "main"]

MILESTONES = (10_000, 30_000, 60_000, 120_000, 250_000, 500_000, 1_000_000, 2_000_000, 3_000_000)
SHIPPED = Path(__file__).parent / "weights" / "ldm"
SAMPLE_CAPTIONS = [
    "a pink bedroom with a wooden floor, a red bed, a window", "a blue room with a checkered floor, a yellow ball",
    "a green striped livingroom with a beige floor, an orange sofa",
    "a white study with a wooden floor, a brown desk, a window",
    "a red room with a grey floor, a white block", "a beige tiled room with a wooden floor, a blue chair, a teal table",
    "a purple gallery with a white floor, a yellow column",
    "a teal room with a tiled floor, a dark shelf, a pink crate",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here."""

    prediction: str = "epsilon"
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 100
    decay_visits: int = 0  # cosine decay to 5 % of lr at this many visits; 0 = constant
    weight_decay: float = 0.01
    ema: float = 0.998
    caption_dropout: float = 0.1
    snr_cap: float = 5.0
    seed: int = 0
    widths: tuple[int, ...] = WIDTHS
    channels: int = 12


class Trainer:
    """Model, average and optimiser, and one step of training."""

    def __init__(self, plan: Plan, codec: PatchCodec, data: Pictures, device: str = "cpu") -> None:
        generator = build(codec, plan.prediction, seed=plan.seed, widths=plan.widths)
        self._begin(generator, generator.networks, plan, data, device)

    def _begin(self, generator: Generator, networks: nn.ModuleDict, plan: Any, data: Pictures, device: str) -> None:
        """networks: those of the generator's parts that are trained."""
        self.plan, self.data, self.device = plan, data, torch.device(device)
        self.generator = generator
        for part in (self.generator.unet, self.generator.text, self.generator.codec):
            part.to(self.device)
        self.networks = networks.train()
        self.average = {k: v.detach().clone() for k, v in self.networks.named_parameters()}
        self.optimiser = torch.optim.AdamW(
            self.networks.parameters(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay
        )
        self.alphas = self.generator.scheduler.alphas_cumprod.to(self.device)
        self.net, self.step_number, self.visits = self.generator.unet, 0, 0
        self.refresh()

    def refresh(self) -> None:
        """Look for new shards; tokens and pictures then live on the device."""
        if self.data.rescan() or not hasattr(self, "tokens"):
            self.tokens = self.generator.tokens([*self.data.captions, ""]).to(self.device)
            self.pictures = self.data.pictures.to(self.device)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, tokens, timesteps and noise of this step, all drawn from the step's own generator."""
        n, plan = self.plan.batch, self.plan
        rng = torch.Generator(self.device).manual_seed((plan.seed << 40) + self.step_number)
        here = {"generator": rng, "device": self.device}
        index = torch.randint(len(self.data), (n,), **here)
        flip, drop = torch.rand(n, **here) < 0.5, torch.rand(n, **here) < plan.caption_dropout
        t = torch.randint(len(self.alphas), (n,), **here)
        pictures = self.pictures[index].float() / 255
        pictures = torch.where(flip[:, None, None, None], pictures.flip(-1), pictures)
        latents = self.generator.latents(pictures)
        noise = torch.randn(latents.shape, **here)
        tokens = self.tokens[torch.where(drop, len(self.data), index)]
        return latents, tokens, t, noise

    def loss(self) -> Tensor:
        z, tokens, t, noise = self.batch()
        alpha = self.alphas[t][:, None, None, None]
        signal_part, noise_part = alpha.sqrt(), (1 - alpha).sqrt()
        snr = (alpha / (1 - alpha)).flatten()
        if self.plan.prediction == "epsilon":
            target, weight = noise, snr.clamp_max(self.plan.snr_cap) / snr
        else:
            target, weight = signal_part * noise - noise_part * z, snr.clamp_max(self.plan.snr_cap) / (snr + 1)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            context = self.generator.text(tokens).last_hidden_state
            guess = self.net(signal_part * z + noise_part * noise, t, context).sample
        return (weight * (guess.float() - target).square().mean((1, 2, 3))).mean()

    def learning_rate(self) -> float:
        plan, floor = self.plan, 0.05
        warm = min(1.0, (self.step_number + 1) / plan.warmup)
        done = min(1.0, self.visits / plan.decay_visits) if plan.decay_visits else 0.0
        return plan.lr * warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)

    def step(self) -> Tensor:
        """One update; returns the loss, still on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        loss = self.loss()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self.step_number += 1
        self.visits += self.plan.batch
        decay = min(self.plan.ema, (1 + self.step_number) / (10 + self.step_number))
        raw = [p.detach() for p in self.networks.parameters()]
        torch._foreach_lerp_(list(self.average.values()), raw, 1 - decay)
        return loss.detach()

    def averaged(self) -> Generator:
        """A generator on the CPU that holds the averaged weights."""
        plan = self.plan
        copy = build(self.generator.codec.to("cpu"), plan.prediction, seed=plan.seed, widths=plan.widths)
        for name, parameter in copy.networks.named_parameters():
            parameter.data.copy_(self.average[name])
        copy.networks.eval()
        self.generator.codec.to(self.device)
        return copy

    def save(self, out: Path, meta: dict[str, object], *, compact: bool = False) -> Path:
        meta = {**meta, "visits": self.visits, "step": self.step_number, "plan": asdict(self.plan)}
        return save_state(out, meta, self.networks, self.average, self.optimiser, compact=compact)

    def load(self, folder: Path) -> dict[str, object]:
        meta = load_state(folder, self.networks, self.average, self.optimiser)
        self.step_number, self.visits = int(str(meta["step"])), int(str(meta["visits"]))
        return meta


def versions(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU"
    return {"device": name, "torch": torch.__version__, "diffusers": diffusers.__version__, "world": WORLD}


def fit_codec(out: Path, data: Pictures, channels: int) -> PatchCodec:
    """The codec of this run: fitted once on the first 2000 pictures and kept; stops the run if it misses the gate."""
    folder = out / "codec"
    if folder.exists():
        return PatchCodec.from_pretrained(folder)
    codec = PatchCodec.fit(data.pictures[:2000].float() / 255, channels=channels)
    ceiling = gate(codec, render(seeds("labels", 100)))
    print(f"codec gate: {ceiling}", flush=True)
    if not ceiling.passed:
        raise SystemExit(f"the codec misses its gate, training would measure the codec: {ceiling}")
    codec.save_pretrained(folder)
    (out / "codec.json").write_text(json.dumps(asdict(ceiling)))
    return codec


def milestone(trainer: Trainer, folder: Path, provenance: dict[str, object]) -> None:
    """Export the averaged weights and draw samples from them."""
    generator = trainer.averaged()
    export_folder(generator, folder, provenance)
    save(grid(sample(generator, SAMPLE_CAPTIONS * 2), 8), folder.with_suffix(".png"))


def run(trainer: Trainer, out: Path, args: argparse.Namespace) -> None:
    """Steps until the visits, the minutes or a signal end it; checkpoints, milestones and a JSON-lines log."""
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stop.append(got))
    start = saved = time.monotonic()
    facts: dict[str, object] = dict(versions(args.device))
    losses: list[Tensor] = []
    begun = trainer.visits
    while trainer.visits < args.visits and time.monotonic() - start < 60 * args.minutes and not stop:
        before = trainer.visits
        losses.append(trainer.step())
        if trainer.step_number % args.log_every == 0:
            seconds = time.monotonic() - start
            row = {"visits": trainer.visits, "loss": float(torch.stack(losses).mean()), "pictures": len(trainer.data)}
            row |= {"seconds": round(seconds, 1), "visits_per_s": round((trainer.visits - begun) / seconds, 2)}
            losses = []
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
            trainer.refresh()
        for mark in MILESTONES:
            if before < mark <= trainer.visits:
                milestone(trainer, out / "snapshots" / f"{mark:09d}", {**facts, "visits": trainer.visits})
        if time.monotonic() - saved > 60 * args.save_minutes:
            trainer.save(out, facts, compact=args.compact)
            saved = time.monotonic()
    path = trainer.save(out, facts, compact=args.compact)
    print(f"stopped at {trainer.visits} visits, state in {path}", flush=True)


def ship(out: Path, target: Path) -> None:
    """Export the latest state of a run; `target` defaults to the package's own weights."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pre-training first")
    meta = json.loads((state / "state.json").read_text())
    plan = Plan(**{**meta["plan"], "widths": tuple(meta["plan"]["widths"])})
    codec = PatchCodec.from_pretrained(out / "codec")
    trainer = Trainer(plan, codec, Pictures(out / "nowhere"))
    trainer.load(state)
    facts = {k: meta[k] for k in ("visits", "device", "torch", "diffusers")}
    facts |= {"plan": meta["plan"], "codec_ceiling": json.loads((out / "codec.json").read_text())}
    milestone(trainer, target, facts)
    target.with_suffix(".png").replace(out / "shipped.png")
    print(f"exported {meta['visits']} visits to {target}; samples in {out / 'shipped.png'}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(
        __doc__, shipped=SHIPPED, holds=", snapshots", exports="write OUT's average as the shipped weights"
    )
    parser.add_argument("--visits", type=int, default=3_000_000)
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="epsilon")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--snr-cap", type=float, default=Plan.snr_cap, help="min-SNR weighting; 1e9 = none, as SD")
    parser.add_argument("--decay-visits", type=int, default=0, help="cosine decay of lr, ending here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile the UNet")
    return parsed(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return ship(args.export, args.to)
    cache = rendered(args)
    data = Pictures(cache)
    data.rescan()
    codec = fit_codec(args.out, data, Plan.channels)
    plan = Plan(
        prediction=args.prediction,
        batch=args.batch,
        lr=args.lr,
        decay_visits=args.decay_visits,
        snr_cap=args.snr_cap,
        seed=args.seed,
    )
    trainer = Trainer(plan, codec, data, args.device)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    if args.compile:
        trainer.net = torch.compile(trainer.generator.unet)
    run(trainer, args.out, args)
    return None


if __name__ == "__main__":
    main()
