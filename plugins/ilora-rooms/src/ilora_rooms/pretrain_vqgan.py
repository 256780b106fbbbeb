"""Pre-trains the first stage of a rooms VQGAN from nothing, on a GPU or a CPU, in pieces that resume.

    z = E(x)    c = argmin_k ‖z - e_k‖    x̂ = D(z + sg[e_c - z])
    L = R(x̂, x) + β ‖z - sg[e_c]‖² + λ L_G(x̂)

Esser et al. 2021, with two differences that a small world without pre-trained networks asks for: R compares colours and
edges at several scales in place of a perceptual loss (`first_stage`); and a codebook of moving means (`codebook`) starts,
after a while of plain autoencoding, at k-means. The adversarial term starts late (`patch_discriminator`). Every random draw
of step n comes from a generator seeded by (seed, n), so an interrupted run continues as if it had not been interrupted.

    python -m ilora_rooms.pretrain_vqgan --out DIR --device cpu --minutes 60 --resume
    python -m ilora_rooms.pretrain_vqgan --export DIR          # writes weights/vqgan/first_stage; then pretrain_prior
"""

# diffusers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import latest_state, load_state, save_state
from .codebook import Codebook, nearest
from .data import Pictures
from .export_vqgan import export_parts
from .first_stage import build, decode, encode, reconstruction_loss, report, rows
from .patch_discriminator import PatchDiscriminator, balance, discriminator_loss, generator_loss
from .pretrain import versions
from .pretrain_loop import steps
from .pretrain_options import options, parsed, refuse_or_resume, rendered
from .render import render
from .splits import seeds

__all__ = ["SHIPPED", "Plan", "Trainer", "main"]

SHIPPED = Path(__file__).parent / "weights" / "vqgan"


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here."""

    widths: tuple[int, ...] = (24, 48, 96)
    layers: int = 1
    latent: int = 64
    code_width: int = 16
    codes: int = 512
    batch: int = 8
    lr: float = 1e-3
    warmup: int = 100
    visits: int = 3_000_000  # lr falls to nothing over the last `cooldown` of these
    cooldown: float = 0.3
    ema: float = 0.99
    quantise_from: int = 4_000  # visits of plain autoencoding before
    critic_from: int = 1_000_000
    commitment: float = 0.25
    gradient: float = 0.3
    adversarial: float = 0.2
    seed: int = 0

    def build(self, size: int = 64) -> Any:
        """An untrained first stage of these widths."""
        return build(
            widths=self.widths,
            layers=self.layers,
            latent=self.latent,
            code_width=self.code_width,
            codes=self.codes,
            seed=self.seed,
            size=size,
        )


class Trainer:
    """First stage, codebook, critic, averages and one optimiser for them; and one step of training."""

    def __init__(self, plan: Plan, data: Pictures, device: str = "cpu") -> None:
        self.plan, self.data, self.device = plan, data, torch.device(device)
        self.vq = plan.build()
        self.vq.quantize.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed + 1)
            self.critic = PatchDiscriminator()
        self.book = Codebook(plan.codes, plan.code_width)
        parts = {"vq": self.vq, "book": self.book, "critic": self.critic}
        self.networks = nn.ModuleDict(parts).to(self.device).train()
        self.average = {k: v.detach().clone() for k, v in self.networks.named_parameters()}
        self.optimiser = torch.optim.AdamW(self.networks.parameters(), lr=plan.lr, betas=(0.5, 0.95), weight_decay=1e-4)
        self.step_number = self.visits = 0
        self.refresh()

    def refresh(self) -> None:
        """Look for new shards; the pictures then live on the device."""
        if self.data.rescan() or not hasattr(self, "pictures"):
            self.pictures = self.data.pictures.to(self.device)

    def rng(self) -> torch.Generator:
        """This step's own generator."""
        return torch.Generator(self.device).manual_seed((self.plan.seed << 40) + self.step_number)

    def batch(self, rng: torch.Generator, n: int) -> Tensor:
        """n pictures (B,3,H,W) in [-1,1], half of them mirrored."""
        index = torch.randint(len(self.data), (n,), generator=rng, device=self.device)
        flip = torch.rand(n, generator=rng, device=self.device) < 0.5
        pictures = self.pictures[index].float() / 127.5 - 1
        return torch.where(flip[:, None, None, None], pictures.flip(-1), pictures)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,d,h,w), before quantisation; float32."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            return encode(self.vq, pictures).float()

    def quantise(self, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The straight-through codes and their distance to z, before the codebook's own step."""
        embedding = self.vq.quantize.embedding.weight
        if not self.book.started:
            with torch.no_grad():
                many = torch.cat([self.encode(self.batch(rng, 16)) for _ in range(16)])
            self.book.start(rows(many), embedding.data, rng, batch=rows(z).shape[0])
        flat = rows(z.detach())
        index = nearest(flat, embedding)
        near = embedding[index].view(z.shape[0], *z.shape[2:], -1).movedim(-1, 1).detach()
        self.book.update(flat, index, embedding.data, rng, revive=self.share() == 1)
        return z + (near - z).detach(), F.mse_loss(z, near)

    def loss(self, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(loss of the first stage, pictures, their reconstructions)."""
        plan, x = self.plan, self.batch(rng, self.plan.batch)
        z, distance = self.encode(x), torch.zeros((), device=self.device)
        if self.visits >= plan.quantise_from:
            z, distance = self.quantise(z, rng)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            guess = decode(self.vq, z).float()
        picture = reconstruction_loss(guess, x, gradient=plan.gradient)
        total = picture + plan.commitment * distance
        if self.visits >= plan.critic_from:
            fooled = generator_loss(self.critic(guess))
            total = total + plan.adversarial * balance(picture, fooled, self.vq.decoder.conv_out.weight) * fooled
        return total, x, guess.detach()

    def share(self) -> float:
        """Of the learning rate: 1, then linearly to 0 over the last part of the plan's visits."""
        left = (self.plan.visits - self.visits) / max(1.0, self.plan.cooldown * self.plan.visits)
        return min(1.0, max(0.0, left))

    def step(self) -> Tensor:
        """One update; returns the loss, still on the device."""
        rng = self.rng()
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.lr * self.share() * min(1.0, (self.step_number + 1) / self.plan.warmup)
        self.critic.requires_grad_(False)
        self.optimiser.zero_grad(set_to_none=True)
        loss, x, guess = self.loss(rng)
        loss.backward()
        self.critic.requires_grad_(True)
        if self.visits >= self.plan.critic_from:
            discriminator_loss(self.critic(x), self.critic(guess)).backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self.step_number += 1
        self.visits += self.plan.batch
        decay = min(self.plan.ema, (1 + self.step_number) / (10 + self.step_number))
        raw = [p.detach() for p in self.networks.parameters()]
        torch._foreach_lerp_(list(self.average.values()), raw, 1 - decay)
        return loss.detach()

    def averaged(self) -> Any:
        """A VQModel on the CPU that holds the averaged weights."""
        copy = self.plan.build()
        copy.load_state_dict({k: self.average[f"vq.{k}"].cpu() for k in copy.state_dict()})
        return copy.eval().requires_grad_(False)

    def save(self, out: Path, meta: dict[str, object], *, compact: bool = False) -> Path:
        meta = {**meta, "visits": self.visits, "step": self.step_number, "plan": asdict(self.plan)}
        return save_state(out, meta, self.networks, self.average, self.optimiser, compact=compact)

    def load(self, folder: Path) -> dict[str, object]:
        meta = load_state(folder, self.networks, self.average, self.optimiser)
        self.step_number, self.visits = int(str(meta["step"])), int(str(meta["visits"]))
        return meta


def examine(trainer: Trainer, out: Path, *, rooms: int = 100) -> dict[str, float]:
    """Reconstructions of the first rooms of the test split, as figures and as OUT/reconstructions.png."""
    pictures = (render(seeds("test", rooms)).picture * 255).round().to(torch.uint8).cpu()
    figures = report(trainer.averaged(), pictures, out / "reconstructions.png")
    print(figures, flush=True)
    return figures


def ship(out: Path, target: Path) -> None:
    """Export the averaged weights of a run's latest state."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pre-training first")
    meta = json.loads((state / "state.json").read_text())
    plan = Plan(**{**meta["plan"], "widths": tuple(meta["plan"]["widths"])})
    trainer = Trainer(plan, Pictures(out / "nowhere"))
    trainer.load(state)
    facts = {k: meta[k] for k in ("visits", "device", "torch", "diffusers", "plan")}
    facts["test_rooms"] = examine(trainer, out)
    (out / "reconstructions.png").replace(out / "shipped.png")
    export_parts({"first_stage": trainer.averaged()}, target, {"first_stage": facts})
    print(f"exported {meta['visits']} visits to {target}; reconstructions in {out / 'shipped.png'}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(
        __doc__, shipped=SHIPPED, holds=", reconstructions", exports="write OUT's average as the shipped first stage"
    )
    parser.add_argument("--visits", type=int, default=Plan.visits, help="length of the run; the rate falls at its end")
    parser.add_argument("--widths", type=int, nargs="+", default=list(Plan.widths), help="channels per level")
    parser.add_argument("--codes", type=int, default=Plan.codes)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument(
        "--quantise-from", type=int, default=Plan.quantise_from, help="visits before the codebook starts"
    )
    parser.add_argument("--critic-from", type=int, default=Plan.critic_from, help="visits before the critic starts")
    parser.add_argument("--adversarial", type=float, default=Plan.adversarial)
    parser.add_argument("--seed", type=int, default=0)
    return parsed(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return ship(args.export, args.to)
    cache = rendered(args)
    plan = Plan(
        widths=tuple(args.widths),
        codes=args.codes,
        batch=args.batch,
        lr=args.lr,
        visits=args.visits,
        quantise_from=args.quantise_from,
        critic_from=args.critic_from,
        adversarial=args.adversarial,
        seed=args.seed,
    )
    trainer = Trainer(plan, Pictures(cache), args.device)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    steps(trainer, args.out, args, dict(versions(args.device)))
    examine(trainer, args.out)
    return None


if __name__ == "__main__":
    main()
