"""`--vary KEY=VALUE,VALUE,…`: one axis of a sweep as text.

    rank=1,2,4,8                                    an option or a setting of a fit, with its values
    adapter.targets=self:=.*attn1.*,cross:=.*attn2.*     LABEL:=VALUE: how a value is called in tables and plots
    adapter.targets=few:=['to_q','to_v'],all:=['to_q','to_k','to_v']     commas inside brackets or quotes do not separate
    way=lora:={adapter='lora', lr=5e-3},full:={adapter='full', lr=5e-4}      a name of one's own: several settings at once

A value is read as TOML, as after --set: numbers, true, 'text', [lists], {tables}; anything else is the text itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ilora_cli.fit_options import SHORT
from ilora_core.errors import ConfigError
from ilora_core.values import read_value

if TYPE_CHECKING:
    from ilora_core.sweep import Axis

__all__ = ["flatten", "parse_axis", "split_values"]

_LABELLED = re.compile(r"\s*([\w.+ -]+?)\s*:=(.*)", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def parse_axis(text: str) -> Axis:
    """The axis. Raises ConfigError that quotes what could not be read."""
    from ilora_core.sweep import Axis, Choice
    from ilora_core.sweep.grid import check_key, is_key

    name, equals, values = text.partition("=")
    name = _full(name.strip())
    if not equals or not name:
        raise ConfigError(f"--vary {text!r} is not of the form KEY=VALUE,VALUE, as in --vary rank=1,2,4.")
    choices = []
    for part in split_values(values):
        label, value = _read(part, name)
        if is_key(name):
            choices.append(Choice(label or part.strip(), {name: value}))
        elif isinstance(value, dict) and label:
            choices.append(Choice(label, {_full(key): v for key, v in flatten(value).items()}))
        elif isinstance(value, dict):
            raise ConfigError(f"--vary {name}: say how {part.strip()} is called, as LABEL:={part.strip()}.")
        else:
            check_key(name)
    return Axis(name, tuple(choices))


def split_values(text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket and no quote; a backslash hides the sign after it."""
    open_: list[str] = []
    quote, start, hidden = "", 0, False
    for place, sign in enumerate(text):
        if hidden:
            hidden = False
        elif sign == "\\" and quote != "'":
            hidden = True
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in _BRACKETS:
            open_.append(_BRACKETS[sign])
        elif open_ and sign == open_[-1]:
            open_.pop()
        elif sign == "," and not open_:
            yield _part(text[start:place], text)
            start = place + 1
    if quote or open_:
        raise ConfigError(f"--vary …={text}: {quote or open_[-1]} is missing; put a value with such a sign in quotes.")
    yield _part(text[start:], text)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"lr": 1}}` -> `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _read(part: str, key: str) -> tuple[str, Any]:
    """Label ("" for none) and value."""
    from ilora_core.options import OPTIONS

    found = _LABELLED.fullmatch(part)
    label, text = (found[1], found[2].strip()) if found else ("", part.strip())
    words = OPTIONS.get(key) is str or key == "method" or key.startswith("intrinsic.")
    if words and text[:1] not in ("'", '"'):
        return label, text  # `preset=none` is that very word
    value = read_value(text)
    if isinstance(value, str) and text[:1] in ("'", '"', "[", "{") and value == text:
        raise ConfigError(
            f"--vary {key}: cannot read {text}. Texts inside lists and tables stand in quotes: ['to_q','to_k']; "
            "a regular expression that begins with a bracket or a quote does too."
        )
    return label, value


def _full(name: str) -> str:
    return SHORT.get(name, name.replace("-", "_"))


def _part(text: str, whole: str) -> str:
    if not text.strip():
        raise ConfigError(f"--vary …={whole}: a value is empty.")
    return text
