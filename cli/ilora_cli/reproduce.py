"""`ilora reproduce`: the paper's tables and figures, each by one command."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_cli.fit import stop_between_steps

if TYPE_CHECKING:
    from ilora_core.reproduce import Reproduced, Study, World

__all__ = ["reproduce"]


def reproduce(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET…", help="table1 … fig15, or all. None: list them.")
    ] = None,
    world: Annotated[
        str, typer.Option(help="rooms: offline, exact truth. paper: published weights and DIODE.")
    ] = "rooms",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps, labels, seeds and pictures.")] = False,
    data: Annotated[str, typer.Option(metavar="FOLDER", help="World paper: DIODE.")] = "",
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder. Default: runs/reproduce/WORLD, or WORLD-quick.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda. Default: the world's own.")] = "",
    on: Annotated[str, typer.Option(help="sequential or ray")] = "sequential",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, count the cells, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable results.")] = False,
) -> None:
    """Compute tables and figures of the paper anew, with its own numbers and a verdict on its claims beside them.

    Every result is computed once: targets share their cells, and a stopped command goes on where it was. Each target leaves
    report.html, report.md, results.json and pictures in OUT/TARGET.
    """
    from ilora_core.reproduce import STUDIES, load_world, make_study

    out = out or f"runs/reproduce/{world}{'-quick' if quick else ''}"
    made = load_world(world, quick=quick, data=data or ("DIODE" if not targets else ""), device=device)
    if not targets:
        _list([make_study(name, made) for name in STUDIES])
        return
    names = list(dict.fromkeys(name for target in targets for name in (STUDIES if target == "all" else [target])))
    studies = [make_study(name, made) for name in names]
    if dry_run:
        _count(studies)
        return
    if on == "ray":
        from ilora_core.sweep.on_ray import require_ray

        require_ray()
    ended = [_follow(study, made, out, on=on, quiet=json) for study in studies]
    if json:
        print_json([end.results for end in ended])
    if any(end.failed for end in ended):
        raise typer.Exit(1)


def _list(studies: list[Study]) -> None:
    out = console()
    for study in studies:
        out.print(f"{study.name:8s} {study.title}", markup=False)


def _count(studies: list[Study]) -> None:
    from ilora_core.plugins import load_plugins
    from ilora_core.reproduce.run import plan_study

    host, out, every = load_plugins(), console(), set()
    for study in studies:
        hashes = {cell.hash for part in plan_study(study, host) for plan in part for cell in plan.cells}
        out.print(
            f"{study.name:8s} {len(hashes):4d} cells, {len(hashes - every):4d} of them new: {study.title}", markup=False
        )
        every |= hashes


def _follow(study: Study, world: World, out: str, *, on: str, quiet: bool) -> Reproduced:
    from ilora_cli.reproduce_progress import StudyDisplay
    from ilora_core.reproduce import Reproduced
    from ilora_core.reproduce import reproduce as run

    events: Any = run(study, world, out, on=on)
    end: Reproduced | None = None
    with (
        nullcontext([]) if on == "ray" else stop_between_steps() as stopped,
        StudyDisplay(study, quiet=quiet) as display,
    ):
        try:
            for event in events:
                display.show(event)
                end = event if isinstance(event, Reproduced) else None
                if stopped:
                    break
        finally:
            events.close()
    if end is None:
        console(stderr=True).print("Stopped. The same command goes on from here.")
        raise typer.Exit(130)
    if not quiet:
        display.finish(end)
    return end
