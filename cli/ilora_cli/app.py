"""`ilora app`: a local page to try adapters."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from ilora_cli.console import console, parse_settings
from ilora_core.errors import ConfigError

__all__ = ["app"]


def app(
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", "-a", help="As of `ilora predict`; without it, what lies under this folder."),
    ] = None,
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="Use this card instead of the recorded one.")
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on. The default is for this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any that is free.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16")] = "fp32",
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest picture file that is taken.")] = 50,
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.name=value")] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Try adapters on a page in the browser: drop a picture, compare its maps, read and download their values.

    The page is served by this machine for this machine; nothing is sent anywhere or loaded from elsewhere. Needs Gradio:
    pip install 'ilora[app]'.
    """
    settings = parse_settings(set_ or [])
    if foreign := sorted(set(settings) - {"generator"}):
        raise ConfigError(
            f"--set {foreign[0]}: the app takes settings of the generator only, --set generator.name=value."
        )
    from ilora_cli.web.server import Settings, listen, require_gradio, serve

    require_gradio()
    out = console(stderr=True)
    with listen(host, port) as listening:  # before anything is loaded: a port in use is told at once
        from ilora_cli.web.gate import is_loopback
        from ilora_cli.web.models import Models
        from ilora_cli.web.offers import find_groups
        from ilora_core.config import RuntimeConfig

        given = settings.get("generator")
        groups = find_groups(adapter or [], generator=generator, settings=given)
        runtime = RuntimeConfig(device=device, precision=precision)
        models = Models(runtime, generator=generator, settings=given)
        if not is_loopback(host):
            told = (
                f"warning: --host {host}: whoever reaches this address can use the page, and this machine through it."
            )
            out.print(told, style="yellow", markup=False)
        say = functools.partial(out.print, markup=False)
        serve(listening, Settings(host, max_upload_mb, open_), groups, models, say=say)
