"""Compare predicted maps with true ones: figures of a whole set with confidence intervals, under a named protocol.

    evaluation = evaluate(((key, prediction, truth, valid), ...), NORMALS, protocol="normals-pooled")
    evaluation.figures["mean_deg"]       # Figure(value, low, high, unit, higher_is_better, pool)
    compare(evaluation, other)           # paired over the same pictures

Maps stream by: a picture leaves a row of figures and, for pooled normals, a histogram of its errors (1800 bins of 0.1°,
for the interval of the median). The pooled median itself comes from one histogram of 0.0001° bins: off by at most that.
Protocols: `ilora_core.metrics.protocols`. Intervals: `ilora_core.bootstrap`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilora_core.bootstrap import (
    HISTOGRAM_BINS,
    HISTOGRAM_TOP_DEG,
    draw_weights,
    histogram_median,
    interval,
    statistic,
)
from ilora_core.errors import ConfigError, DataError
from ilora_core.intrinsics import Intrinsic
from ilora_core.metrics.figures import Measured, prepare_maps
from ilora_core.metrics.protocols import Protocol, get_protocol

__all__ = ["Comparison", "Evaluation", "Figure", "Pair", "compare", "evaluate", "evaluate_all"]

Pair = tuple[str, Tensor, Tensor, Tensor]
"""Key, prediction (C,H,W), truth (C,H,W), valid bool (1,H,W)."""

_FINE_BINS = 1_800_000


@dataclass(frozen=True)
class Figure:
    """A set's figure with its 95 % interval (NaN for fewer than two pictures). pool: how pictures were combined."""

    value: float
    low: float
    high: float
    unit: str
    higher_is_better: bool
    pool: str = "mean"


@dataclass(frozen=True)
class Evaluation:
    """The figures of n pictures under one protocol.

    predicts    depth only: what the predictions hold, one of `ilora_core.metrics.predicted.PREDICTS`
    read_as     depth only: what the protocol made of that
    figures     name -> Figure
    pictures    key -> that picture's own figures, with "pixels", the number that counted
    histograms  pooled normals only: errors of each picture, (n, 1800), for `compare`; not part of the JSON
    """

    protocol: str
    intrinsic: str
    n: int
    figures: Mapping[str, Figure]
    pictures: Mapping[str, Mapping[str, float]]
    seed: int = 0
    resamples: int = 1000
    histograms: np.ndarray | None = field(default=None, repr=False, compare=False)
    predicts: str = ""
    read_as: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data; a figure that is not finite becomes None."""
        return {
            "protocol": self.protocol,
            "intrinsic": self.intrinsic,
            "predicts": self.predicts,
            "read_as": self.read_as,
            "n": self.n,
            "seed": self.seed,
            "resamples": self.resamples,
            "figures": {name: _finite(asdict(figure)) for name, figure in self.figures.items()},
            "pictures": {key: _finite(row) for key, row in self.pictures.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_json`. Raises DataError when a part is missing."""
        try:
            figures = {name: Figure(**_known(figure)) for name, figure in data["figures"].items()}
            pictures = {key: _known(row) for key, row in data["pictures"].items()}
            names = ("protocol", "intrinsic", "n", "seed", "resamples")
            said = {name: data.get(name, "") for name in ("predicts", "read_as")}
            return cls(figures=figures, pictures=pictures, **{name: data[name] for name in names}, **said)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"this is not an evaluation written by ilora: {error}.") from error


@dataclass(frozen=True)
class Comparison:
    """a's figure minus b's over the same pictures, with its 95 % interval. `better` is "a", "b" or "" (undecided)."""

    figure: str
    protocol: str
    n: int
    difference: float
    low: float
    high: float
    unit: str
    higher_is_better: bool

    @property
    def better(self) -> str:
        """Which side wins with its whole interval."""
        if self.low > 0:
            return "a" if self.higher_is_better else "b"
        if self.high < 0:
            return "b" if self.higher_is_better else "a"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Plain data with the verdict; what is not finite becomes None."""
        return _finite({**asdict(self), "better": self.better})


def evaluate(
    pairs: Iterable[Pair],
    intrinsic: Intrinsic,
    *,
    protocol: str | None = None,
    predicts: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Figures over pairs under one protocol (the intrinsic's default for None); see `evaluate_all`."""
    found = evaluate_all(pairs, intrinsic, protocols=(protocol,), predicts=predicts, seed=seed, resamples=resamples)
    (evaluation,) = found.values()
    return evaluation


def evaluate_all(
    pairs: Iterable[Pair],
    intrinsic: Intrinsic,
    *,
    protocols: Sequence[str | None] = (None,),
    predicts: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Evaluation]:
    """Protocol's name -> Evaluation, in one pass over the pairs.

    `intrinsic` is the truth's; `predicts` says of depth what the predictions hold ("depth" unless told, see
    `get_protocol`). Raises UnknownName or ConfigError for a protocol that does not suit, and DataError, naming the
    picture, for a key seen twice, shapes that differ, a mask without a pixel that counts, or a prediction that is not
    finite there.
    """
    wanted = [get_protocol(name, intrinsic, predicts=predicts) for name in protocols]
    tallies = [_Tally(protocol) for protocol in {protocol.name: protocol for protocol in wanted}.values()]
    for key, prediction, truth, valid in pairs:
        try:
            maps = prepare_maps(prediction, truth, valid, batched=False)
            _check_finite(*maps)
            for tally in tallies:
                tally.add(key, tally.protocol.measure(*maps))
        except DataError as error:
            raise DataError(f"picture {key!r}: {error}") from error
    return {tally.protocol.name: tally.finish(intrinsic.name, seed, resamples) for tally in tallies}


def compare(
    a: Evaluation, b: Evaluation, figure: str | None = None, *, seed: int = 0, resamples: int = 1000
) -> Comparison:
    """Paired bootstrap of a - b for one figure (the protocol's first unless named).

    Both must hold the same pictures under the same protocol, else DataError. The pooled median needs evaluations fresh
    from `evaluate`: their JSON has no histograms.
    """
    if (a.protocol, a.intrinsic) != (b.protocol, b.intrinsic):
        raise DataError(f"cannot compare {a.intrinsic} by {a.protocol} with {b.intrinsic} by {b.protocol}.")
    if lonely := sorted(set(a.pictures) ^ set(b.pictures)):
        raise DataError(f"only one side holds picture {lonely[0]!r} (and {len(lonely) - 1} more): compare equal sets.")
    name = figure or next(iter(a.figures))
    if name not in a.figures or name not in b.figures:
        raise ConfigError(f"protocol {a.protocol} has no figure {name!r}; it has {', '.join(a.figures)}.")
    spec, keys = a.figures[name], tuple(a.pictures)
    sides = [_columns(side, name, keys) for side in (a, b)]
    if spec.pool == "pixels_median" and any(side[2] is None for side in sides):
        raise ConfigError("the pooled median can only be compared straight after evaluating; choose mean_deg instead.")
    draws = [
        statistic(spec.pool, w, *sides[0]) - statistic(spec.pool, w, *sides[1])
        for w in draw_weights(len(keys), resamples=resamples, seed=seed)
    ]
    difference = spec.value - b.figures[name].value
    shift = difference - (_once(spec.pool, sides[0]) - _once(spec.pool, sides[1]))
    low, high = interval(np.concatenate(draws) + shift) if len(keys) > 1 else (math.nan, math.nan)
    return Comparison(name, a.protocol, len(keys), difference, low, high, spec.unit, spec.higher_is_better)


class _Tally:
    """What a protocol keeps of the pictures seen so far."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.rows: dict[str, dict[str, float]] = {}
        self.histograms: list[np.ndarray] = []
        self.pooled = any(spec.pool == "pixels_median" for spec in protocol.figures)
        self.fine = np.zeros(_FINE_BINS if self.pooled else 0, dtype=np.int64)

    def add(self, key: str, measured: Measured) -> None:
        if key in self.rows:
            raise DataError("this key came before; keys must be unique.")
        if not measured.pixels:
            raise DataError("no pixel counts: its mask is empty, or its truth lies outside the protocol's limits.")
        self.rows[key] = {**measured.figures, "pixels": measured.pixels}
        if self.pooled and measured.errors_deg is not None:
            errors = measured.errors_deg.cpu().numpy()
            self.histograms.append(
                np.bincount(_bin(errors, HISTOGRAM_BINS), minlength=HISTOGRAM_BINS).astype(np.float32)
            )
            np.add.at(self.fine, _bin(errors, _FINE_BINS), 1)  # touches as many bins as there are pixels, not all

    def finish(self, intrinsic: str, seed: int, resamples: int) -> Evaluation:
        if not self.rows:
            raise DataError(f"nothing to evaluate: there is no pair of {intrinsic} maps.")
        histograms = np.stack(self.histograms) if self.pooled else None
        said = {"predicts": self.protocol.predicts, "read_as": self.protocol.read_as}
        evaluation = Evaluation(
            self.protocol.name, intrinsic, len(self.rows), {}, self.rows, seed, resamples, histograms, **said
        )
        return replace(evaluation, figures=self._figures(evaluation))

    def _figures(self, evaluation: Evaluation) -> dict[str, Figure]:
        keys, specs = tuple(self.rows), self.protocol.figures
        columns = {spec.name: _columns(evaluation, spec.name, keys) for spec in specs}
        draws: dict[str, list[np.ndarray]] = {spec.name: [] for spec in specs}
        resamples = evaluation.resamples if len(keys) > 1 else 0
        for weights in draw_weights(len(keys), resamples=resamples, seed=evaluation.seed):
            for spec in specs:
                draws[spec.name].append(statistic(spec.pool, weights, *columns[spec.name]))
        figures = {}
        for spec in specs:
            centre = value = _once(spec.pool, columns[spec.name])
            if spec.pool == "pixels_median":
                value = float(histogram_median(self.fine[None], HISTOGRAM_TOP_DEG)[0])
            # The draws of the median come from wide bins; the shift puts them around the value from narrow ones.
            low, high = interval(np.concatenate([np.empty(0), *draws[spec.name]]) + (value - centre))
            figures[spec.name] = Figure(value, low, high, spec.unit, spec.higher_is_better, spec.pool)
        return figures


def _check_finite(prediction: Tensor, truth: Tensor, valid: Tensor) -> None:
    counted = (valid & torch.isfinite(truth).all(0, keepdim=True))[0]
    if broken := int((~torch.isfinite(prediction[:, counted])).any(0).sum()):
        raise DataError(
            f"the prediction is NaN or infinite at {broken} of {int(counted.sum())} valid pixels. "
            "Repair it, or leave holes out (`ilora evaluate --skip-holes`)."
        )


def _once(pool: str, columns: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> float:
    return float(statistic(pool, np.ones((1, len(columns[0]))), *columns)[0])


def _columns(
    evaluation: Evaluation, name: str, keys: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Figures (n,), pixels (n,) and histograms (n,K) in the order of `keys`."""
    rows = [evaluation.pictures[key] for key in keys]
    figures = np.array([row.get(name, math.nan) for row in rows], dtype=np.float64)
    pixels = np.array([row["pixels"] for row in rows], dtype=np.float64)
    histograms = evaluation.histograms
    if histograms is not None and tuple(evaluation.pictures) != tuple(keys):
        place = {key: index for index, key in enumerate(evaluation.pictures)}
        histograms = histograms[[place[key] for key in keys]]
    return figures, pixels, histograms


def _bin(errors_deg: np.ndarray, bins: int) -> np.ndarray:
    return (errors_deg * (bins / HISTOGRAM_TOP_DEG)).astype(np.int64).clip(0, bins - 1)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in row.items()}
