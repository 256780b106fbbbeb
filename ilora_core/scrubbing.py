"""What a published file must not say: paths of this machine, who works on it, an access token.

scrubbed({"pairs": "/home/ann/data"})     ->  {"pairs": "data"}
found = local_traces(text)                ->  the first trace that is left, or ""
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ilora_core.model_card_facts import file_name

__all__ = ["local_traces", "scrubbed"]

_WHOLE = re.compile(r"(~[\w.-]*|\.{1,2})?[\\/].*|[A-Za-z]:[\\/].*|file:.*")
_PIECE = r"[^\s\\/:*?\"'<>|,;()\[\]`]+"
_WITHIN = re.compile(
    rf"file:/*{_PIECE}(?:[\\/]{_PIECE})*"
    rf"|(?<![\w/:.~-])(?:~[\w.-]*(?:[\\/]{_PIECE})+|[A-Za-z]:(?:[\\/]+{_PIECE})+|(?:[\\/]{_PIECE}){{2,}})[\\/]?"
)
_HOMES = re.compile(r"(?<![\w.])(?:/(?:home|Users|root)/|[A-Za-z]:\\{1,2}Users\\{1,2})[^\s\"'`)]*")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def scrubbed(value: Any) -> Any:
    """Plain data in which each absolute path, or one that leaves the working folder, is its last part alone."""
    if isinstance(value, Mapping):
        return {_clean(str(key)): scrubbed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(inner) for inner in value]
    return _clean(value) if isinstance(value, str) else value


def local_traces(text: str) -> str:
    """The first path of this machine's home or working folder, or token, in a text; "" if there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if (token and token in text) or _TOKEN.search(text):
        return "an access token"
    for folder in _own_folders():
        if found := re.search(rf"(?<![\w.]){re.escape(folder)}(?![\w.-])", text):
            return found[0]
    found = _HOMES.search(text)
    return found[0] if found else ""


def _clean(text: str) -> str:
    if _WHOLE.fullmatch(text) and "\n" not in text:
        return _last(text)
    for folder in _own_folders():  # first these, whose names may hold spaces
        text = re.sub(rf"(?<![\w/:.]){re.escape(folder)}(?:[\\/]|(?![\w.-]))", "", text)
    return _WITHIN.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    """A path's last part; "folder" where that is somebody's name or nothing."""
    name = file_name(path.removeprefix("file:").strip("\\/"))
    return "folder" if name in {Path.home().name, "~", "", ".", ".."} or name.startswith("~") else name


def _own_folders() -> Iterator[str]:
    """The working folder and the home folder; none that is a root, which every path would hold."""
    for folder in dict.fromkeys((str(Path.cwd()), str(Path.home()))):
        if len(Path(folder).parts) > 1:
            yield folder
