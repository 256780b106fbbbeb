"""Errors of the Hugging Face Hub as one clear message each, without the access token.

The hub's library raises classes of its own, of the HTTP client it is built on (another one in each of its major versions) and of
the operating system. They are told apart by status and name. The original error is dropped and not chained: a server may have
echoed a request, token included, and `ILORA_DEBUG=1` prints whole chains.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ilora_core.errors import HubError, IloraError, first_line

__all__ = ["hub_errors", "is_offline", "without_token"]

_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_FOREIGN = (*_CLIENTS, "huggingface_hub", "hf_xet")
_NO_WAY = ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "IncompleteSnapshotError")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{6,}|(?<=Bearer )\S+")
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def hub_errors(doing: str, repository: str) -> Iterator[None]:
    """Within it, what goes wrong with the hub is a HubError. doing: "push to" or "fetch"."""
    try:
        yield
        return
    except IloraError:
        raise
    except Exception as error:
        unreachable = _unreachable(error)
        reason = _status(error, doing, repository) or _local(error) or (_no_way(error) if unreachable else "")
        if not (reason or _foreign(error)):
            raise
        reason = reason or f"{type(error).__name__}: {first_line(error)}."
        failure = HubError(without_token(f"cannot {doing} {repository}: {reason}"), unreachable=unreachable)
    raise failure from None  # not chained, see above


def without_token(text: str) -> str:
    """The text with the token of this session, and whatever looks like one, left out."""
    from huggingface_hub import get_token

    token = get_token()
    return _TOKEN.sub("(token)", text.replace(token, "(token)") if token else text)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids connections."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _status(error: Exception, doing: str, repository: str) -> str:
    """What an answer of the hub means; "" where there was none."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return ""
    said = first_line(Exception(getattr(error, "server_message", None) or ""))
    said = f" It says: {said}." if said != "Exception" else ""
    name, writes = type(error).__name__, doing.startswith("push")
    if name == "GatedRepoError":
        return f"it is gated. Ask for access on its page, then log in.{said}"
    if name == "RevisionNotFoundError":
        return "it has no such revision. Check the name after the @, or --revision."
    if status == 401 and writes:
        return f"the hub does not know you (401). {_LOGIN}, with a token that may write.{said}"
    if status == 403:
        return f"you may not (403). The token needs the right to {'write to' if writes else 'read'} {repository}.{said}"
    if status in (401, 404):
        return f"there is no such repository, or it is private ({status}). Check the name. {_LOGIN} if it is private.{said}"
    if status == 429:
        return f"the hub asks for a pause (429). Try again in some minutes.{said}"
    if status >= 500:
        return f"the hub has trouble ({status}). Try again later.{said}"
    return f"the hub refuses ({status}).{said}"


def _local(error: Exception) -> str:
    """What the operating system refuses here."""
    if not isinstance(error, OSError) or _unreachable(error):
        return ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space, or choose another place with HF_HOME."
    path = f" {error.filename}" if error.filename else ""
    return f"{error.strerror or first_line(error)}{path}."


def _no_way(error: Exception) -> str:
    if is_offline() or type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set, so no connection may be opened. Unset it."
    return f"no connection to the hub ({type(error).__name__}). Check the network and HF_ENDPOINT."


def _unreachable(error: Exception) -> bool:
    if getattr(error, "response", None) is not None:
        return False
    names = {base.__name__ for base in type(error).__mro__}
    client = type(error).__module__.partition(".")[0] in _CLIENTS
    return client or bool(names & set(_NO_WAY)) or isinstance(error, ConnectionError | TimeoutError)


def _foreign(error: Exception) -> bool:
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(modules & set(_FOREIGN)) or isinstance(error, RuntimeError | ValueError)
