"""Writes docs/commands.md from the commands' own `--help`: the same text whatever the terminal.

python docs/make_commands.py           # write it
python docs/make_commands.py --check   # exit with 1 when it is stale
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "main", "render"]

PAGE = Path(__file__).with_name("commands.md")
_WIDTH = 100
_HEAD = """# Commands

Written by `python docs/make_commands.py` from the commands' own help; do not edit it by hand.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Progress and messages go to the error stream, results and
`--json` to the standard output. `ILORA_DEBUG=1` shows tracebacks. Settings of `--set` are listed in
[own-pairs.md](own-pairs.md#settings).

"""


def render() -> str:
    """The page as Markdown."""
    os.environ["TYPER_USE_RICH"] = "0"  # read where typer is imported: no boxes, no colours
    import click
    import typer.main

    from ilora_cli.main import app

    root: Any = typer.main.get_command(app)
    context = click.Context(root, info_name="ilora", terminal_width=_WIDTH, color=False, **root.context_settings)
    parts = [_HEAD, _block(_help(root, context))]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        below = click.Context(command, info_name=name, parent=context, terminal_width=_WIDTH, color=False)
        parts += [f"\n## ilora {name}\n\n", _block(_help(command, below))]
    # Another version of typer words the same help in another way.
    return "".join([*parts, f"\n<!-- typer {typer.__version__} -->\n"])


def _help(command: Any, context: Any) -> str:
    lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def _block(text: str) -> str:
    return f"```text\n{text}\n```\n"


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is stale")
    options = parser.parse_args()
    text = render()
    if options.check:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print("docs/commands.md is up to date" if fresh else "docs/commands.md is stale: python docs/make_commands.py")
        return 0 if fresh else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.name}, {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
