"""Pre-trains the prior of a rooms VQGAN on the codes of its finished first stage, in pieces that resume.

    L = - mean_t log p(c_t | s, c_1 … c_{t-1})          s = token 0, in front of every sequence, as in taming-transformers

A small GPT-2 over the codes of every picture and of its mirror image, row by row (Esser et al. 2021, section 3.2). The last
pictures are held out; their cross-entropy in bits per code is what `examine` reports. Every random draw of step n comes from a
generator seeded by (seed, n), so an interrupted run continues as if it had not been interrupted.

    python -m ilora_rooms.pretrain_prior --first-stage DIR --out DIR --cache DIR --minutes 20 --resume
    python -m ilora_rooms.pretrain_prior --export OUT --to DIR      # adds prior/ to what pretrain_vqgan exported
    python -m ilora_rooms.pretrain_prior --export OUT --first-stage STAGE --to DIR      # writes both parts into DIR
"""

# transformers types its configurations as plain dictionaries and its outputs as unions with tuples.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportGeneralTypeIssues=false
from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ilora_core.files import atomic_path
from ilora_core.noise import mix_seeds
from ilora_vqgan.sampling import draw_codes

from .checkpoint import latest_state, load_state, save_state
from .data import Pictures
from .export_vqgan import export_parts, load_first_stage
from .first_stage import decode, picture_codes
from .pretrain import versions
from .pretrain_loop import steps
from .pretrain_options import options, parsed, refuse_or_resume, rendered
from .pretrain_vqgan import SHIPPED
from .sheet import grid, save

__all__ = ["Plan", "Trainer", "codes_of", "examine", "main"]


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here."""

    codes: int = 512
    length: int = 256
    width: int = 128
    layers: int = 5
    heads: int = 4
    dropout: float = 0.0
    batch: int = 8
    lr: float = 8e-4
    warmup: int = 100
    visits: int = 1_000_000  # lr falls to nothing over the last `cooldown` of these
    cooldown: float = 0.4
    ema: float = 0.995
    weight_decay: float = 0.05
    seed: int = 0

    def build(self) -> Any:
        """An untrained prior: minGPT as transformers holds it (the exact gelu, a head of its own, no special tokens)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=self.codes,
                    n_positions=self.length,
                    n_embd=self.width,
                    n_layer=self.layers,
                    n_head=self.heads,
                    activation_function="gelu",
                    tie_word_embeddings=False,
                    resid_pdrop=self.dropout,
                    embd_pdrop=self.dropout,
                    attn_pdrop=self.dropout,
                    bos_token_id=None,
                    eos_token_id=None,
                )
            )


class Trainer:
    """Prior, average and optimiser, and one step of training. codes: (N, length) integers."""

    def __init__(self, plan: Plan, codes: Tensor, device: str = "cpu") -> None:
        self.plan, self.device = plan, torch.device(device)
        self.codes = codes.long().to(self.device)
        self.prior = plan.build().to(self.device).train()
        self.average = {k: v.detach().clone() for k, v in self.prior.named_parameters()}
        self.optimiser = torch.optim.AdamW(
            self.prior.parameters(), lr=plan.lr, betas=(0.9, 0.95), weight_decay=plan.weight_decay
        )
        self.step_number = self.visits = 0

    def refresh(self) -> None:
        """The codes are those that were there at the start."""

    def step(self) -> Tensor:
        """One update; returns the loss in nats per code, still on the device."""
        plan = self.plan
        left = (plan.visits - self.visits) / max(1.0, plan.cooldown * plan.visits)
        share = min(1.0, max(0.0, left)) * min(1.0, (self.step_number + 1) / plan.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = plan.lr * share
        rng = torch.Generator(self.device).manual_seed((plan.seed << 40) + self.step_number)
        batch = self.codes[torch.randint(len(self.codes), (plan.batch,), generator=rng, device=self.device)]
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = entropy(self.prior, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prior.parameters(), 1.0)
        self.optimiser.step()
        self.step_number += 1
        self.visits += plan.batch
        decay = min(plan.ema, (1 + self.step_number) / (10 + self.step_number))
        raw = [p.detach() for p in self.prior.parameters()]
        torch._foreach_lerp_(list(self.average.values()), raw, 1 - decay)
        return loss.detach()

    def averaged(self) -> Any:
        """A prior on the CPU that holds the averaged weights."""
        copy = self.plan.build()
        for name, parameter in copy.named_parameters():
            parameter.data.copy_(self.average[name])
        return copy.eval().requires_grad_(False)

    def save(self, out: Path, meta: dict[str, object], *, compact: bool = False) -> Path:
        meta = {**meta, "visits": self.visits, "step": self.step_number, "plan": asdict(self.plan)}
        return save_state(out, meta, self.prior, self.average, self.optimiser, compact=compact)

    def load(self, folder: Path) -> dict[str, object]:
        meta = load_state(folder, self.prior, self.average, self.optimiser)
        self.step_number, self.visits = int(str(meta["step"])), int(str(meta["visits"]))
        return meta


def entropy(prior: Any, codes: Tensor) -> Tensor:
    """Cross-entropy of whole sequences (B, length) from the start token on, nats per code."""
    fed = torch.cat([torch.zeros_like(codes[:, :1]), codes[:, :-1]], 1)
    logits = prior(fed, attention_mask=torch.ones_like(fed)).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten())


def codes_of(first_stage: Path, pictures: Tensor, kept: Path) -> Tensor:
    """Codes (N, 2, h·w) of uint8 pictures (N,3,H,W) and of their mirror images; `kept` remembers them between runs."""
    name = fingerprint(first_stage)
    if kept.is_file():
        with np.load(kept) as file:
            if str(file["first_stage"]) == name and len(file["codes"]) == len(pictures):
                return torch.from_numpy(file["codes"])
    vq = load_first_stage(first_stage)
    both = [picture_codes(vq, side) for side in (pictures, pictures.flip(-1))]
    codes = torch.stack(both, 1)
    with atomic_path(kept) as draft, open(draft, "wb") as file:
        np.savez(file, codes=codes.numpy(), first_stage=np.array(name))
    return codes


def fingerprint(folder: Path) -> str:
    """Of a first stage's weights: a prior is worth nothing with another one's codes."""
    digest = hashlib.sha256()
    for path in sorted((folder / "first_stage").glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@torch.no_grad()
def examine(
    trainer: Trainer, first_stage: Path, held_out: Tensor, file: Path, *, samples: int = 64
) -> dict[str, float]:
    """Bits per code on held-out sequences (N, length), by the prior and by the codes' frequencies; a sheet of samples."""
    prior, vq = trainer.averaged(), load_first_stage(first_stage)
    parts = [float(entropy(prior, part.long())) * len(part) for part in held_out.split(100)]
    often = trainer.codes.flatten().bincount(minlength=trainer.plan.codes).float().cpu() + 1
    alone = -(often / often.sum()).log2()[held_out.long()].mean()
    figures = {"bits_per_code": sum(parts) / len(held_out) / math.log(2), "bits_by_frequency": float(alone)}
    drawn = draw_codes(prior, [mix_seeds(trainer.plan.seed, i) for i in range(samples)], length=trainer.plan.length)
    side = math.isqrt(trainer.plan.length)
    z = vq.quantize.embedding.weight[drawn].view(samples, side, side, -1).movedim(-1, 1)
    save(grid((decode(vq, z) / 2 + 0.5).clamp(0, 1), 8), file)
    figures = {name: round(value, 4) for name, value in figures.items()}
    print(figures, flush=True)
    return figures


def ship(out: Path, stage: Path, target: Path) -> None:
    """Write the averaged weights of a run's latest state, beside the first stage exported in `stage`, to `target`."""
    state = latest_state(out)
    if state is None:
        raise SystemExit(f"no state-* folder in {out}: run pre-training first")
    meta = json.loads((state / "state.json").read_text(encoding="utf-8"))
    if meta["first_stage"] != fingerprint(stage):
        raise SystemExit(f"the prior in {out} was trained on another first stage than that in {stage}")
    with np.load(out / "codes.npz") as file:
        codes = torch.from_numpy(file["codes"])
    trainer = Trainer(Plan(**meta["plan"]), codes[: -meta["held_out"]].flatten(0, 1))
    trainer.load(state)
    facts = {k: meta[k] for k in ("visits", "device", "torch", "held_out", "plan")}
    facts["held_out_rooms"] = examine(trainer, stage, codes[-meta["held_out"] :, 0], out / "shipped.png")
    about = json.loads((stage / "weights.json").read_text(encoding="utf-8"))
    parts = {"first_stage": load_first_stage(stage), "prior": trainer.averaged()}
    export_parts(parts, target, {"first_stage": about["first_stage"], "prior": facts})
    print(f"exported {meta['visits']} visits to {target}; samples in {out / 'shipped.png'}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(
        __doc__, shipped=SHIPPED, holds=", codes, samples", exports="add OUT's average to the first stage in --to"
    )
    parser.add_argument(
        "--first-stage",
        type=Path,
        help=f"what pretrain_vqgan exported; default: --to's ({SHIPPED.name}/ of this package)",
    )
    parser.add_argument("--held-out", type=int, default=500, help="pictures at the end that are only examined")
    parser.add_argument("--visits", type=int, default=Plan.visits, help="length of the run; the rate falls at its end")
    parser.add_argument("--width", type=int, default=Plan.width)
    parser.add_argument("--layers", type=int, default=Plan.layers)
    parser.add_argument("--heads", type=int, default=Plan.heads)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument("--seed", type=int, default=0)
    args = parsed(parser, argv)
    args.first_stage = args.first_stage or args.to
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.export:
        return ship(args.export, args.first_stage, args.to)
    cache = rendered(args)
    data = Pictures(cache)
    data.rescan()
    codes = codes_of(args.first_stage, data.pictures, args.out / "codes.npz")
    n_codes = int(json.loads((args.first_stage / "first_stage" / "config.json").read_text())["num_vq_embeddings"])
    settings = {name: getattr(args, name) for name in ("width", "layers", "heads", "batch", "lr", "visits", "seed")}
    plan = Plan(codes=n_codes, length=codes.shape[-1], **settings)
    trainer = Trainer(plan, codes[: -args.held_out].flatten(0, 1), args.device)
    refuse_or_resume(trainer, args.out, wanted=args.resume)
    facts = {**versions(args.device), "held_out": args.held_out, "first_stage": fingerprint(args.first_stage)}
    steps(trainer, args.out, args, facts)
    examine(trainer, args.first_stage, codes[-args.held_out :, 0], args.out / "samples.png")
    return None


if __name__ == "__main__":
    main()
