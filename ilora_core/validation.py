"""Validation during a fit: draw the held-out pictures' maps and score them by the intrinsic's metric."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ilora_core.data import Task
from ilora_core.metrics import get_metric
from ilora_core.protocols import Generator

__all__ = ["Validated", "predict_codes", "validate"]

_SHOWN, _BATCH = 6, 8


@dataclass(frozen=True)
class Validated:
    """A validation. value is None without held-out pictures. pictures: (input, prediction, target) for a grid."""

    intrinsic: str
    step: int
    metric: str
    value: float | None
    higher_is_better: bool
    pictures: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()

    def beats(self, other: Validated | None) -> bool:
        """Whether this adapter should be kept as the best: always against none, and against a NaN."""
        if self.value is None or other is None or other.value is None:
            return True
        if self.value != self.value or other.value != other.value:
            return other.value != other.value
        return self.value > other.value if self.higher_is_better else self.value < other.value


def validate(generator: Generator, task: Task, step: int) -> Validated:
    """Score the adapter as attached. Evaluation mode for the length of the call."""
    metric = get_metric(task.intrinsic.metric)
    if not len(task.validation):
        return Validated(task.intrinsic.name, step, metric.name, None, metric.higher_is_better)
    training = generator.net.training
    generator.net.eval()
    try:
        maps, rows = predict_codes(generator, task)
    finally:
        generator.net.train(training)
    figures = metric(maps, task.validation.truth, task.validation.valid)
    value = float(figures.nanmean())
    return Validated(task.intrinsic.name, step, metric.name, value, metric.higher_is_better, rows)


def predict_codes(generator: Generator, task: Task) -> tuple[Tensor, tuple[tuple[Tensor, Tensor, Tensor], ...]]:
    """Maps of all held-out pictures (N,C,H,W), and (input, prediction, target) pictures of the first few."""
    held, intrinsic = task.validation, task.intrinsic
    maps, rows = [], []
    for start in range(0, len(held), _BATCH):
        part = slice(start, start + _BATCH)
        codes = {name: value if value.shape[0] == 1 else value[part] for name, value in held.codes.items()}
        with torch.no_grad():
            drawn = generator.render(codes, intrinsic).float().cpu()
            maps.append(intrinsic.from_picture(drawn))
            if start < _SHOWN:
                seen = generator.picture(codes).float().cpu()
                target = intrinsic.to_picture(held.truth[part], held.valid[part])
                rows += list(zip(seen, drawn, target, strict=True))
    return torch.cat(maps), tuple(rows[:_SHOWN])
