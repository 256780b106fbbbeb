"""The loop: θ ← AdamW(θ, ∇ mean_b loss_b), on samples that were prepared once.

It yields a `Step` after each optimiser step and does nothing else: progress bars, logs, previews and validation live with
the caller. Everything that is random follows from (seed, position in the data stream), so that a run that was killed and
resumed, or spread over several processes, sees the same samples in the same order with the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ilora_core.config import TrainConfig
from ilora_core.errors import MissingDependency, NonFiniteLoss
from ilora_core.intrinsics import Intrinsic
from ilora_core.noise import mix_seeds
from ilora_core.protocols import Adapter, Codes, Generator

__all__ = ["PreparedSet", "Step", "Trainer"]


@dataclass(frozen=True)
class Step:
    """One optimiser step. number counts from 1; loss is a scalar tensor (reading it waits for the device)."""

    number: int
    loss: Tensor
    lr: float


class PreparedSet:
    """Training samples as the generator prepared them: keys, and tensors that lead with N or, when shared, with 1."""

    def __init__(self, keys: Sequence[str], codes: Codes):
        self.keys, self.codes = tuple(keys), dict(codes)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The rows' codes on a device."""
        index = torch.tensor(rows)
        return {
            name: (value if value.shape[0] == 1 else value[index.to(value.device)]).to(device, non_blocking=True)
            for name, value in self.codes.items()
        }

    @staticmethod
    def stack(parts: Sequence[Codes], device: torch.device | str) -> dict[str, Tensor]:
        """Join the codes of consecutive batches. What is the same single row in all of them is kept once."""
        joined = {}
        for name in parts[0]:
            values = [part[name] for part in parts]
            shared = all(v.shape[0] == 1 and torch.equal(v, values[0]) for v in values)
            joined[name] = (values[0] if shared else torch.cat(values)).to(device)
        return joined


class Trainer:
    """Fits one adapter of one generator to one intrinsic.

    Iterate it for `Step`s; it stops after `config.steps`, or raises NonFiniteLoss with the keys of the pictures whose loss
    was not finite. `state_dict` between two steps is all that an identical continuation needs.
    """

    def __init__(
        self,
        generator: Generator,
        adapter: Adapter,
        intrinsic: Intrinsic,
        data: PreparedSet,
        config: TrainConfig,
        accelerator: Accelerator,
    ):
        self.generator, self.adapter, self.intrinsic, self.data = generator, adapter, intrinsic, data
        self.config, self.accelerator = config, accelerator
        self.step = 0
        self.broken = False
        """True once a loss was not finite: the adapter may be poisoned and must not become a resume point."""
        self._parameters = list(adapter.parameters())
        self._optimizer: Any = accelerator.prepare(_optimizer(self._parameters, config))
        self._unchecked: list[tuple[int, list[int], Tensor]] = []
        # On an accelerator every look at the loss waits for it, so the check runs behind by a few steps.
        self._check_every = 10 if accelerator.device.type == "cuda" else 1

    def __iter__(self) -> Iterator[Step]:
        while self.step < self.config.steps:
            lr = self._learning_rate(self.step)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            loss = self._accumulated_gradient()
            self._average_gradients()
            if self.config.clip:
                self.accelerator.clip_grad_norm_(self._parameters, self.config.clip)
            last = self.step + 1 == self.config.steps or (self.step + 1) % self.config.interval == 0
            if last or len(self._unchecked) >= self._check_every * self.config.accumulate:
                self._check_finite()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.step += 1
            yield Step(self.step, loss, lr)

    def state_dict(self) -> dict[str, Any]:
        """Step, adapter, optimiser, loss scale and random state."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "adapter": dict(self.adapter.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.step = int(state["step"])
        self.adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])

    def _accumulated_gradient(self) -> Tensor:
        """Add up the gradients of this step's micro-batches; returns their mean loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for micro in range(self.config.accumulate):
            positions = self._positions(micro)
            rows = [self._row(position) for position in positions]
            codes = self.data.take(rows, self.accelerator.device)
            codes["seed"] = torch.tensor([mix_seeds(self.config.seed, 1, position) for position in positions])
            with self.accelerator.autocast():
                losses = self.generator.loss(codes, self.intrinsic)
            self._unchecked.append((self.step + 1, rows, losses.detach()))
            loss = losses.mean() / self.config.accumulate
            self.accelerator.backward(loss)
            total = total + loss.detach()
        return total

    def _positions(self, micro: int) -> list[int]:
        """This process's share of the step's positions in the endless stream of samples."""
        config, processes = self.config, self.accelerator.num_processes
        block = (self.step * config.accumulate + micro) * processes + self.accelerator.process_index
        return list(range(block * config.batch, (block + 1) * config.batch))

    def _row(self, position: int) -> int:
        """The stream is one random permutation of the data after another."""
        epoch, place = divmod(position, len(self.data))
        if getattr(self, "_epoch", None) != epoch:
            shuffle = torch.Generator().manual_seed(mix_seeds(self.config.seed, 2, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.data), generator=shuffle).tolist()
        return self._order[place]

    def _average_gradients(self) -> None:
        """One all-reduce of one flat vector. No wrapper around the network: only the adapter has gradients."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        flat: Any = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="mean")
        for parameter, piece in zip(self._parameters, flat.split([p.numel() for p in self._parameters]), strict=True):
            parameter.grad = piece.view_as(parameter).clone()

    def _check_finite(self) -> None:
        waiting, self._unchecked = self._unchecked, []
        if not waiting or torch.isfinite(torch.cat([losses for _, _, losses in waiting])).all():
            return
        for step, rows, losses in waiting:
            bad = [row for row, fine in zip(rows, torch.isfinite(losses).tolist(), strict=True) if not fine]
            if bad:
                self.broken = True
                raise NonFiniteLoss(step, tuple(self.data.keys[row] for row in bad))

    def _learning_rate(self, step: int) -> float:
        config = self.config
        if step < config.warmup:
            return config.lr * (step + 1) / config.warmup
        share = (step - config.warmup) / max(1, config.steps - config.warmup)
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
        return config.lr * factor[config.schedule]


def _optimizer(parameters: list[torch.nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    kind: Any = torch.optim.AdamW
    if config.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit as kind  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependency(
                "train.optimizer=adamw8bit needs bitsandbytes: pip install 'ilora[8bit]', or leave the setting out."
            ) from error
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)
