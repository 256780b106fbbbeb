"""`ilora new-plugin`: a plugin that works and passes every check, to be changed into your own."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from ilora_core.errors import ConfigError

__all__ = ["KINDS", "new_plugin"]

KINDS = {"generator": "", "labeler": '"normals",', "adapter": "", "source": '"albedo",', "metric": ""}
"""Kind -> the intrinsics on the card that its template gives."""

_TEMPLATES = Path(__file__).parent / "templates"


def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the distribution, e.g. ilora-mymodel.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help=f"One of {', '.join(KINDS)}.")] = "generator",
    folder: Annotated[Path, typer.Option("--dir", help="Where the new folder goes.")] = Path("."),
) -> None:
    """Write a new plugin package: card, code, README, licence and tests."""
    if kind not in KINDS:
        raise ConfigError(f"--kind is one of {', '.join(KINDS)}, not {kind!r}.")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"{name!r}: use lower-case letters, digits and single dashes, as in ilora-mymodel.")
    target = folder / name
    if target.exists():
        raise ConfigError(f"{target} exists already; choose another name or --dir.")
    for path, text in _files(name, kind).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text, encoding="utf-8")
    typer.echo(f"{target} is ready. Next: ilora check-plugin {target}/ , edit {target}/src, pip install -e {target}")


def _files(name: str, kind: str) -> dict[str, str]:
    module, card = name.replace("-", "_"), name.removeprefix("ilora-")
    words = f"my-{card}" if card[0].isdigit() else card
    values = {
        "dist": name,
        "module": module,
        "card": card,
        "kind": kind,
        "a_kind": f"an {kind}" if kind[0] in "aeiou" else f"a {kind}",
        "class_name": "".join(word.capitalize() for word in words.split("-")),
        "intrinsics": KINDS[kind],
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        f"src/{module}/__init__.py": "__init__.py",
        f"src/{module}/model.py": f"{kind}.py",
        "tests/test_conforms.py": "test_conforms.py",
    }
    read = {path: (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8") for path, template in templates.items()}
    return {path: text if path == "LICENSE" else Template(text).substitute(values) for path, text in read.items()}
