"""Do the normals point our way? A look at a few pictures of a source, for whoever has repacked or converted DIODE.

What a camera sees faces it, so n_z is below 0 on average; floors point up, so n_y is below 0 in the bottom third of rooms;
and depth must recede where normals tilt. `ilora_core.axes` has the formulas.
"""

from __future__ import annotations

from ilora_core.axes import AxisEvidence
from ilora_core.errors import DataError
from ilora_core.protocols import Source

__all__ = ["check_axes"]


def check_axes(source: Source, *, pictures: int = 16) -> AxisEvidence:
    """Evidence of the first pictures of a source with normals. Raises DataError where they are mirrored."""
    known = {intrinsic.name: intrinsic for intrinsic in source.intrinsics}
    if "normals" not in known:
        raise DataError(
            "the source has no normals to look at. Give their archive with --set source.normals_root=FOLDER."
        )
    evidence, seen = AxisEvidence(), 0
    for batch in source:
        for row in range(min(len(batch.keys), pictures - seen)):
            maps = {name: (value[row], valid[row]) for name, (value, valid) in batch.maps.items()}
            evidence.add(maps["normals"], maps.get("depth"), known.get("depth", known["normals"]))
        seen += len(batch.keys)
        if seen >= pictures:
            break
    _require(evidence)
    return evidence


def _require(evidence: AxisEvidence) -> None:
    facing = sum(evidence.facing) / max(len(evidence.facing), 1)
    if facing >= 0:
        raise DataError(
            f"mean n_z is {facing:+.2f}, but what a camera sees has n_z < 0. The files are not in DIODE's own frame (x right, "
            "y up, z to the viewer): were they converted before?"
        )
    for axis, agreement in (("x", evidence.along_x.value), ("y", evidence.along_y.value)):
        if agreement is not None and agreement < 0:
            raise DataError(
                f"the normals' {axis} axis disagrees with the slopes of the depth ({agreement:+.2f}): it is mirrored. The "
                "files are not in DIODE's own frame (x right, y up, z to the viewer)."
            )
