"""What all commands share: the console, JSON output, and `--set section.key=value`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ilora_core.errors import ConfigError
from ilora_core.values import read_value

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "nest_settings", "parse_settings", "print_json", "quiet_bars"]

_WIDE = 160  # columns where the output is no terminal: a pipe has no width to wrap at


def console(*, stderr: bool = False) -> Console:
    """A rich console on the standard output (or error) stream. rich is imported here, on the first use."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)


def print_json(data: Any) -> None:
    """JSON on the standard output, for scripts. Paths and other plain objects become strings."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write("\n")


def quiet_bars(wanted: bool) -> None:
    """Leave the hub library's progress bars out: if that is wanted, and where nobody watches."""
    if wanted or not console(stderr=True).is_terminal:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """`["train.lr=1e-4", "generator.weights=x"]` -> `{"train": {"lr": 0.0001}, "generator": {"weights": "x"}}`.

    A value is read as TOML (numbers, true, [lists], "text"); `none` is None; anything else is the text itself. Of two
    values for one key the later one counts.
    """
    flat: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not all(part.replace("-", "_").isidentifier() for part in key.strip().split(".")):
            raise ConfigError(f"--set {item!r} is not of the form section.key=value, as in --set train.lr=1e-4.")
        flat[key.strip().replace("-", "_")] = read_value(text.strip())
    return nest_settings(flat)


def nest_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.lr": 1e-4}` -> `{"train": {"lr": 1e-4}}`, the form of a preset's settings turned into a tree."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{key!r}: {section!r} is set as a value already and cannot be a section too.")
        if isinstance(node.get(last), dict):
            raise ConfigError(f"{key!r} is a section already and cannot be set as a value too.")
        node[last] = value
    return tree
