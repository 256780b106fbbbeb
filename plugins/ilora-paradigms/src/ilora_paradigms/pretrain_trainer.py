"""What decides the weights, and one step of training.

Paradigms come in pools: a pool is drawn, each of its pictures is shown `views` times, every time turned or mirrored and
with its colour channels in another order, and the next pool is drawn. Pool p comes from a generator seeded by
(seed, p), the views of step k from one seeded by (seed, k), so that an interrupted run continues as if it had not been.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms.loss import decomposition_loss
from ilora_paradigms.net import WIDE, WIDTHS, ParadigmNet
from ilora_paradigms.paradigm import draw_paradigms
from ilora_paradigms.states import load_state, save_state

__all__ = ["PRESETS", "Plan", "Trainer", "turned"]


@dataclass(frozen=True)
class Plan:
    """What decides the weights. Times and devices do not belong here. The last third runs at `final_size`."""

    size: int = 64
    final_size: int = 64
    batch: int = 8
    steps: int = 7000
    pool: int = 64
    views: int = 4
    widths: tuple[int, ...] = WIDTHS
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.999
    seed: int = 0

    def size_at(self, step: int) -> int:
        return self.final_size if 3 * step >= 2 * self.steps else self.size

    def lr_at(self, step: int) -> float:
        """Warm-up, then a cosine to 1 %."""
        done = min(1.0, step / self.steps)
        return self.lr * min(1.0, (step + 1) / self.warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


PRESETS = {
    "gpu": Plan(size=128, final_size=256, batch=64, steps=20_000, pool=256, views=2, widths=WIDE),
    "cpu": Plan(),
    "smoke": Plan(size=32, final_size=32, batch=4, steps=30, pool=8, views=4, widths=(8, 16, 16), warmup=5),
}


class Trainer:
    """Network, its running average, the best average so far, and the optimiser."""

    def __init__(self, plan: Plan, device: str = "cpu") -> None:
        self.plan, self.device = plan, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net = ParadigmNet(plan.widths)
        self.net = net.to(self.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.best: dict[str, Tensor] = {}
        self.best_facts: dict[str, Any] = {}
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay
        )
        self.step_number = 0
        self._pool: tuple[tuple[int, int], tuple[Tensor, ...]] | None = None

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Linear pictures, shading and albedo of this step."""
        plan, k = self.plan, self.step_number
        steps_per_pool = plan.pool * plan.views // plan.batch
        pictures, shading, albedo = self._pool_of(k // steps_per_pool, plan.size_at(k))
        rng = torch.Generator(self.device).manual_seed((plan.seed << 40) + 2 * k + 1)
        order = torch.Generator().manual_seed((plan.seed << 40) + k // steps_per_pool)
        shown = torch.cat([torch.randperm(plan.pool, generator=order) for _ in range(plan.views)])
        first = k % steps_per_pool * plan.batch
        index = shown[first : first + plan.batch].to(self.device)
        stack = torch.cat([pictures[index], albedo[index], shading[index]], 1)
        stack = turned(stack, rng)
        channels = torch.randperm(3, generator=rng, device=self.device)
        return stack[:, :3][:, channels], stack[:, 6:], stack[:, 3:6][:, channels]

    def step(self) -> Tensor:
        """One update; the losses (2,) of shading and albedo, detached."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.lr_at(self.step_number)
        linear, shading, albedo = self.batch()
        parts = decomposition_loss(self.net(linear.contiguous(memory_format=torch.channels_last)), shading, albedo)
        self.optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step_number += 1
        decay = min(self.plan.ema, (1 + self.step_number) / (10 + self.step_number))
        for name, parameter in self.net.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
        return parts.detach()

    def network(self, which: str = "average") -> ParadigmNet:
        """A network on the CPU with the running average, or "best" (the average where there is no best yet)."""
        weights = self.best if which == "best" and self.best else self.average
        net = ParadigmNet(self.plan.widths)
        net.load_state_dict({name: value.cpu() for name, value in weights.items()})
        return net.eval()

    def keep_if_best(self, dev: float, facts: dict[str, Any]) -> bool:
        """Keep a copy of the average when its development figure is the least so far."""
        if self.best_facts and dev >= self.best_facts["dev"]:
            return False
        self.best = {name: value.clone() for name, value in self.average.items()}
        self.best_facts = {"dev": dev, "step": self.step_number, **facts}
        return True

    def save(self, out: Path, facts: dict[str, Any]) -> Path:
        facts = {**facts, "step": self.step_number, "plan": asdict(self.plan), "best": self.best_facts}
        return save_state(out, facts, self.net, {"ema": self.average, "best": self.best}, self.optimiser)

    def load(self, folder: Path) -> dict[str, Any]:
        facts = load_state(folder, self.net, {"ema": self.average, "best": self.best}, self.optimiser)
        self.step_number, self.best_facts = int(facts["step"]), facts["best"]
        return facts

    def _pool_of(self, number: int, size: int) -> tuple[Tensor, ...]:
        if self._pool is None or self._pool[0] != (number, size):
            rng = torch.Generator(self.device).manual_seed((self.plan.seed << 40) + 2 * number)
            drawn = draw_paradigms(self.plan.pool, size, rng)
            self._pool = ((number, size), (srgb_to_linear(drawn.picture), drawn.shading, drawn.albedo))
        return self._pool[1]


def turned(x: Tensor, rng: torch.Generator) -> Tensor:
    """Square pictures (B,C,H,H), mirrored and turned together by one of the eight ways, drawn from rng."""
    mirror, flip, swap = torch.randint(2, (3,), generator=rng, device=rng.device).tolist()
    x = x.flip(-1) if mirror else x
    x = x.flip(-2) if flip else x
    return x.transpose(-1, -2) if swap else x
