"""Who may ask for what: the outermost layer of the server.

On a loopback address only this machine's browser is meant to reach the page. Two ways around that are shut here: a foreign
name that resolves to 127.0.0.1 (DNS rebinding; its name stands in the Host header), and a foreign page that posts to us (its
name stands in the Origin header). Of Gradio's routes those that the page needs are open and the others do not exist: it also
has some that fetch from elsewhere or edit code. The browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["POLICY", "Gate", "is_loopback"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(assets|static|svelte|results)/.+"
    r"|/gradio_api/(upload|upload_progress|run/predict|queue/join|queue/data|cancel|reset|startup-events|app_id|heartbeat/\w+)/?"
)
_FILE = "/gradio_api/file="

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy of every answer that brings none of its own."""


def is_loopback(host: str) -> bool:
    """Whether a name or address, with or without brackets, is this machine's own."""
    host = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """An ASGI application around another one.

    folder         the only one whose files are served
    loopback_only  refuse other Hosts than this machine's, and foreign Origins
    """

    def __init__(self, app: App, *, folder: Path, loopback_only: bool):
        self._app, self._folder, self._loopback_only = app, folder.resolve(), loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, _with_policy(send))
            else:
                await _answer(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._loopback_only:
            if not is_loopback(_name(f"//{headers.get('host', '')}")):
                return 403, "This page is for this machine only: open it as http://127.0.0.1 or http://localhost."
            if "origin" in headers and not is_loopback(_name(headers["origin"])):
                return 403, "Another page may not use this one."
        path = scope["path"]
        if path.startswith(_FILE):
            return None if self._inside(path.removeprefix(_FILE)) else (403, "No such file here.")
        return None if _OPEN.fullmatch(path) else (404, "There is nothing here.")

    def _inside(self, path: str) -> bool:
        return "\0" not in path and os.path.isabs(path) and Path(path).resolve().is_relative_to(self._folder)


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _with_policy(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            names = {name.lower() for name, _ in given}
            ours = {
                b"content-security-policy": POLICY,
                b"x-content-type-options": "nosniff",
                b"referrer-policy": "same-origin",
            }
            message = {**message, "headers": given + [(n, v.encode()) for n, v in ours.items() if n not in names]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
