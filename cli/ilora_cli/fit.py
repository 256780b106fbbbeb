"""`ilora fit`: teach a generator to draw maps, with progress, previews and a report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli import fit_options
from ilora_cli.console import console, parse_settings, print_json
from ilora_cli.fit_options import with_short

if TYPE_CHECKING:
    from ilora_core.config import FitConfig
    from ilora_core.plugins import PluginHost

__all__ = ["fit", "follow", "stop_between_steps"]


def fit(
    generator: fit_options.Generator = "",
    intrinsic: fit_options.Intrinsic = "",
    pairs: fit_options.Pairs = "",
    pictures: fit_options.Pictures = "",
    source: fit_options.Source = "",
    samples: fit_options.Samples = 0,
    labeler: fit_options.Labeler = "",
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write. Default: runs/GENERATOR-INTRINSICS")] = "",
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
    channels: Annotated[int, typer.Option(min=0, max=3, help="Your own intrinsic: channels of its map.")] = 0,
    range_: Annotated[str, typer.Option("--range", help="Your own intrinsic: low,high")] = "",
    space: Annotated[str, typer.Option(help="Your own intrinsic: linear or srgb")] = "",
    adapter: fit_options.Adapter = "lora",
    from_: Annotated[str, typer.Option("--from", help="Repeat the fit that this run.json records.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable result on the standard output.")] = False,
) -> None:
    """Fit a small adapter that makes a frozen generator draw a map.

    Pictures come from --pairs, --pictures with --labeler, --source, or the generator's own --samples with --labeler.
    """
    from ilora_core.plugins import load_plugins

    host = load_plugins()
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
    if from_ or (resume and out and not generator):
        config = _recorded(Path(from_ or Path(out) / "run.json"), given)
    else:
        from ilora_core.options import resolve_fit

        options = {"generator": generator, "intrinsic": intrinsic, "preset": preset, "adapter": adapter}
        options |= {"pairs": pairs, "pictures": pictures, "source": source, "samples": samples, "labeler": labeler}
        options |= {"limit": limit, "validation": validation}
        declared = {"channels": channels, "range": range_, "space": space}
        config, notes = resolve_fit(host, options, given, declared=declared)
        for note in notes:
            _say(note, json)
    folder = Path(
        out or Path("runs") / "-".join([config.generator.replace("/", "-"), *(i.name for i in config.intrinsics)])
    )
    results = follow(config, folder, resume=resume, host=host, quiet=json)
    if json and results:
        print_json(results)


def follow(config: FitConfig, folder: Path, *, resume: bool, host: PluginHost, quiet: bool = False) -> dict[str, Any]:
    """Run a fit with a progress bar on the error stream, previews and a report in `folder`; the results as plain data.

    Of several processes the first one shows and writes; the others return nothing.

    Ctrl-C stops between two steps, with a resume point saved; the exit code is then 130.
    """
    from ilora_cli.fit_progress import FitDisplay
    from ilora_core.fit import fit as run_fit

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun or accelerate started
    display = FitDisplay(config, folder, quiet=quiet or not first, writes=first)
    if first:
        _say(_licences(config, host), quiet)
    events: Any = run_fit(config, folder, resume=resume, host=host)
    with stop_between_steps() as stopped, display:
        try:
            for event in events:
                display.show(event)
                if stopped:
                    break
        finally:
            events.close()
    if stopped:
        console(stderr=True).print(f"Stopped. Go on with: ilora fit --resume --out {folder}")
        raise typer.Exit(130)
    return display.finish()


@contextmanager
def stop_between_steps() -> Iterator[list[int]]:
    """Collect the first Ctrl-C (or SIGTERM) instead of breaking into a step; a second one breaks."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, previous[number])

    try:
        previous: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _licences(config: FitConfig, host: PluginHost) -> str:
    """What the adapter will inherit conditions from, in one line."""
    from ilora_core.labelling import labeler_names

    labelers = [("labelers", name) for name in labeler_names(config.labeler)]
    named = (("generators", config.generator), *labelers, ("sources", config.source))
    parts = [f"{kind[:-1]} {name}: {host.card(kind, name).licence}" for kind, name in named if name]
    return f"licences: {', '.join(parts)}"


def _recorded(path: Path, given: dict[str, Any]) -> FitConfig:
    """The configuration in a run.json, of a run or of an artefact, with what was given on top."""
    from dataclasses import replace

    from ilora_core.config import FitConfig
    from ilora_core.errors import DataError
    from ilora_core.files import read_json

    record = read_json(path)
    if not isinstance(record, dict) or "config" not in record:
        raise DataError(f"{path} records no fit (there is no 'config' in it).")
    config = FitConfig.from_json(record["config"])
    merged = {group: dict(values) for group, values in config.settings.items()}
    for group, values in given.items():
        merged.setdefault(group, {}).update(values)
    return replace(config, settings=merged)


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        console(stderr=True).print(text, markup=False)  # a licence may have [brackets] in its name
