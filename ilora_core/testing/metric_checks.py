"""What every metric holds to, on the analytic scenes' maps."""

from __future__ import annotations

import torch
from torch import Tensor

from ilora_core.protocols import Metric
from ilora_core.testing.cases import Subject, require
from ilora_core.testing.exercise import maps_for

__all__ = [
    "check_best_at_the_truth",
    "check_follows_metric_protocol",
    "check_metric_respects_the_mask",
    "check_nan_where_nothing_is_valid",
    "check_one_figure_per_picture",
]

_ZERO = 0.1  # an angle of 0 measured by arccos in float32 is about 0.03°


def check_follows_metric_protocol(subject: Subject) -> None:
    """name, intrinsic, unit, higher_is_better, and a call."""
    metric = subject.make()
    missing = [n for n in ("name", "intrinsic", "unit", "higher_is_better", "__call__") if not hasattr(metric, n)]
    require(not missing, f"a metric also needs: {', '.join(missing)} (ilora_core.protocols.Metric).")
    texts = (metric.name, metric.intrinsic, metric.unit)
    require(all(isinstance(text, str) for text in texts), f"name, intrinsic and unit are texts, not {texts}.")
    require(isinstance(metric.higher_is_better, bool), "higher_is_better is True or False.")


def check_one_figure_per_picture(subject: Subject) -> None:
    """(B,), floating; a picture's figure does not depend on the batch."""
    metric: Metric = subject.make()
    truth, valid = maps_for(metric)
    noisy = _noisy(truth)
    together = metric(noisy, truth, valid)
    require(together.shape == truth.shape[:1], f"one figure per picture, {(len(truth),)}, not {tuple(together.shape)}.")
    require(together.is_floating_point(), f"figures are floating-point, not {together.dtype}.")
    require(torch.isfinite(together).all(), f"figures are not finite: {together.tolist()}.")
    apart = torch.cat([metric(noisy[i : i + 1], truth[i : i + 1], valid[i : i + 1]) for i in range(len(truth))])
    require(torch.allclose(together, apart, rtol=1e-4, atol=1e-5), "a picture's figure depends on the batch.")


def check_best_at_the_truth(subject: Subject) -> None:
    """An error is 0 at the truth; anything else has its best value there. A worse prediction never scores better."""
    metric: Metric = subject.make()
    truth, valid = maps_for(metric)
    perfect, noisy = metric(truth.clone(), truth, valid), metric(_noisy(truth), truth, valid)
    if metric.higher_is_better:
        require(
            (perfect >= noisy).all(), f"noise scores {noisy.tolist()}, the truth {perfect.tolist()}: higher is better."
        )
    else:
        require(float(perfect.abs().max()) < _ZERO, f"the truth itself scores {perfect.tolist()}; an error is 0 there.")
        require((noisy > perfect).all(), f"noise scores {noisy.tolist()}, no worse than the truth {perfect.tolist()}.")


def check_metric_respects_the_mask(subject: Subject) -> None:
    """What stands in pixels that are not valid does not matter, NaN included."""
    metric: Metric = subject.make()
    truth, valid = maps_for(metric)
    valid = valid.clone()
    valid[:, :, :, : valid.shape[-1] // 3] = False
    noisy = _noisy(truth)
    base = metric(noisy, truth, valid)
    for what, value in (("other numbers", 0.123), ("NaN", float("nan"))):
        filler = torch.full_like(truth, value)
        figures = metric(torch.where(valid, noisy, filler), torch.where(valid, truth, filler), valid)
        same = torch.allclose(figures, base, rtol=1e-5, atol=1e-6)
        require(same, f"{what} in pixels that are not valid move it from {base.tolist()} to {figures.tolist()}.")


def check_nan_where_nothing_is_valid(subject: Subject) -> None:
    """A picture without a valid pixel scores NaN, never 0, and leaves the others alone."""
    metric: Metric = subject.make()
    truth, valid = maps_for(metric)
    valid = valid.clone()
    valid[0] = False
    figures = metric(_noisy(truth), truth, valid)
    require(torch.isnan(figures[0]), f"a picture without a valid pixel scores {float(figures[0])}; it should be NaN.")
    require(torch.isfinite(figures[1:]).all(), f"its neighbours score {figures[1:].tolist()}.")


def _noisy(truth: Tensor) -> Tensor:
    """A clearly worse prediction, of the same unit and without a global scale or shift that a metric may align away."""
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(truth.shape, generator=source) * 0.3 * truth.std()
    noisy = truth + noise
    if truth.shape[1] == 3 and torch.allclose(truth.norm(dim=1), torch.ones(1), atol=1e-3):  # unit vectors stay so
        return noisy / noisy.norm(dim=1, keepdim=True)
    return noisy.clamp(min=1e-3)
