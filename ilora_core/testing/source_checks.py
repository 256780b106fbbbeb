"""What every source holds to. Where it gives both normals and depth, each is held against the other: a surface z(x, y)
has the normal (∂z/∂x, ∂z/∂y, −1) up to length and perspective, so the signs of the slopes must agree."""

from __future__ import annotations

import torch
from torch import Tensor

from ilora_core.protocols import Batch, Source
from ilora_core.testing.cases import Subject, require, skip

__all__ = [
    "check_follows_source_protocol",
    "check_iterates_twice_the_same",
    "check_keys_are_unique_and_stable",
    "check_maps_have_their_unit",
    "check_normals_agree_with_depth",
    "check_source_pictures_in_range",
]


def check_follows_source_protocol(subject: Subject) -> None:
    """`intrinsics`, `keys`, a length and an iterator of batches with pictures in them."""
    source = subject.make()
    missing = [name for name in ("intrinsics", "keys", "__len__", "__iter__") if not hasattr(source, name)]
    require(not missing, f"a source also needs: {', '.join(missing)} (ilora_core.protocols.Source).")
    batches = list(source)
    require(batches, "the miniature is empty.")
    count = sum(len(batch.keys) for batch in batches)
    require(count == len(source), f"len() says {len(source)}, the batches hold {count}.")
    names = {intrinsic.name for intrinsic in source.intrinsics}
    for batch in batches:
        require(set(batch.maps) == names, f"intrinsics say {sorted(names)}, a batch has {sorted(batch.maps)}.")


def check_keys_are_unique_and_stable(subject: Subject) -> None:
    """Keys name pictures once and for all: unique, the same in a second object, equal to `keys`."""
    first, second = (_keys(list(subject.make())) for _ in range(2))
    require(len(set(first)) == len(first), f"keys repeat: {sorted({k for k in first if first.count(k) > 1})[:3]}.")
    require(first == second, "a second source of the same settings has other keys, or another order.")
    require(all(isinstance(key, str) and key for key in first), "keys are texts.")
    require(tuple(subject.make().keys) == first, "`keys` differs from the keys of the batches, or from their order.")


def check_source_pictures_in_range(subject: Subject) -> None:
    """Float32 (B,3,H,W) in [0,1]."""
    for batch in subject.make():
        value = batch.pictures
        require(value.ndim == 4 and value.shape[1] == 3, f"pictures are (B,3,H,W), not {tuple(value.shape)}.")
        require(value.shape[0] == len(batch.keys), f"{len(batch.keys)} keys for {value.shape[0]} pictures.")
        require(value.dtype == torch.float32, f"pictures are float32, not {value.dtype}.")
        low, high = float(value.min()), float(value.max())
        require(low >= 0 and high <= 1, f"pictures span {low:.3g} to {high:.3g}; everything is in [0,1].")


def check_maps_have_their_unit(subject: Subject) -> None:
    """Float32 (B,C,H,W) at the picture's size with bool (B,1,H,W); unit normals that face the camera, depth above 0."""
    source: Source = subject.make()
    if not source.intrinsics:
        skip("it has no true maps")
    for batch in source:
        for intrinsic in source.intrinsics:
            value, valid = batch.maps[intrinsic.name]
            _require_map(intrinsic.name, intrinsic.channels, value, valid, batch)
            chosen = value.movedim(1, -1)[valid[:, 0]]
            require(torch.isfinite(chosen).all(), f"{intrinsic.name} is not finite where it is valid.")
            if intrinsic.encoding == "unit_vector" and len(chosen):
                off = float((chosen.norm(dim=-1) - 1).abs().max())
                require(off < 1e-3, f"{intrinsic.name}: lengths are off 1 by up to {off:.2g}.")
                # Seen obliquely, a wall may have n_z a little above 0; most of what is seen has not.
                mean = float(chosen[:, 2].mean())
                require(mean < 0, f"{intrinsic.name}: n_z is {mean:+.2f} on average; facing the camera is n_z < 0.")
            elif intrinsic.kind == "metric" and len(chosen):
                require(chosen.min() > 0, f"{intrinsic.name}: metres are positive; the least is {chosen.min():.3g}.")


def check_iterates_twice_the_same(subject: Subject) -> None:
    """A second pass gives the same pictures and maps, bit for bit."""
    source = subject.make()
    for one, two in zip(list(source), list(source), strict=True):
        require(one.keys == two.keys and torch.equal(one.pictures, two.pictures), f"{one.keys[0]}: pictures differ.")
        for name, (value, valid) in one.maps.items():
            same = torch.equal(valid, two.maps[name][1]) and torch.allclose(
                value, two.maps[name][0], 0, 0, equal_nan=True
            )
            require(same, f"{one.keys[0]}: {name} differs in a second pass.")


def check_normals_agree_with_depth(subject: Subject) -> None:
    """Normals tilt the way the depth map slopes, in x and in y."""
    source: Source = subject.make()
    known = {intrinsic.name: intrinsic for intrinsic in source.intrinsics}
    if not {"normals", "depth"} <= set(known):
        skip("it does not give both normals and depth")
    sign = -1.0 if known["depth"].kind == "affine_disparity" else 1.0
    slopes: dict[str, list[Tensor]] = {"x (right)": [], "y (down)": []}
    tilts: dict[str, list[Tensor]] = {"x (right)": [], "y (down)": []}
    for batch in source:
        (normals, one), (depth, two) = batch.maps["normals"], batch.maps["depth"]
        usable = (one & two)[:, 0, 1:-1, 1:-1] & torch.isfinite(depth[:, 0, 1:-1, 1:-1])
        dx = depth[:, 0, 1:-1, 2:] - depth[:, 0, 1:-1, :-2]
        dy = depth[:, 0, 2:, 1:-1] - depth[:, 0, :-2, 1:-1]
        for axis, slope, channel in (("x (right)", dx, 0), ("y (down)", dy, 1)):
            # At the border of two bodies the difference is a jump and no slope; the sign's product is robust to it.
            kept = usable & torch.isfinite(slope)
            slopes[axis].append(sign * slope[kept].sign())
            tilts[axis].append(normals[:, channel, 1:-1, 1:-1][kept])
    for axis, parts in slopes.items():
        slope, tilt = torch.cat(parts), torch.cat(tilts[axis])
        if float((slope * tilt).abs().sum()) < 1e-6:
            skip("nothing in the miniature slopes")
        agreement = float((slope * tilt).sum() / tilt.abs().sum().clamp(min=1e-8))
        require(agreement > 0, f"normals' {axis} axis is flipped against the depth map (agreement {agreement:+.2f}).")


def _require_map(name: str, channels: int, value: Tensor, valid: Tensor, batch: Batch) -> None:
    count, _, height, width = batch.pictures.shape
    allowed = {(count, c, height, width) for c in ({1, channels} if name == "shading" else {channels})}
    require(tuple(value.shape) in allowed, f"{name} is {tuple(value.shape)}; it should be {sorted(allowed)[-1]}.")
    require(value.dtype == torch.float32, f"{name} is float32, not {value.dtype}.")
    require(valid.dtype == torch.bool, f"{name}: valid is bool, not {valid.dtype}.")
    require(tuple(valid.shape) == (count, 1, height, width), f"{name}: valid is {tuple(valid.shape)}, not (B,1,H,W).")


def _keys(batches: list[Batch]) -> tuple[str, ...]:
    return tuple(key for batch in batches for key in batch.keys)
