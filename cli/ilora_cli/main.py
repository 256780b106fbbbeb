"""The `ilora` command: one sub-command per module of this package, errors as one clear message, tidy exit codes.

    0 done   1 failed   2 usage   130 interrupted
    ILORA_DEBUG=1 shows tracebacks.

Nothing here imports torch: each command imports what it needs inside its body.
"""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from ilora_cli.explain import explain
from ilora_core import __version__

__all__ = ["app", "main", "run"]

COMMANDS = (
    "quickstart",
    "fit",
    "sweep",
    "reproduce",
    "predict",
    "app",
    "view",
    "evaluate",
    "label",
    "doctor",
    "plan",
    "convert",
    "import_",
    "export",
    "push",
    "pull",
    "list_plugins",
    "show",
    "new_plugin",
    "check_plugin",
)

app = typer.Typer(
    name="ilora",
    help="Teach a frozen image generator to draw normals, depth, albedo, shading or your own map.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ilora {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _register() -> None:
    """Each module of this package that is a command holds a function of its own name ("import_": Python has taken the other)."""
    for name in COMMANDS:
        module = importlib.import_module(f"ilora_cli.{name}")
        app.command(name.rstrip("_").replace("_", "-"))(getattr(module, name))


_register()


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; expected errors become one message on the error stream."""
    try:
        app(list(arguments), prog_name="ilora")
        return 0
    except SystemExit as stop:  # how typer ends, after its own messages
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("ILORA_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        message, code = explain(error, next((a for a in arguments if not a.startswith("-")), ""))
        print(f"error: {message}", file=sys.stderr)
        return code


class _Plain(logging.Formatter):
    """The message alone, with its level in front from warnings upwards."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


def run() -> None:
    """The console script."""
    handler, log = logging.StreamHandler(), logging.getLogger("ilora")
    handler.setFormatter(_Plain())
    log.addHandler(handler)
    log.setLevel(logging.INFO)  # which mirror served the weights is such a line
    log.propagate = False
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone (`ilora … | head`): say nothing more, at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)


if __name__ == "__main__":
    run()
