"""What `ilora doctor` finds, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CODES", "Finding", "Report", "Severity"]

Severity = Literal["error", "warning"]

CODES: Mapping[str, str] = {
    "layout": "the folder is not laid out as pairs",
    "missing-map": "a picture without its map",
    "missing-picture": "a map without its picture",
    "duplicate-stem": "two files with one stem in a folder",
    "unreadable": "a file that is damaged, truncated or of another kind",
    "size-mismatch": "a map whose shape is not its picture's",
    "resized": "maps of the right shape in another resolution",
    "constant-picture": "a picture of one colour",
    "constant-map": "a map with one value everywhere",
    "no-valid-pixel": "a map that is NaN, infinite or masked everywhere",
    "invalid-pixels": "maps with NaN or infinite pixels, which are left out",
    "not-unit-length": "normals that are not unit vectors",
    "negative-depth": "depth below zero",
    "unlikely-unit": "depth that can hardly be metres",
    "out-of-range": "values outside the intrinsic's range",
    "flipped-normals-x": "normals whose x axis is mirrored",
    "flipped-normals-y": "normals whose y axis is mirrored",
    "flipped-normals-z": "normals that point away from the camera",
    "flipped-normals": "normals that point into the surface",
    "inverted-depth": "depth that is near where it should be far",
    "colour-space": "albedo that is linear where it should be sRGB-encoded, or the other way round",
    "duplicate-picture": "the same picture twice",
    "duplicate-map": "the same map for different pictures",
    "leak": "a validation picture that is also trained on",
    "same-key": "a name in both training and validation",
    "assumed-intrinsic": "an undeclared intrinsic, and what was assumed of it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    severity  "error": training on this goes wrong; "warning": look at it
    code      one of CODES
    file      the file or folder it is about
    message   what was seen
    fix       what to do
    """

    severity: Severity
    code: str
    file: str
    message: str
    fix: str


@dataclass(frozen=True)
class Report:
    """All that was looked at and found. maps: intrinsic's name -> files read."""

    directory: str
    pictures: int
    maps: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "warning")

    def without(self, codes: frozenset[str] | set[str]) -> Report:
        """The same report, findings with these codes left out."""
        kept = tuple(f for f in self.findings if f.code not in codes)
        return Report(self.directory, self.pictures, self.maps, kept)

    def to_json(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "pictures": self.pictures,
            "maps": dict(self.maps),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [asdict(f) for f in self.findings],
        }
