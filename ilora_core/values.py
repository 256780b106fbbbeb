"""Values as a user types them: TOML (numbers, true, [lists], {tables}, "text"), `none` for None, else the text itself."""

import re
import tomllib
from typing import Any

__all__ = ["read_value"]

_NUMBER = re.compile(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?")  # what Python reads as a number and TOML does not
_NULLS = ("none", "null", "None")


def read_value(text: str) -> Any:
    """A number, a truth value, a list, a table or a text."""
    if text in _NULLS:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed.get("value")
    # A comment, a second line or a date would be read as something that the user did not write.
    plain = len(parsed) == 1 and isinstance(value, (bool, int, float, str, list, dict))
    return value if plain and ("#" not in text or text[0] in "\"'[") else text
