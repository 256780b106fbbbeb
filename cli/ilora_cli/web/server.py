"""The app on one port: Gradio's page, the results beside it, the gate around both."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import shutil
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilora_cli.web.gate import Gate, is_loopback
from ilora_core.errors import ConfigError, MissingDependency, first_line

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ilora_cli.web.files import Results
    from ilora_cli.web.models import Models
    from ilora_cli.web.offers import Group

__all__ = ["Settings", "listen", "require_gradio", "serve", "working_folder"]

_CLOSING_S = 1  # for answers that are under way when the server ends; the page's event stream never ends by itself
_SCENE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class Settings:
    """Where the app is met, and how much it takes."""

    host: str
    max_upload_mb: int
    open_browser: bool


def require_gradio() -> None:
    """Raises MissingDependency with the line that installs it; loads nothing."""
    if importlib.util.find_spec("gradio") is None:
        raise MissingDependency("`ilora app` needs Gradio, which is not installed here: pip install 'ilora[app]'")


@contextmanager
def working_folder() -> Iterator[Path]:
    """This session's own folder: uploads, examples and results. Removed at the end.

    Gradio, which is loaded after this, writes nowhere else and calls nobody.
    """
    folder = Path(tempfile.mkdtemp(prefix="ilora-app-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ConfigError where that is refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {first_line(error)}.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use on {host}. Choose another --port, or --port 0 for any that is free."
            ) from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}.") from error
    return listening


def serve(
    listening: socket.socket, settings: Settings, groups: Sequence[Group], models: Models, *, say: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C. say: told the address."""
    with working_folder() as folder:
        import uvicorn

        app = _application(settings, groups, models, folder)
        if not os.environ.get("ILORA_DEBUG"):  # a stream that is cut at the end is no news; errors are told on the page
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_S,
        )
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        say(f"ilora app: {address}  (Ctrl-C ends it)")
        if settings.open_browser:
            webbrowser.open(address)
        _until_stopped(uvicorn.Server(config), listening)


def _until_stopped(server: Any, listening: socket.socket) -> None:
    """uvicorn passes the signal that stopped it on to whoever had it before: here it is the ordinary end."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _application(settings: Settings, groups: Sequence[Group], models: Models, folder: Path) -> Gate:
    from contextlib import asynccontextmanager

    import gradio
    from fastapi import FastAPI

    from ilora_cli.web.files import Results
    from ilora_cli.web.page import CSS, THEME, make_page

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        models.stop()

    results = Results(folder / "results")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    _add_results(app, results)
    page = make_page(groups, models, results, folder=folder, max_bytes=settings.max_upload_mb * 10**6)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        max_file_size=settings.max_upload_mb * 10**6,
        show_error=True,
        theme=THEME,
        css=CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
    )
    return Gate(app, folder=folder, loopback_only=is_loopback(settings.host))


def _add_results(app: FastAPI, results: Results) -> None:
    """Routes to a result's maps; whatever is not in one is not found."""
    from fastapi import HTTPException
    from fastapi.responses import FileResponse, Response

    from ilora_cli.web.values import tile

    def known(token: str) -> Any:
        if (result := results.get(token)) is None:
            raise HTTPException(404, "This result is no longer kept: draw it again.")
        return result

    def found(value: Any) -> Any:
        if value is None:
            raise HTTPException(404)
        return value

    @app.get("/results/{token}/scene.html")
    def scene(token: str) -> Response:
        path = found(results.scene(known(token)))
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": _SCENE_POLICY})

    @app.get("/results/{token}/{name}/tile")
    def values(token: str, name: str, column: int, row: int) -> Response:
        return Response(found(tile(known(token), name, column, row)), media_type="application/octet-stream")

    @app.get("/results/{token}/{name}/preview")
    def preview(token: str, name: str) -> Response:
        result = known(token)
        return FileResponse(found(result.preview(name) if name in result.intrinsics else None), media_type="image/png")

    @app.get("/results/{token}/{file_name}")
    def download(token: str, file_name: str) -> Response:
        result, (name, suffix) = known(token), os.path.splitext(file_name)
        path = found(results.file(result, name, suffix))
        return FileResponse(path, media_type="application/octet-stream", filename=f"{result.key}-{name}{suffix}")
