"""How good decompositions are, one row of figures per picture.

    A rms, A mse, S rms, S mse   after both sides went through the scale rule of `split`
    A si, S si                   RMS after the best single scale
    A lmse, S lmse               local error of windows of 20 pixels (`ilora_core.metrics.reflectance`)
    ord-err                      400 pairs of pixels at most 20 apart: which has the darker albedo, or are they equal
                                 (within 10 %)? Share of wrong answers, mean of two classes: truly equal and unequal

ord-err is WHDR (Bell et al. 2014) with exact answers and balanced classes: an albedo without contrast scores 0.5. The
shading is judged in grey: the mean of the truth's channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ilora_core.metrics.reflectance import measure_raw, measure_scale_invariant
from ilora_paradigms.split import Split, rescale

__all__ = ["FIGURES", "choose_by", "judge", "ordering_error"]

FIGURES = ("A rms", "A mse", "S rms", "S mse", "A si", "S si", "A lmse", "S lmse", "ord-err")
_PAIRS, _REACH, _DELTA = 400, 20, 0.10


def judge(guess: Split, albedo: Tensor, shading: Tensor, valid: Tensor) -> list[dict[str, float]]:
    """Answers beside linear truth (B,3,H,W), (B,1|3,H,W), valid bool (B,1,H,W): a row of FIGURES per picture."""
    truth = rescale(albedo, shading.mean(1, keepdim=True), valid)
    grey = guess.shading.mean(1, keepdim=True)
    rows = []
    for i in range(len(albedo)):
        row: dict[str, float] = {}
        for letter, p, g in (("A", guess.albedo[i], truth.albedo[i]), ("S", grey[i], truth.shading[i])):
            raw, fitted = measure_raw(p, g, valid[i]).figures, measure_scale_invariant(p, g, valid[i]).figures
            row |= {f"{letter} rms": raw["rms"], f"{letter} mse": raw["mse"]}
            row |= {f"{letter} si": fitted["si_rms"], f"{letter} lmse": fitted["lmse"]}
        row["ord-err"] = ordering_error(guess.albedo[i], truth.albedo[i], valid[i])
        rows.append({name: row[name] for name in FIGURES})
    return rows


def choose_by(rows: list[dict[str, float]]) -> float:
    """What checkpoints are chosen by: the mean of A si, S si and ord-err over pictures."""
    return sum(_mean(rows, name) for name in ("A si", "S si", "ord-err")) / 3


def ordering_error(guess: Tensor, truth: Tensor, valid: Tensor, *, seed: int = 0) -> float:
    """ord-err of one picture's linear albedo (3,H,W); NaN where no pair is valid."""
    first, second = _pairs(truth.shape[-2], truth.shape[-1], seed)
    mask = valid.flatten().to(first.device)
    keep = mask[first] & mask[second]
    said, true = (_darker(x, first[keep], second[keep]) for x in (guess, truth))
    wrong, equal = (said != true).double(), true == 0
    classes = [wrong[group].mean().item() for group in (equal, ~equal) if bool(group.any())]
    return sum(classes) / len(classes) if classes else math.nan


def _pairs(height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Flat indices of pixels and their partners, the same for every picture of this size."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.randint(height, (_PAIRS,), generator=rng), torch.randint(width, (_PAIRS,), generator=rng)
    angle = 2 * math.pi * torch.rand(_PAIRS, generator=rng)
    reach = 2 + (_REACH - 2) * torch.rand(_PAIRS, generator=rng)
    down = (y + reach * angle.sin()).round().long().clamp(0, height - 1)
    right = (x + reach * angle.cos()).round().long().clamp(0, width - 1)
    return y * width + x, down * width + right


def _darker(albedo: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """-1: the first is darker, 1: the second, 0: equal."""
    lightness = albedo.cpu().double().mean(0).flatten().clamp(min=1e-10)
    ratio = lightness[second] / lightness[first]
    return (ratio < 1 / (1 + _DELTA)).long() - (ratio > 1 + _DELTA).long()


def _mean(rows: list[Mapping[str, float]] | list[dict[str, float]], name: str) -> float:
    known = [row[name] for row in rows if not math.isnan(row[name])]
    return sum(known) / len(known) if known else math.nan
