"""Trains the rooms labeler from nothing on the `labeller` split, on a GPU or a CPU, in pieces that resume.

    L = (1 − n̂·n) + ½|n̂ − n|  +  |δ| + ½|δ − δ̄|  +  2|â − a|  +  |ŝ − s|  +  ⅕ BCE(pane)
    n normals;  δ = log ẑ − log z, with δ̄ its mean over the picture;  a albedo, sRGB-encoded;  s = √shading

Means are over valid pixels. The scale-invariant depth term follows Eigen et al. 2014 (arXiv 1406.2283). A room is also
shown mirrored (n_x changes its sign), under a light of another strength and tint (picture and shading change together),
and its picture slightly blurred, noisy or of another gamma, since generators' pictures are. Every random draw of step k
comes from a generator seeded by (seed, k), so an interrupted run continues as if it had not been interrupted.

    python -m ilora_rooms.pretrain_labeller --out DIR --device cpu --minutes 30 --resume
    python -m ilora_rooms.pretrain_labeller --export DIR       # ships DIR's average as the package's labeller
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ilora_core.intrinsics import linear_to_srgb, srgb_to_linear, unit_vectors
from ilora_rooms.checkpoint import latest_state, load_state, save_state
from ilora_rooms.experiment import Rows
from ilora_rooms.labeller import CHANNELS, SHIPPED, WIDTHS, RoomsLabeler, RoomsNet, encode
from ilora_rooms.labeller_export import export_labeller
from ilora_rooms.labeller_report import blurred, headline, score_labeller
from ilora_rooms.pretrain_options import options, parsed
from ilora_rooms.render import WORLD
from ilora_rooms.source import RoomsSource

__all__ = ["LabelPlan", "LabelTrainer", "answers_of", "augment", "losses", "main"]


PARTS = ("normals", "depth", "albedo", "shading", "pane")


@dataclass(frozen=True)
class LabelPlan:
    """What decides the weights. Times and devices do not belong here."""

    rooms: int = 6000
    batch: int = 16
    lr: float = 2e-3
    warmup: int = 100
    visits: int = 150_000  # the cosine ends here, at 2 % of lr
    weight_decay: float = 0.01
    ema: float = 0.998
    seed: int = 0
    widths: tuple[int, int, int] = WIDTHS


def answers_of(rooms: RoomsSource) -> Tensor:
    """What a perfect network answers to rooms: (N,11,H,W) in float16. Their pictures can be made from it."""
    parts = []
    for batch in rooms:
        maps = {name: value for name, (value, _) in batch.maps.items()}
        parts.append(encode(maps, batch.maps["depth"][1]).half())
    return torch.cat(parts)


class LabelTrainer:
    """Network, average and optimiser, and one step of training."""

    def __init__(self, plan: LabelPlan, answers: Tensor, device: str = "cpu") -> None:
        self.plan, self.device = plan, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net = RoomsNet(plan.widths)
        self.net = net.to(self.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.answers = answers.to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay
        )
        self.step_number = self.visits = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        """Pictures and answers of this step, drawn from the step's own generator."""
        rng = torch.Generator(self.device).manual_seed((self.plan.seed << 40) + self.step_number)
        index = torch.randint(len(self.answers), (self.plan.batch,), generator=rng, device=self.device)
        return augment(self.answers[index].float(), rng)

    def learning_rate(self) -> float:
        plan, floor = self.plan, 0.02
        warm = min(1.0, (self.step_number + 1) / plan.warmup)
        done = min(1.0, self.visits / plan.visits)
        return plan.lr * warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)

    def step(self) -> Tensor:
        """One update; returns the parts of the loss, detached, still on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        pictures, answers = self.batch()
        parts = losses(self.net(pictures.contiguous(memory_format=torch.channels_last)), answers)
        self.optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step_number += 1
        self.visits += self.plan.batch
        decay = min(self.plan.ema, (1 + self.step_number) / (10 + self.step_number))
        raw = [p.detach() for p in self.net.parameters()]
        torch._foreach_lerp_(list(self.average.values()), raw, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        return parts.detach()

    def averaged(self) -> RoomsNet:
        """A network on the CPU that holds the averaged weights."""
        net = RoomsNet(self.plan.widths)
        for name, parameter in net.named_parameters():
            parameter.data.copy_(self.average[name])
        return net.eval()

    def save(self, out: Path, facts: dict[str, object]) -> Path:
        meta = {**facts, "visits": self.visits, "step": self.step_number, "plan": asdict(self.plan)}
        return save_state(out, meta, self.net, self.average, self.optimiser)

    def load(self, folder: Path) -> dict[str, object]:
        meta = load_state(folder, self.net, self.average, self.optimiser)
        self.step_number, self.visits = int(str(meta["step"])), int(str(meta["visits"]))
        return meta


def augment(answers: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Answers (B,11,H,W) -> pictures (B,3,H,W) and answers, both of the room as this step shows it."""
    here = {"generator": rng, "device": answers.device}
    count = len(answers)

    def chance(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, **here) < share).float()

    def spread(channels: int, deviation: float) -> Tensor:
        return (torch.randn(count, channels, 1, 1, **here) * deviation).exp()

    mirror = chance(0.5)
    answers = torch.where(mirror.bool(), answers.flip(-1), answers)
    normals, depth, albedo, shading, pane = answers.split((3, 1, 3, 3, 1), 1)
    normals = torch.cat([normals[:, :1] * (1 - 2 * mirror), normals[:, 1:]], 1)
    light = 1 + chance(0.5) * (spread(1, 0.2) * spread(3, 0.06) - 1)
    shading = shading * light.sqrt()
    pictures = linear_to_srgb(srgb_to_linear(albedo) * shading.square())
    pictures = pictures ** (1 + chance(0.3) * (spread(1, 0.08) - 1))
    soft = chance(0.3) * torch.rand(count, 1, 1, 1, **here)
    pictures = pictures + soft * (blurred(pictures) - pictures)
    noise = chance(0.4) * torch.rand(count, 1, 1, 1, **here) * 0.05
    pictures = (pictures + noise * torch.randn(pictures.shape, **here)).clamp(0, 1)
    return pictures, torch.cat([normals, depth, albedo, shading, pane], 1)


def losses(guess: Tensor, truth: Tensor) -> Tensor:
    """Weighted losses (5,) of answers (B,11,H,W): normals, depth, albedo, shading, pane."""
    guesses, truths = (answers.split((3, 1, 3, 3, 1), 1) for answers in (guess, truth))
    weight = (truths[4] <= 0).float()
    per_picture = weight.sum((1, 2, 3), keepdim=True).clamp(min=1)

    def mean(error: Tensor) -> Tensor:
        return (error.mean(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1)

    unit = unit_vectors(guesses[0])
    normals = mean(1 - (unit * truths[0]).sum(1, keepdim=True)) + 0.5 * mean((unit - truths[0]).abs())
    off = guesses[1] - truths[1]
    shift = (off * weight).sum((1, 2, 3), keepdim=True) / per_picture
    depth = mean(off.abs()) + 0.5 * mean((off - shift).abs())
    albedo, shading = mean((guesses[2] - truths[2]).abs()), mean((guesses[3] - truths[3]).abs())
    pane = binary_cross_entropy_with_logits(guesses[4], 1 - weight)
    return torch.stack([normals, depth, 2 * albedo, shading, 0.2 * pane])


def run(trainer: LabelTrainer, out: Path, args: argparse.Namespace) -> None:
    """Steps until the plan's visits, the minutes or a signal end it; checkpoints and a JSON-lines log."""
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stop.append(got))
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{platform.machine()} CPU"
    facts: dict[str, object] = {"device": name, "torch": torch.__version__, "world": WORLD}
    start = saved = time.monotonic()
    begun, seen = trainer.visits, []
    while trainer.visits < trainer.plan.visits and time.monotonic() - start < 60 * args.minutes and not stop:
        seen.append(trainer.step())
        if trainer.step_number % args.log_every == 0:
            mean = dict(zip(PARTS, torch.stack(seen).mean(0).tolist(), strict=True))
            seconds = time.monotonic() - start
            row = {"visits": trainer.visits, **{k: round(v, 4) for k, v in mean.items()}}
            row |= {"seconds": round(seconds, 1), "visits_per_s": round((trainer.visits - begun) / seconds, 1)}
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
            seen = []
        if time.monotonic() - saved > 60 * args.save_minutes:
            trainer.save(out, facts)
            saved = time.monotonic()
    print(f"stopped at {trainer.visits} visits, state in {trainer.save(out, facts)}", flush=True)


def ship(out: Path, target: Path, judged: int, size: int) -> None:
    """Export the average of a run's latest state with its own errors on `judged` test rooms of this size."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pretrain_labeller first")
    meta = json.loads((state / "state.json").read_text())
    plan = LabelPlan(**{**meta["plan"], "widths": tuple(meta["plan"]["widths"])})
    trainer = LabelTrainer(plan, torch.empty(0, CHANNELS, 8, 8))
    trainer.load(state)
    net = trainer.averaged()
    facts = {key: meta[key] for key in ("visits", "device", "torch", "world", "plan")}
    test = Rows.of(RoomsSource(split="test", n=judged, size=size))
    halved = RoomsLabeler(copy.deepcopy(net).half().float())  # what a user will load
    facts["own_errors"] = {"split": "test", "n": judged, **headline(score_labeller(halved, test))}
    export_labeller(net, target, facts)
    print(f"exported {meta['visits']} visits to {target}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, shipped=SHIPPED, holds="", exports="write OUT's average as a labeller", shards=False)
    parser.add_argument(
        "--n", type=int, default=LabelPlan.rooms, help="rooms to learn from; rendered once, kept on disk"
    )
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, learnt from or judged on")
    parser.add_argument("--visits", type=int, default=LabelPlan.visits, help="pictures seen, where the cosine ends")
    parser.add_argument("--batch", type=int, default=LabelPlan.batch)
    parser.add_argument("--lr", type=float, default=LabelPlan.lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judged", type=int, default=100, help="test rooms that an export is scored on")
    return parsed(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return ship(args.export, args.to, args.judged, args.size)
    args.out.mkdir(parents=True, exist_ok=True)
    state = latest_state(args.out)
    if state is not None and not args.resume:
        raise SystemExit(f"{args.out} holds a run already ({state.name}): add --resume or choose another folder")
    source = RoomsSource(split="labeller", n=args.n, size=args.size, device=args.device, batch_size=50)
    plan = LabelPlan(rooms=args.n, batch=args.batch, lr=args.lr, visits=args.visits, seed=args.seed)
    trainer = LabelTrainer(plan, answers_of(source), args.device)
    if state is not None:
        trainer.load(state)
    return run(trainer, args.out, args)


if __name__ == "__main__":
    main()
