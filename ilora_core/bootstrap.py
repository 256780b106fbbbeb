"""Confidence intervals by resampling pictures, and the statistics that are resampled.

    value = T(w = 1),   interval = 2.5 % and 97.5 % quantiles of T(w),   w ~ multinomial(n, 1/n ... 1/n)

Pictures are the unit that is drawn (Efron 1979): the pixels of one picture are not independent. A picture drawn twice
has weight 2, so that every statistic is a function of weights and of what each picture left behind (sums, histograms);
no map is kept. Statistics over pixels follow from a picture's own figure and its number of pixels,

    mean: Σ w n x / Σ w n      root mean square: √(Σ w n x² / Σ w n)

and the median from histograms of 0.1° bins, interpolated inside the bin.

Where every picture was scored once per seed, seeds are drawn as well: w_ij = u_i v_j (the pigeonhole bootstrap, Owen 2007).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = [
    "HISTOGRAM_BINS",
    "HISTOGRAM_TOP_DEG",
    "draw_crossed_weights",
    "draw_weights",
    "histogram_median",
    "interval",
    "statistic",
]

HISTOGRAM_BINS, HISTOGRAM_TOP_DEG = 1800, 180.0
_AT_ONCE = 100


def draw_weights(n: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks of (at most 100, n) float64: how often each of n pictures is drawn. The same seed, the same draws."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def draw_crossed_weights(seeds: int, n: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks of (at most 100, seeds · n): weights of n pictures scored under each of several seeds, seed by seed."""
    pictures = draw_weights(n, resamples=resamples, seed=seed)
    for u, v in zip(draw_weights(seeds, resamples=resamples, seed=seed + 1), pictures, strict=True):
        yield (u[:, :, None] * v[:, None, :]).reshape(len(u), -1)


def statistic(
    pool: str, weights: np.ndarray, figures: np.ndarray, pixels: np.ndarray, histograms: np.ndarray | None = None
) -> np.ndarray:
    """A set's figure under each row of weights (R,n), from its pictures' figures (n,): (R,), NaN where nothing counts.

    pool: one of `ilora_core.metrics.figures.POOLS`; "pixels_median" needs histograms (n, HISTOGRAM_BINS).
    """
    if pool == "pixels_median":
        if histograms is None:
            raise ValueError("a pooled median needs histograms")
        return histogram_median(weights @ histograms, HISTOGRAM_TOP_DEG)
    known = ~np.isnan(figures)
    shares = weights * known * (1.0 if pool == "mean" else pixels)
    x = np.where(known, figures, 0.0)
    total = shares.sum(1)
    summed = shares @ (x**2 if pool == "pixels_rms" else x)
    mean = np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)
    return np.sqrt(mean) if pool == "pixels_rms" else mean


def histogram_median(counts: np.ndarray, top: float) -> np.ndarray:
    """Medians (R,) of histograms (R,K) over [0,top], linear inside the bin."""
    running = counts.cumsum(1)
    half = running[:, -1:] / 2
    index = (running < half).sum(1).clip(max=counts.shape[1] - 1)
    row = np.arange(len(counts))
    inside = counts[row, index]
    before = running[row, index] - inside
    share = np.divide(half[:, 0] - before, inside, out=np.zeros(len(counts)), where=inside > 0)
    return (index + share) * (top / counts.shape[1])


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The central 95 % of draws (R,); NaN, NaN when there are none."""
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
