"""Pre-trains the rooms StyleGAN2 from nothing, on a GPU or a CPU, small pictures first, in pieces that resume.

    critic     softplus(D(G(z))) + softplus(−D(x)), every 16th step + 16 γ/2 ‖∇D(x)‖²
    generator  softplus(−D(G(z)))

(Goodfellow et al. 2014; R1: Mescheder et al. 2018; lazily: Karras et al. 2020.) A stage R:N shows N pictures at R². The
generator's image at R is a sum of images of all resolutions up to R, and the critic reads colour at every resolution; what
a later stage adds starts at zero, so training grows without a jump and without blending. Every random draw of step n comes
from a generator seeded by (seed, n): an interrupted run continues as if it had not been interrupted.

    python -m ilora_rooms.pretrain_gan --out DIR --stages 16:100000,32:60000,64:40000 --minutes 60 --resume
    python -m ilora_rooms.pretrain_gan --export DIR            # ships DIR's average as the package's weights
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ilora_stylegan.stylegan2 import StyleGAN2, initialise, learning_rate_groups, stylegan2_config

from .augment import KINDS, augment
from .checkpoint import latest_state
from .data import Pictures
from .discriminator import Discriminator
from .export_gan import export_gan, sample_sheet
from .gan_checkpoint import load_gan_state, save_gan_state
from .gan_plan import Plan, plan_of, stages_of
from .pretrain_options import options, parsed, refuse_or_resume, rendered
from .scene import WORLD

__all__ = ["Trainer", "main", "r1"]

MILESTONES = (10_000, 30_000, 60_000, 120_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
SHIPPED = Path(__file__).parent / "weights" / "stylegan2"
R1_EVERY = 16
EMA_RAMP = 0.05  # the average's half-life is at most this part of the pictures shown so far


def r1(critic: nn.Module, real: Tensor) -> Tensor:
    """Mean over the batch of ‖∂D(x)/∂x‖², with a graph behind it."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


class Trainer:
    """Generator, critic, the generator's average, two optimisers, and one step of training."""

    def __init__(self, plan: Plan, data: Pictures, device: str = "cpu", *, bf16: bool = False) -> None:
        self.plan, self.data, self.device, self.bf16 = plan, data, torch.device(device), bf16
        start, self.resolution = plan.stages[0][0], plan.stages[-1][0]
        self.config = stylegan2_config(
            resolution=self.resolution,
            channel_base=plan.base,
            channel_max=plan.widest,
            mapping_layers=plan.mapping_layers,
            z_dim=plan.latent,
            w_dim=plan.latent,
        )
        generator, critic = StyleGAN2(self.config), Discriminator(self.config.channels, start=start, seed=plan.seed)
        initialise(generator, plan.seed)
        for name, parameter in generator.named_parameters():
            if name.endswith("torgb.weight") and int(name.split(".")[1][1:]) > start:
                nn.init.zeros_(parameter)
        self.networks = nn.ModuleDict({"generator": generator, "critic": critic})
        self.networks.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.generator, self.critic = generator, critic
        # What a compiler may replace.
        self.draw: Callable[..., Tensor] = generator
        self.judge: Callable[..., Tensor] = critic
        self.average = {name: value.detach().clone() for name, value in generator.named_parameters()}
        betas = (0.0, 0.99)
        self.optimisers = (
            torch.optim.Adam(learning_rate_groups(generator, plan.lr), betas=betas),
            torch.optim.Adam(critic.parameters(), lr=plan.lr, betas=betas),
        )
        self.step_number, self.images = 0, 0
        self.refresh()

    def refresh(self) -> None:
        """Look for new shards; the pictures then live on the device."""
        if self.data.rescan() or not hasattr(self, "pictures"):
            self.pictures = self.data.pictures.to(self.device)

    @property
    def total(self) -> int:
        return sum(count for _, count in self.plan.stages)

    def shown(self) -> dict[str, int]:
        """Pictures shown so far at each resolution."""
        counts, left = {}, self.images
        for resolution, count in self.plan.stages:
            counts[str(resolution)] = min(count, left)
            left -= counts[str(resolution)]
        return counts

    def size(self) -> int:
        """The resolution that training is at."""
        left = self.images
        for resolution, count in self.plan.stages:
            if left < count:
                return resolution
            left -= count
        return self.resolution

    def real(self, rng: torch.Generator) -> Tensor:
        """Pictures in [-1,1] at the stage's size, half of them mirrored."""
        n, here = self.plan.batch, {"generator": rng, "device": self.device}
        index = torch.randint(len(self.data), (n,), **here)
        pictures = self.pictures[index].float() / 127.5 - 1
        flip = torch.rand(n, 1, 1, 1, **here) < 0.5
        pictures = F.avg_pool2d(pictures, pictures.shape[-1] // self.size())
        return torch.where(flip, pictures.flip(-1), pictures)

    def fake(self, rng: torch.Generator) -> Tensor:
        """Drawn pictures; `mixing` of them with styles of a second code from a random slot on."""
        n, plan, here = self.plan.batch, self.plan, {"generator": rng, "device": self.device}
        ws = self.generator.mapping(torch.randn(2 * n, plan.latent, **here))
        slots = ws.shape[1]
        cut = torch.where(torch.rand(n, **here) < plan.mixing, torch.randint(1, slots, (n,), **here), slots)
        first = torch.arange(slots, device=self.device) < cut[:, None]
        ws = torch.where(first[:, :, None], ws[:n], ws[n:])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.draw(ws, noise="none", up_to=self.size())

    def scores(self, pictures: Tensor, rng: torch.Generator) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.judge(augment(pictures, rng, self.plan.augment)).float()

    def penalty(self, real: Tensor, rng: torch.Generator) -> Tensor:
        """R1 on the augmented pictures, in float32 and never compiled: compiled graphs have no second derivative."""
        gamma = self.plan.gamma * (real.shape[-1] / 64) ** 2
        return r1(self.critic, augment(real, rng, self.plan.augment)) * (gamma / 2 * R1_EVERY)

    def step(self) -> dict[str, Tensor]:
        """One update of each network; the two losses and the mean scores, still on the device."""
        rng = torch.Generator(self.device).manual_seed((self.plan.seed << 40) + self.step_number)
        real, fake = self.real(rng), self.fake(rng)
        real_scores, fake_scores = self.scores(real, rng), self.scores(fake.detach(), rng)
        critic_loss = F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()
        penalised = critic_loss
        if self.step_number % R1_EVERY == 0:
            penalised = critic_loss + self.penalty(real, rng)
        self._descend(1, penalised)
        self.critic.requires_grad_(False)
        generator_loss = F.softplus(-self.scores(fake, rng)).mean()
        self._descend(0, generator_loss)
        self.critic.requires_grad_(True)
        self.step_number += 1
        self.images += self.plan.batch
        self._follow()
        logged = {"critic": critic_loss, "generator": generator_loss, "real": real_scores, "fake": fake_scores}
        return {name: value.detach().mean() for name, value in logged.items()}

    def _descend(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    def _follow(self) -> None:
        half_life = max(min(self.plan.ema_images, EMA_RAMP * self.images), 1e-8)
        keep = 0.5 ** (self.plan.batch / half_life)
        raw = [parameter.detach() for parameter in self.generator.parameters()]
        torch._foreach_lerp_(list(self.average.values()), raw, 1 - keep)  # pyright: ignore[reportPrivateImportUsage]

    def averaged(self) -> StyleGAN2:
        """The averaged generator on the CPU; its mean style is that of 16384 codes of a fixed seed."""
        net = StyleGAN2(self.config)
        initialise(net, self.plan.seed)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(self.average[name])
            codes = torch.randn(16_384, self.plan.latent, generator=torch.Generator().manual_seed(1))
            net.mapping.w_avg.copy_(net.mapping(codes)[:, 0].mean(0))
        return net.eval().requires_grad_(False)

    def save(self, out: Path, meta: dict[str, object], *, compact: bool = False) -> Path:
        meta = {**meta, "images": self.images, "step": self.step_number, "plan": asdict(self.plan)}
        return save_gan_state(out, meta, self.networks, self.average, self.optimisers, compact=compact)

    def load(self, folder: Path) -> dict[str, object]:
        meta = load_gan_state(folder, self.networks, self.average, self.optimisers)
        self.step_number, self.images = int(str(meta["step"])), int(str(meta["images"]))
        return meta


def facts_of(device: str) -> dict[str, object]:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU"
    return {"device": name, "torch": torch.__version__, "world": WORLD}


def milestone(trainer: Trainer, folder: Path, provenance: dict[str, object]) -> None:
    """Export the average and draw samples from it."""
    net = trainer.averaged()
    facts = {**provenance, "images": trainer.images, "shown": trainer.shown(), "plan": asdict(trainer.plan)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    export_gan(net, folder, facts)
    sample_sheet(net, folder.with_suffix(".png"))


def run(trainer: Trainer, out: Path, args: argparse.Namespace) -> None:
    """Steps until the stages, the minutes or a signal end it; checkpoints, milestones and a JSON-lines log."""
    stop: list[int] = []
    before_us = {n: signal.signal(n, lambda got, _: stop.append(got)) for n in (signal.SIGTERM, signal.SIGINT)}
    start = saved = logged = time.monotonic()
    facts, rows = facts_of(args.device), list[dict[str, Tensor]]()
    while trainer.images < trainer.total and time.monotonic() - start < 60 * args.minutes and not stop:
        before = trainer.images
        rows.append(trainer.step())
        if trainer.step_number % args.log_every == 0:
            row = {name: round(float(torch.stack([r[name] for r in rows]).mean()), 4) for name in rows[0]}
            now = time.monotonic()
            speed = round(len(rows) * trainer.plan.batch / (now - logged), 1)
            row = {"images": trainer.images, "size": trainer.size(), **row, "images_per_s": speed}
            row |= {"seconds": round(now - start, 1), "pictures": len(trainer.data)}
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
            rows, logged = [], now
            trainer.refresh()
        for mark in (*MILESTONES, trainer.total):
            if before < mark <= trainer.images:
                milestone(trainer, out / "snapshots" / f"{mark:09d}", facts)
        if time.monotonic() - saved > 60 * args.save_minutes:
            trainer.save(out, facts, compact=args.compact)
            saved = time.monotonic()
    path = trainer.save(out, facts, compact=args.compact)
    for number, handler in before_us.items():
        signal.signal(number, handler)
    print(f"stopped at {trainer.images} images, state in {path}", flush=True)


def ship(out: Path, target: Path) -> None:
    """Export the latest state of a run; `target` defaults to the package's own weights."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pre-training first")
    meta = json.loads((state / "state.json").read_text())
    trainer = Trainer(plan_of(meta["plan"]), Pictures(out / "nowhere"))
    trainer.load(state)
    milestone(trainer, target, {k: meta[k] for k in ("device", "torch")})
    target.with_suffix(".png").replace(out / "shipped.png")
    print(f"exported {trainer.images} images to {target}; samples in {out / 'shipped.png'}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, shipped=SHIPPED, holds=", snapshots", exports="write OUT's average as the weights")
    parser.add_argument("--stages", type=stages_of, default=Plan.stages, help="RESOLUTION:IMAGES,…, growing")
    for name in ("batch", "lr", "gamma", "ema_images", "mixing", "base", "widest", "mapping_layers", "latent", "seed"):
        default = getattr(Plan, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--augment", nargs="*", choices=KINDS, default=())
    parser.add_argument("--bf16", action="store_true", help="autocast both networks to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile both networks")
    return parsed(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        ship(args.export, args.to)
        return
    cache = rendered(args)
    if args.device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    fields = {name: getattr(args, name) for name in asdict(Plan())}
    plan = Plan(**{**fields, "augment": tuple(args.augment)})
    trainer = Trainer(plan, Pictures(cache), args.device, bf16=args.bf16)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    if args.compile:
        trainer.draw, trainer.judge = torch.compile(trainer.generator), torch.compile(trainer.critic)
    run(trainer, args.out, args)


if __name__ == "__main__":
    main()
