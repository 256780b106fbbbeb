"""`ilora check-plugin`: the conformance checks on an installed plugin, or on a plugin's folder before it is installed."""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from ilora_core.testing import Outcome

__all__ = ["check_plugin"]

_MARKS = {"passed": "[green]passed[/green]", "failed": "[red]failed[/red]", "skipped": "[yellow]skipped[/yellow]"}


def check_plugin(
    dist: Annotated[str, typer.Argument(help="An installed plugin's name, or the folder of one.")],
    match: Annotated[str, typer.Option(help="Only checks whose name contains this text.")] = "",
    real: Annotated[
        bool, typer.Option("--real", help="Also check labelers' axes with their real weights, which may be downloaded.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Check that a plugin holds to the protocols. Exits with 1 when a check fails."""
    with _importable(dist) as plugin:
        outcomes = _run(plugin, match, real)
    counts = {status: sum(o.status == status for o in outcomes) for status in _MARKS}
    if json:
        print_json({"plugin": plugin, **counts, "checks": [_describe(outcome) for outcome in outcomes]})
    else:
        _print(outcomes, counts)
    if not outcomes:
        raise ConfigError(f"no check of {plugin} has {match!r} in its name.")
    if counts["failed"]:
        raise typer.Exit(1)


def _run(plugin: str, match: str, real: bool) -> list[Outcome]:
    from ilora_core.testing import find_cases, run_case

    cases = find_cases(plugin)
    if real:
        from ilora_core.testing.real import real_cases

        cases += real_cases(plugin)
    return [run_case(case) for case in cases if match in case.id]


def _describe(outcome: Outcome) -> dict[str, Any]:
    subject = outcome.case.subject
    return {
        "kind": subject.kind,
        "name": subject.name,
        "check": outcome.case.check.__name__,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": round(outcome.seconds, 3),
    }


def _print(outcomes: list[Outcome], counts: dict[str, int]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("card", "check", "", "reason", box=box.SIMPLE)
    for outcome in outcomes:
        subject = outcome.case.subject
        check = outcome.case.check.__name__.removeprefix("check_").replace("_", " ")
        table.add_row(f"{subject.kind} {subject.name}", check, _MARKS[outcome.status], Text(outcome.reason))
    out = console()
    out.print(table)
    out.print(", ".join(f"{count} {status}" for status, count in counts.items()))


@contextmanager
def _importable(dist: str) -> Iterator[str]:
    """The plugin's name; for a folder, with its package importable here and in child processes."""
    if not (os.sep in dist or Path(dist, "pyproject.toml").is_file()):
        yield dist
        return
    name, target = _entry_point(Path(dist))
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, f"{name.replace('-', '_')}-0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        (info / "entry_points.txt").write_text(f"[ilora]\n{name} = {target}\n")
        source = Path(dist, "src") if Path(dist, "src").is_dir() else Path(dist)
        added = [folder, str(source.resolve())]
        kept = sys.path[:], os.environ.get("PYTHONPATH")
        sys.path[:0] = added
        os.environ["PYTHONPATH"] = os.pathsep.join([*added, *filter(None, [kept[1]])])
        try:
            yield name
        finally:
            sys.path[:] = kept[0]
            os.environ.pop("PYTHONPATH")
            os.environ.update({"PYTHONPATH": kept[1]} if kept[1] is not None else {})


def _entry_point(folder: Path) -> tuple[str, str]:
    try:
        data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        [(name, target)] = data["project"]["entry-points"]["ilora"].items()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{folder} is no plugin: its pyproject.toml needs one entry in [project.entry-points.ilora] ({error}). "
            "`ilora new-plugin` makes one that works."
        ) from error
    return name, target
