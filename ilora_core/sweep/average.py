"""Several seeds as one figure: their mean, with an interval over pictures and seeds.

    value = mean_s T_s          draw = Σ_s v_s T_s(w) / S,   v ~ multinomial(S, 1/S),   w ~ multinomial(n, 1/n)

T_s(w) is seed s's figure of the set with picture weights w (`ilora_core.bootstrap`). Seeds that were scored on the same pictures
share w (crossed random effects: Owen 2007, "The pigeonhole bootstrap"); on other pictures each has its own. Few seeds are few
draws: with two or three of them the interval tells little about seeds, and is best read as one over pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilora_core.bootstrap import draw_weights, interval, statistic
from ilora_core.errors import DataError
from ilora_core.evaluate import Comparison, Evaluation, Figure

__all__ = ["average", "contrast"]


def average(evaluations: Sequence[Evaluation], *, seed: int = 0, resamples: int = 1000) -> dict[str, Figure]:
    """Figures of one or more evaluations by the same protocol. A pooled median of several has no interval."""
    first = evaluations[0]
    if len(evaluations) == 1:
        return dict(first.figures)
    figures = {}
    for name, spec in first.figures.items():
        values = np.array([e.figures[name].value for e in evaluations])
        low, high = math.nan, math.nan
        if spec.pool != "pixels_median" and min(e.n for e in evaluations) > 1:
            low, high = interval(_mean_draws(evaluations, name, seed=seed, resamples=resamples))
        figures[name] = replace(spec, value=float(values.mean()), low=low, high=high)
    return figures


def contrast(
    a: Sequence[Evaluation], b: Sequence[Evaluation], figure: str = "", *, seed: int = 0, resamples: int = 1000
) -> Comparison:
    """The mean over seeds of a minus that of b, paired over pictures, and over seeds where both have as many.

    figure: of the protocol; "" = its first. Raises DataError for other pictures or another protocol, and for the pooled median
    or a single picture, which have no interval.
    """
    first, other = a[0], b[0]
    if (first.protocol, first.intrinsic) != (other.protocol, other.intrinsic):
        raise DataError(
            f"{first.intrinsic} by {first.protocol} cannot be held against {other.intrinsic} by {other.protocol}."
        )
    pictures = set(first.pictures)
    if any(set(e.pictures) != pictures for e in (*a, *b)):
        raise DataError("the two sides were scored on different pictures.")
    name = figure or next(iter(first.figures))
    spec = first.figures[name]
    if spec.pool == "pixels_median" or len(pictures) < 2:
        raise DataError(f"{name} of {len(pictures)} pictures has no interval to compare by.")
    b = [_reordered(e, tuple(first.pictures)) for e in b]
    draws = [_mean_draws(side, name, seed=seed, resamples=resamples) for side in ([*a], b)]
    low, high = interval(draws[0] - draws[1])
    value = float(np.mean([e.figures[name].value for e in a]) - np.mean([e.figures[name].value for e in b]))
    return Comparison(name, first.protocol, len(pictures), value, low, high, spec.unit, spec.higher_is_better)


def _reordered(evaluation: Evaluation, keys: Sequence[str]) -> Evaluation:
    return replace(evaluation, pictures={key: evaluation.pictures[key] for key in keys}, histograms=None)


def _mean_draws(evaluations: Sequence[Evaluation], name: str, *, seed: int, resamples: int) -> np.ndarray:
    """(R,): the mean over redrawn seeds of the figure over redrawn pictures; the same redraws for as many seeds."""
    draws = _seed_draws(len(evaluations), seed=seed, resamples=resamples)
    by_seed = np.stack([_draws(e, name, evaluations, seed=seed, resamples=resamples) for e in evaluations])
    return (draws * by_seed).sum(0) / len(evaluations)


def _seed_draws(count: int, *, seed: int, resamples: int) -> np.ndarray:
    """(S, R): how often each seed is drawn."""
    rng = np.random.default_rng((seed, count))
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).T.astype(np.float64)


def _draws(one: Evaluation, name: str, among: Sequence[Evaluation], *, seed: int, resamples: int) -> np.ndarray:
    """(R,): the figure over redrawn pictures, in the order of the first evaluation where all share the pictures."""
    shared = all(set(e.pictures) == set(one.pictures) for e in among)
    keys = list(among[0].pictures if shared else one.pictures)
    own = seed if shared else seed + 1 + next(i for i, e in enumerate(among) if e is one)
    rows = [one.pictures[key] for key in keys]
    columns = (np.array([row.get(name, math.nan) for row in rows]), np.array([row["pixels"] for row in rows]))
    weights = draw_weights(len(keys), resamples=resamples, seed=own)
    return np.concatenate([statistic(one.figures[name].pool, w, *columns) for w in weights])
