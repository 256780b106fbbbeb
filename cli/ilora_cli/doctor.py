"""`ilora doctor`: look through a folder of pairs before any model loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilora_cli.console import console, parse_settings, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ilora_core.findings import Finding, Report
    from ilora_core.intrinsics import Intrinsic

__all__ = ["doctor"]

_SHOWN = 5  # findings of one kind in the table; --json has them all


def doctor(
    directory: Annotated[Path, typer.Argument(help="Folder with pictures/ and one folder per intrinsic.")],
    intrinsic: Annotated[
        list[str] | None,
        typer.Option("--intrinsic", help="Maps to check: a name or a TOML file. Default: all there are."),
    ] = None,
    val: Annotated[
        Path | None, typer.Option("--val", help="Validation folder; none of its pictures may be in DIRECTORY.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", help="Leave out findings with this code.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="As for `fit`: source.frame=opengl, source.scales.depth=0.001."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Check pairs: missing partners, unreadable files, wrong ranges, flipped axes, inverted depth, leaks.

    Exits with 0 when nothing is wrong (warnings are allowed), with 1 when something is.
    """
    from ilora_core.doctor import inspect_pairs

    codes, settings = _codes(ignore or []), _source_settings(set_ or [])
    wanted = [_intrinsic(directory, name) for name in intrinsic] if intrinsic else None
    with console(stderr=True).status(f"reading {directory} …"):
        report = inspect_pairs(directory, wanted, validation=val, **settings).without(codes)
    if json:
        print_json(report.to_json())
    else:
        _show(report)
    if report.errors:
        raise typer.Exit(1)


def _intrinsic(directory: Path, name: str) -> Intrinsic:
    from ilora_core.folders import infer_intrinsic, load_intrinsic
    from ilora_core.intrinsics import BUILT_IN

    if name.endswith(".toml"):
        return load_intrinsic(Path(name))
    return BUILT_IN[name] if name in BUILT_IN else infer_intrinsic(directory, name)[0]


def _codes(ignore: list[str]) -> set[str]:
    from ilora_core.errors import UnknownName
    from ilora_core.findings import CODES

    if unknown := sorted(set(ignore) - set(CODES)):
        raise UnknownName(f"--ignore: no finding is called {unknown[0]!r}; there are {', '.join(CODES)}.")
    return set(ignore)


def _source_settings(items: list[str]) -> dict:
    from ilora_core.errors import ConfigError
    from ilora_core.intrinsics import FRAMES

    tree = parse_settings(items)
    source = tree.pop("source", {})
    unknown = [*tree, *(f"source.{key}" for key in source if key not in ("frame", "scales"))]
    if unknown:
        raise ConfigError(f"--set {unknown[0]}=… is not for `doctor`; it knows source.frame and source.scales.NAME.")
    if source.get("frame", "opencv") not in FRAMES:
        raise ConfigError(f"--set source.frame is one of {', '.join(FRAMES)}, not {source['frame']!r}.")
    if not all(isinstance(scale, int | float) and scale > 0 for scale in source.get("scales", {}).values()):
        raise ConfigError("--set source.scales.NAME is a number above 0.")
    return source


def _show(report: Report) -> None:
    out = console()
    for title, findings in (("errors", report.errors), ("warnings", report.warnings)):
        if findings:
            out.print(_table(title, findings, report.directory))
    maps = ", ".join(f"{count} {name}" for name, count in report.maps.items()) or "no maps"
    verdict = "nothing is wrong" if not report.errors else f"{len(report.errors)} errors"
    out.print(f"{report.pictures} pictures, {maps}: {verdict}, {len(report.warnings)} warnings.")


def _table(title: str, findings: tuple[Finding, ...], directory: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True, style="red" if title == "errors" else "yellow")
    for _ in range(3):
        table.add_column(overflow="fold")
    of_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        of_kind.setdefault(finding.code, []).append(finding)
    for code, same in of_kind.items():
        for finding in same[:_SHOWN]:
            where = finding.file.removeprefix(directory.rstrip("/") + "/")
            table.add_row(*(Text(cell) for cell in (code, where, finding.message, finding.fix)))
        if len(same) > _SHOWN:
            table.add_row(code, f"… and {len(same) - _SHOWN} more (--json lists all)", "", "")
    return table
