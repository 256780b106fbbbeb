"""Prints what bench/gpu needs beyond torch, as `name==version` lines of this environment, for `pip download`.

python bench/gpu/wheels.py > wheels.txt
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["closure", "main"]

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("ilora", "ilora-sd", "ilora-rooms")


def closure(names: Iterable[str]) -> set[str]:
    """Installed distributions that these names need, themselves included."""
    waiting, found = [canonicalize_name(name) for name in names], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        active = (r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""}))
        waiting += [canonicalize_name(requirement.name) for requirement in active]
    return found


def main() -> None:
    """The requirements of core and plugins and pytest, without torch's own and numpy."""
    texts: list[str] = ["pytest"]
    for project in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        texts += tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = closure(Requirement(text).name for text in texts) - closure(["torch"]) - {"numpy", *_OURS}
    for name in sorted(wanted):
        print(f"{name}=={importlib.metadata.version(name)}")


if __name__ == "__main__":
    main()
