"""`ilora sweep`: a grid over any setting of a fit, with one table, a plot per axis and one report."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli import fit_options
from ilora_cli.console import console, parse_settings, print_json
from ilora_cli.fit import stop_between_steps
from ilora_cli.fit_options import with_short
from ilora_cli.vary import flatten, parse_axis

if TYPE_CHECKING:
    from ilora_core.sweep import Plan

__all__ = ["sweep"]

_UNSAID = {"adapter": "lora", "validation": 0.1}


def sweep(
    vary: Annotated[list[str] | None, typer.Option("--vary", help="An axis: KEY=VALUE,VALUE,… Again for more.")] = None,
    test: Annotated[
        str,
        typer.Option(help="Score on: SOURCE:split:N, ./PAIRS:N or samples:N. Default: the fit's validation pictures."),
    ] = "",
    protocol: Annotated[str, typer.Option(help="Of the evaluation. Default: the intrinsic's first.")] = "",
    draw: Annotated[
        list[str] | None,
        typer.Option("--draw", help="KEY=VALUE of the generator, for drawing alone: the fit stays the same."),
    ] = None,
    on: Annotated[str, typer.Option(help="sequential or ray")] = "sequential",
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of cells, tables, plots and report.")] = "runs/sweep",
    generator: fit_options.Generator = "",
    intrinsic: fit_options.Intrinsic = "",
    pairs: fit_options.Pairs = "",
    pictures: fit_options.Pictures = "",
    source: fit_options.Source = "",
    samples: fit_options.Samples = 0,
    labeler: fit_options.Labeler = "",
    limit: fit_options.Limit = 0,
    validation: fit_options.Validation = 0.1,
    steps: fit_options.Steps = None,
    batch: fit_options.BatchSize = None,
    lr: fit_options.Rate = None,
    rank: fit_options.Rank = None,
    seed: fit_options.Seed = None,
    device: fit_options.Device = None,
    precision: fit_options.Precision = None,
    preset: fit_options.Preset = "",
    set_: fit_options.Set = None,
    adapter: fit_options.Adapter = "lora",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the cells, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable results, as in sweep.json.")] = False,
) -> None:
    """Fit and score every combination of the varied settings; what is finished in --out is not computed again.

    Any setting can be varied, and --vary method=adapter,mean-map adds a baseline; a varied seed is averaged over. The same
    command goes on where a stopped sweep was, and tries what failed again.
    """
    from ilora_core.plugins import load_plugins
    from ilora_core.sweep import Sweep, plan_sweep

    axes = tuple(parse_axis(text) for text in vary or [])
    if on == "ray":
        from ilora_core.sweep.on_ray import require_ray

        require_ray()
    given = with_short(
        parse_settings(set_ or []),
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        rank=rank,
        device=device,
        precision=precision,
    )
    options = {"generator": generator, "intrinsic": intrinsic, "pairs": pairs, "pictures": pictures, "source": source}
    options |= {"samples": samples, "labeler": labeler, "limit": limit, "preset": preset}
    options |= {"adapter": adapter, "validation": validation}
    said = {name: value for name, value in options.items() if value and value != _UNSAID.get(name)}
    said |= {"validation": 0} if validation == 0 else {}
    host = load_plugins()
    drawn = flatten(parse_settings(draw or []))
    plan = plan_sweep(Sweep({**said, **flatten(given)}, axes, test, protocol, drawn), host)
    if dry_run:
        _list(plan)
    else:
        _follow(plan, out, on=on, quiet=json)


def _follow(plan: Plan, out: str, *, on: str, quiet: bool) -> None:
    from ilora_cli.sweep_progress import SweepDisplay
    from ilora_core.sweep import Swept, run_sweep

    events: Any = run_sweep(plan, out, on=on)
    end: Swept | None = None
    with (
        nullcontext([]) if on == "ray" else stop_between_steps() as stopped,
        SweepDisplay(plan, quiet=quiet) as display,
    ):
        try:
            for event in events:
                display.show(event)
                end = event if isinstance(event, Swept) else None
                if stopped:
                    break
        finally:
            events.close()
    if end is None:
        console(stderr=True).print("Stopped. The same command goes on from here.")
        raise typer.Exit(130)
    if quiet:
        print_json(end.results)
    else:
        display.finish(end)
    if end.failed:
        raise typer.Exit(1)


def _list(plan: Plan) -> None:
    from ilora_cli.sweep_progress import grid_size

    out = console()
    out.print(grid_size(plan), markup=False)
    for cell in plan.cells:
        points = plan.points_of(cell)
        more = f" (and {len(points) - 1} more)" if len(points) > 1 else ""
        out.print(f"{cell.hash[:12]}  {cell.method}  {points[0]}{more}", markup=False)
