"""Several labelers, one map: bring their maps to one scale, average them, and say where they disagree.

    align         to the first labeler that gives the map, over the pixels valid in both:
                  depth            min over s, t of Σ (first - (s d + t))²; nothing where both are metres
                  albedo, shading  min over s of Σ (first - s m)², one s per map
                  normals, others  nothing
    mix           mean or median of the labelers that are valid at a pixel; normals are renormalised afterwards
    disagreement  normals: mean angle to the mix, in degrees; others: mean |aligned - mix|, as a share of the range (depth:
                  1st to 99th percentile of the mix; shading: 99th percentile; albedo and your own: high - low)
    weight        w = 1 / (1 + (d / s)²), with s the median of the disagreement d over the picture, or as given

A disparity is fitted as a disparity: to 1/z of a metric map, or to another disparity. A map that cannot be fitted (fewer than
16 shared pixels, no contrast, or a scale that is not positive) is left out for that picture.

Least squares in scale and shift: Ranftl et al. 2019 (arXiv 1907.01341). The weight is Cauchy's of robust regression
(Holland and Welsch 1977).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic, unit_vectors

__all__ = [
    "DISAGREEMENT",
    "MODES",
    "disagreement_name",
    "disagreement_of",
    "mix_labels",
    "mixed_intrinsics",
    "pixel_weights",
]

MODES = ("mean", "median")
DISAGREEMENT = "disagreement-"
"""What the name of a disagreement map starts with; the intrinsic's own name follows."""

_LEAST_SHARED = 16
_EPS = 1e-8

Label = tuple[Tensor, Tensor]


def disagreement_name(name: str) -> str:
    """The name of an intrinsic's disagreement map."""
    return f"{DISAGREEMENT}{name}"


def disagreement_of(intrinsic: Intrinsic) -> Intrinsic:
    """The intrinsic that a disagreement map is: one channel, in degrees for unit vectors, else a share of the range."""
    angular = intrinsic.encoding == "unit_vector"
    unit, high = ("deg", 180.0) if angular else ("share of the range", 1.0)
    return Intrinsic(disagreement_name(intrinsic.name), 1, unit, "linear", 0.0, high)


def mixed_intrinsics(given: Sequence[Sequence[Intrinsic]]) -> tuple[Intrinsic, ...]:
    """What a mix gives: every intrinsic of the labelers in order, and a disagreement for each that two or more give.

    given: the intrinsics of each labeler. Raises ConfigError where two of them cannot be brought to one scale.
    """
    results = []
    for offers in _offers(given).values():
        for other in offers[1:]:
            _check_alike(offers[0], other)
        results.append(_result(offers))
        if len(offers) > 1:
            results.append(disagreement_of(results[-1]))
    return tuple(results)


def mix_labels(
    labels: Sequence[Mapping[str, Label]], given: Sequence[Sequence[Intrinsic]], mode: str = "mean"
) -> dict[str, Label]:
    """One picture's labels (Map (C,H,W), Valid (1,H,W)) of several labelers, mixed, with disagreements.

    labels, given  of each labeler, in the order of the mix
    mode           one of MODES
    """
    if mode not in MODES:
        raise ConfigError(f"labeler.mix is one of {', '.join(MODES)}, not {mode!r}.")
    mixed: dict[str, Label] = {}
    for name, offers in _offers(given).items():
        givers = [own[name] for own, offered in zip(labels, given, strict=True) if name in {i.name for i in offered}]
        if len(givers) == 1:
            mixed[name] = givers[0]
            continue
        result = _result(offers)
        values, valid = _aligned(result, offers, givers)
        mixed[name] = _mixed(result, values, valid, mode)
        mixed[disagreement_name(name)] = _disagreement(result, values, valid, *mixed[name])
    return mixed


def pixel_weights(disagreement: Tensor, known: Tensor, valid: Tensor, *, scale: float = 0.0) -> Tensor:
    """Weights (B,1,H,W) in [0,1], float32: 1 where all agree, 1/2 where they disagree by `scale`, 0 where not valid.

    disagreement  (B,1,H,W) in degrees or as a share of the range; known: where it means something (B,1,H,W)
    valid         of the map itself; a pixel that only one labeler speaks for counts as a typical one
    scale         0 = each picture's median disagreement (its mean where that is 0)
    """
    weights = torch.zeros_like(disagreement, dtype=torch.float32)
    for row, own in enumerate(disagreement.float()):
        seen = own[known[row]]
        typical = float(seen.median()) if seen.numel() else 0.0
        s = scale or typical or (float(seen.mean()) if seen.numel() else 0.0)
        d = torch.where(known[row], own, torch.full_like(own, typical))
        weights[row] = 1 / (1 + (d / s).square()) if s else torch.ones_like(d)
    return torch.where(valid, weights, torch.zeros_like(weights))


def _offers(given: Sequence[Sequence[Intrinsic]]) -> dict[str, list[Intrinsic]]:
    """Intrinsic's name -> what each labeler that gives it says of it."""
    offers: dict[str, list[Intrinsic]] = {}
    for offered in given:
        for intrinsic in offered:
            offers.setdefault(intrinsic.name, []).append(intrinsic)
    return offers


def _result(offers: Sequence[Intrinsic]) -> Intrinsic:
    """The first one's conventions; shading has as many channels as the richest."""
    return replace(offers[0], channels=max(i.channels for i in offers))


def _check_alike(first: Intrinsic, other: Intrinsic) -> None:
    kinds = {first.kind, other.kind}
    if first.encoding == other.encoding == "relative_depth":
        if kinds == {"affine_depth", "affine_disparity"}:
            raise ConfigError(
                "affine depth and affine disparity cannot be brought to one scale. Put a labeler of metric depth first, or "
                "mix labelers of one kind."
            )
        return
    channels = first.encoding == "shading" or first.channels == other.channels
    if (first.encoding, first.low, first.high) != (other.encoding, other.low, other.high) or not channels:
        raise ConfigError(
            f"two labelers of this mix mean different things by {first.name!r} (its encoding, range or channels): leave one out."
        )


def _aligned(result: Intrinsic, offers: Sequence[Intrinsic], givers: Sequence[Label]) -> tuple[Tensor, Tensor]:
    """Values (K,C,H,W), 0 where not valid, and Valid (K,1,H,W) of K labelers."""
    first, first_valid = givers[0]
    values, masks = [first], [first_valid]
    for offer, (value, valid) in zip(offers[1:], givers[1:], strict=True):
        both = (first_valid & valid)[0]
        if result.encoding == "relative_depth":
            value, valid = _align_depth(offers[0].kind, offer.kind, first, value, valid, both)
        elif result.encoding == "shading" or result.name == "albedo":
            value, valid = _align_scale(result, first, value, valid, both)
        values.append(value)
        masks.append(valid)
    shape = (result.channels, *first.shape[-2:])
    valid = torch.stack(masks)
    stacked = torch.stack([value.float().expand(shape) for value in values])
    stacked = torch.where(valid, stacked, torch.zeros_like(stacked))
    return (unit_vectors(stacked) if result.encoding == "unit_vector" else stacked), valid


def _align_depth(
    first_kind: str, kind: str, first: Tensor, value: Tensor, valid: Tensor, both: Tensor
) -> tuple[Tensor, Tensor]:
    if first_kind == kind == "metric":
        return value, valid
    as_disparity = "affine_disparity" in (first_kind, kind)
    y = _inverse(first) if as_disparity and first_kind == "metric" else first
    x = _inverse(value) if as_disparity and kind == "metric" else value
    fit = _scale_and_shift(x[0][both].double(), y[0][both].double())
    if fit is None:
        return value, torch.zeros_like(valid)
    fitted = fit[0] * x + fit[1]
    if first_kind != "metric":
        return fitted, valid
    if not as_disparity:
        return fitted, valid & (fitted > 0)
    near_enough = fitted > y[0][both].min() / 2  # beyond twice the first map's farthest, 1/x says nothing
    return _inverse(fitted), valid & near_enough


def _align_scale(result: Intrinsic, first: Tensor, value: Tensor, valid: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    y, x = (
        first.expand(result.channels, -1, -1)[:, both].double(),
        value.expand(result.channels, -1, -1)[:, both].double(),
    )
    power = float(x.square().sum())
    scale = float((x * y).sum()) / power if power > _EPS else 0.0
    if int(both.sum()) < _LEAST_SHARED or scale <= 0:
        return value, torch.zeros_like(valid)
    scaled = value * scale
    return (scaled if result.encoding == "shading" else scaled.clamp(result.low, result.high)), valid


def _scale_and_shift(x: Tensor, y: Tensor) -> tuple[float, float] | None:
    """s, t that minimise Σ (y - s x - t)², or None where they mean nothing."""
    if x.numel() < _LEAST_SHARED:
        return None
    mean_x, mean_y = x.mean(), y.mean()
    spread = float((x - mean_x).square().mean())
    scale = float(((x - mean_x) * (y - mean_y)).mean()) / spread if spread > _EPS * float(x.square().mean()) else 0.0
    return (scale, float(mean_y) - scale * float(mean_x)) if scale > 0 else None


def _inverse(z: Tensor) -> Tensor:
    return 1 / z.clamp(min=1e-6)


def _mixed(result: Intrinsic, values: Tensor, valid: Tensor, mode: str) -> Label:
    mixed = _mean(values, valid) if mode == "mean" else _median(values, valid)
    some = valid.any(0)
    if result.encoding != "unit_vector":
        return mixed, some
    some = some & (mixed.norm(dim=0, keepdim=True) > 1e-6)  # opposite vectors leave no direction
    return unit_vectors(mixed[None])[0], some


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Over the valid of K; 0 where there are none. values are 0 where not valid."""
    return values.sum(0) / valid.sum(0).clamp(min=1)


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """Componentwise over the valid of K, the middle two averaged; 0 where there are none."""
    ranked = torch.where(valid, values, torch.full_like(values, torch.inf)).sort(0).values
    count = valid.sum(0, keepdim=True).expand_as(values[:1])
    low, high = (
        ranked.gather(0, index) for index in (((count - 1) // 2).clamp(min=0), (count // 2).clamp(max=len(values) - 1))
    )
    return torch.where(count > 0, (low + torch.where(count > 0, high, low)) / 2, torch.zeros_like(low))[0]


def _disagreement(result: Intrinsic, values: Tensor, valid: Tensor, mixed: Tensor, some: Tensor) -> Label:
    if result.encoding == "unit_vector":
        # Exact for small angles too, where the arc cosine is not.
        apart, together = ((values + sign * mixed).norm(dim=1, keepdim=True) for sign in (-1, 1))
        each = torch.rad2deg(2 * torch.atan2(apart, together))
    else:
        each = (values - mixed).abs().mean(1, keepdim=True) / _range(result, mixed, some)
    each = torch.where(valid, each, torch.zeros_like(each))
    known = (valid.sum(0) > 1) & some
    return torch.where(known, _mean(each, valid), torch.zeros_like(each[0])), known


def _range(result: Intrinsic, mixed: Tensor, some: Tensor) -> float:
    if result.encoding not in ("relative_depth", "shading"):
        return result.high - result.low
    chosen = mixed.amax(0)[some[0]].sort().values
    if not chosen.numel():
        return 1.0
    low, high = (float(chosen[round(share * (chosen.numel() - 1))]) for share in (0.01, 0.99))
    return max(high if result.encoding == "shading" else high - low, _EPS)
