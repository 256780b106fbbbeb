"""What every labeler holds to.

Its axes can only be checked where the right answer is known. A labeler shows that its border is right through one more
method, which the miniature should have:

    def imitate(self, maps): "From now on the network answers with these true maps, told in the MODEL'S OWN convention."

Write `imitate` from the model's documentation (say, "y up, near = 1"), not by inverting `label`. The check then demands
that `label` gives back the truth in ours: every axis must correlate positively. With real weights, `require_axes` does
the same without `imitate`, on the pictures of the analytic scenes (`ilora check-plugin --real`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ilora_core.protocols import Labeler
from ilora_core.testing.cases import Subject, require, skip
from ilora_core.testing.scenes import AXES, Scenes, axis_correlations, make_scenes

__all__ = [
    "check_axes_point_our_way",
    "check_follows_labeler_protocol",
    "check_labels_any_size",
    "check_labels_do_not_depend_on_the_batch",
    "check_labels_have_their_unit",
    "check_labels_leave_the_picture_alone",
]

_CLOSE = 1e-4
_AXES_ALMOST = 0.9  # a fake network gives the truth; resizing inside the labeler costs a little at edges


def check_follows_labeler_protocol(subject: Subject) -> None:
    """It has `intrinsics` and `label`, and the card names the same intrinsics."""
    labeler = subject.make()
    missing = [name for name in ("intrinsics", "label") if not hasattr(labeler, name)]
    require(not missing, f"a labeler also needs: {', '.join(missing)} (ilora_core.protocols.Labeler).")
    names = {intrinsic.name for intrinsic in labeler.intrinsics}
    promised = set(subject.card.intrinsics) if subject.card else names
    require(names == promised, f"the card promises {sorted(promised)}, the labeler gives {sorted(names)}.")
    given = set(_label(labeler, make_scenes(32, 32).pictures))
    require(given == names, f"label gives {sorted(given)}; intrinsics say {sorted(names)}.")


def check_labels_have_their_unit(subject: Subject) -> None:
    """Float32 (B,C,H,W) and bool (B,1,H,W); normals of length 1, metric depth above 0, colours from 0 upwards."""
    labeler: Labeler = subject.make()
    pictures = make_scenes(48, 64).pictures
    labels = _label(labeler, pictures)
    for intrinsic in labeler.intrinsics:
        value, valid = labels[intrinsic.name]
        _require_shapes(intrinsic.name, intrinsic.channels, value, valid, pictures)
        if not bool(valid.any()):
            continue
        chosen = value.movedim(1, -1)[valid[:, 0]]
        require(torch.isfinite(chosen).all(), f"{intrinsic.name} is not finite where it is valid.")
        if intrinsic.encoding == "unit_vector":
            off = float((chosen.norm(dim=-1) - 1).abs().max())
            require(off < 1e-3, f"{intrinsic.name}: lengths are off 1 by up to {off:.2g}.")
        elif intrinsic.kind == "metric":
            require(
                chosen.min() > 0, f"{intrinsic.name}: metres along z are positive; the least is {chosen.min():.3g}."
            )
        elif intrinsic.encoding in ("shading", "srgb", "linear"):
            require(chosen.min() >= min(intrinsic.low, 0), f"{intrinsic.name}: the least value is {chosen.min():.3g}.")


def check_labels_any_size(subject: Subject) -> None:
    """Maps come back at the picture's own size, odd ones included."""
    labeler = subject.make()
    for size in ((37, 53), (64, 48)):
        pictures = make_scenes(*size).pictures[:1]
        for intrinsic in labeler.intrinsics:
            value, valid = _label(labeler, pictures)[intrinsic.name]
            _require_shapes(intrinsic.name, intrinsic.channels, value, valid, pictures)


def check_labels_do_not_depend_on_the_batch(subject: Subject) -> None:
    """Two pictures together get the labels they get apart, and the same ones the second time."""
    labeler = subject.make()
    pictures = make_scenes(32, 32).pictures
    together, again = _label(labeler, pictures), _label(labeler, pictures)
    apart = [_label(labeler, pictures[i : i + 1]) for i in range(2)]
    for name, (value, valid) in together.items():
        require(torch.equal(valid, torch.cat([row[name][1] for row in apart])), f"{name}: valid depends on the batch.")
        rows = torch.cat([row[name][0] for row in apart])
        difference = float(torch.where(valid, value - rows, torch.zeros_like(value)).abs().max())
        require(difference <= _CLOSE, f"{name}: a batch of two differs from two of one by {difference:.2g}.")
        drift = float(torch.where(valid, value - again[name][0], torch.zeros_like(value)).abs().max())
        require(drift <= _CLOSE, f"{name}: labelling twice differs by {drift:.2g}. Fix the seed, or eval mode.")


def check_labels_leave_the_picture_alone(subject: Subject) -> None:
    """label changes neither its input nor asks for gradients."""
    labeler = subject.make()
    pictures = make_scenes(32, 32).pictures
    kept = pictures.clone()
    labels = labeler.label(pictures)
    require(torch.equal(pictures, kept), "label changes the pictures it is given. Work on a copy.")
    tracked = [name for name, (value, _) in labels.items() if value.requires_grad]
    require(not tracked, f"label tracks gradients for {', '.join(tracked)}. Use torch.inference_mode or no_grad.")


def check_axes_point_our_way(subject: Subject) -> None:
    """With a network that tells the truth in the model's convention, label tells it in ours."""
    labeler: Any = subject.make()
    if not hasattr(labeler, "imitate"):
        skip("the miniature has no `imitate`, so only real weights can show its axes (`ilora check-plugin --real`)")
    scenes = make_scenes(64, 64)
    labeler.imitate({name: value.clone() for name, value in scenes.maps.items()})
    labels = _label(labeler, scenes.pictures)
    require_axes(labeler, labels, scenes, least=_AXES_ALMOST)


def require_axes(labeler: Labeler, labels: Mapping[str, Any], scenes: Scenes, *, least: float) -> dict[str, float]:
    """Every axis of every known intrinsic correlates with the truth above `least`; returns the correlations."""
    found: dict[str, float] = {}
    for intrinsic in labeler.intrinsics:
        if intrinsic.name not in AXES:
            continue
        value, valid = labels[intrinsic.name]
        for axis, correlation in axis_correlations(intrinsic, value, scenes, valid).items():
            found[f"{intrinsic.name} {axis}"] = correlation
            wrong = "flipped" if correlation < 0 else "wrong"
            hint = (
                " Normals: x right, y down, z forward, n_z < 0 towards the camera." if axis in AXES["normals"] else ""
            )
            require(correlation > least, f"{intrinsic.name}: {axis} is {wrong} (correlation {correlation:+.2f}).{hint}")
        if intrinsic.encoding == "unit_vector":
            facing = float((value[:, 2:][valid] < 0).float().mean())
            require(facing > 0.9, f"{intrinsic.name}: {facing:.0%} of the visible surface faces the camera (n_z < 0).")
    return found


def _label(labeler: Labeler, pictures: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
    with torch.no_grad():
        return labeler.label(pictures.clone())


def _require_shapes(name: str, channels: int, value: Tensor, valid: Tensor, pictures: Tensor) -> None:
    batch, _, height, width = pictures.shape
    # Shading is three channels, and one is accepted.
    allowed = {(batch, c, height, width) for c in ({1, channels} if name == "shading" else {channels})}
    require(tuple(value.shape) in allowed, f"{name} is {tuple(value.shape)}; it should be {sorted(allowed)[-1]}.")
    require(value.dtype == torch.float32, f"{name} is float32, not {value.dtype}.")
    require(valid.dtype == torch.bool, f"{name}: valid is bool, not {valid.dtype}.")
    require(tuple(valid.shape) == (batch, 1, height, width), f"{name}: valid is {tuple(valid.shape)}, not (B,1,H,W).")
