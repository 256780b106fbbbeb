"""`ilora fit`: teach a generator to draw maps, with progress, previews and a report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from ilora_core.config import FitConfig
    from ilora_core.intrinsics import Intrinsic
    from ilora_core.plugins import PluginHost

__all__ = ["fit", "follow", "stop_between_steps"]


def fit(
    generator: Annotated[str, typer.Option("--generator", "-g", help="Who draws: see `ilora list-plugins`.")] = "",
    intrinsic: Annotated[str, typer.Option("--intrinsic", "-i", help="What to learn, with commas; or a .toml.")] = "",
    pairs: Annotated[str, typer.Option(help="Folder with pictures/ and one folder of maps per intrinsic.")] = "",
    pictures: Annotated[str, typer.Option(help="Folder of pictures for --labeler.")] = "",
    source: Annotated[str, typer.Option(help="A source plugin, e.g. rooms.")] = "",
    samples: Annotated[int, typer.Option(min=0, help="Learn from this many of the generator's own samples.")] = 0,
    labeler: Annotated[str, typer.Option(help="Who draws the maps to learn from; several, mixed: first+second.")] = "",
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write. Default: runs/GENERATOR-INTRINSICS")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Use the first N pictures only.")] = 0,
    validation: Annotated[float, typer.Option(min=0, help="Held out: a share (<1, at most 64) or a number.")] = 0.1,
    steps: Annotated[int | None, typer.Option(min=1, help="train.steps")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="train.batch, per process")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="train.lr")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="adapter.rank")] = None,
    seed: Annotated[int | None, typer.Option(help="train.seed")] = None,
    device: Annotated[str | None, typer.Option(help="runtime.device: auto, cpu, cuda, cuda:1, mps")] = None,
    precision: Annotated[str | None, typer.Option(help="runtime.precision: fp32, bf16, fp16")] = None,
    preset: Annotated[str, typer.Option(help="A preset of the registry, or none. Default: the generator's first")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: group.name=value")] = None,
    channels: Annotated[int, typer.Option(min=0, max=3, help="Your own intrinsic: channels of its map.")] = 0,
    range_: Annotated[str, typer.Option("--range", help="Your own intrinsic: low,high")] = "",
    space: Annotated[str, typer.Option(help="Your own intrinsic: linear or srgb")] = "",
    adapter: Annotated[str, typer.Option(help="The kind of adapter.")] = "lora",
    from_: Annotated[str, typer.Option("--from", help="Repeat the fit that this run.json records.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable result on the standard output.")] = False,
) -> None:
    """Fit a small adapter that makes a frozen generator draw a map.

    Pictures come from --pairs, --pictures with --labeler, --source, or the generator's own --samples with --labeler.
    """
    from ilora_core.plugins import load_plugins

    host = load_plugins()
    given = parse_settings(set_ or [])
    for group, name, value in (
        *(("train", key, value) for key, value in (("steps", steps), ("batch", batch), ("lr", lr), ("seed", seed))),
        ("adapter", "rank", rank),
        ("runtime", "device", device),
        ("runtime", "precision", precision),
    ):
        if value is not None:
            given.setdefault(group, {})[name] = value
    if from_ or (resume and out and not generator):
        config = _recorded(Path(from_ or Path(out) / "run.json"), given)
    else:
        places = {"pairs": pairs, "pictures": pictures, "source": source, "samples": samples, "labeler": labeler}
        declared = {"channels": channels, "range": range_, "space": space}
        options = {"limit": limit, "validation": validation, "adapter": adapter}
        config = _resolve(host, generator, intrinsic, preset, given, places, declared, options, quiet=json)
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


def _resolve(
    host: PluginHost,
    generator: str,
    intrinsic: str,
    preset: str,
    given: dict[str, Any],
    places: dict[str, Any],
    declared: dict[str, Any],
    options: dict[str, Any],
    *,
    quiet: bool,
) -> FitConfig:
    """Defaults < preset < --set, and every name checked, before anything heavy is loaded."""
    from ilora_core.config import FitConfig, merge_settings
    from ilora_core.labelling import labeler_names

    if not generator:
        raise ConfigError("say which generator with --generator NAME (`ilora list-plugins` shows them).")
    host.card("generators", generator)
    if places["labeler"]:
        for name in labeler_names(places["labeler"]):
            host.card("labelers", name)
        if not (places["pictures"] or places["source"] or places["pairs"] or places["samples"]):
            places = {**places, "samples": 250}
            _say(f"No pictures given: learning from 250 of {generator}'s own samples (--samples N).", quiet)
    if places["source"]:
        host.card("sources", places["source"])
    for name in ("pairs", "pictures"):
        if places[name] and not Path(places[name]).is_dir():
            raise ConfigError(f"--{name}: there is no folder {places[name]}.")
    chosen = tuple(_intrinsics(host, intrinsic, places, declared, quiet=quiet))
    settings = merge_settings(generator, preset, given)
    return FitConfig(generator, chosen, preset=preset, settings=settings, **places, **options)


def _intrinsics(
    host: PluginHost, names: str, places: dict[str, Any], declared: dict[str, Any], *, quiet: bool
) -> Iterator[Intrinsic]:
    from ilora_core.folders import infer_intrinsic, load_intrinsic
    from ilora_core.intrinsics import BUILT_IN, get_intrinsic

    for name in [name.strip() for name in names.split(",") if name.strip()] or _offered(host, places):
        if name.endswith(".toml"):
            yield load_intrinsic(name)
        elif name in BUILT_IN:
            yield get_intrinsic(name)
        elif any(declared.values()):
            yield _declared(name, declared)
        elif places["pairs"] and (Path(places["pairs"]) / name).is_dir():
            inferred, assumed = infer_intrinsic(places["pairs"], name)
            _say(assumed, quiet)
            yield inferred
        else:
            yield get_intrinsic(name)


def _offered(host: PluginHost, places: dict[str, Any]) -> list[str]:
    """Every intrinsic that the chosen pairs, labelers or source have."""
    from ilora_core.folders import map_folders
    from ilora_core.labelling import labeler_names

    if places["pairs"]:
        return map_folders(places["pairs"])
    if places["labeler"]:
        cards = [host.card("labelers", name) for name in labeler_names(places["labeler"])]
    else:
        cards = [host.card("sources", places["source"])] if places["source"] else []
    return list(dict.fromkeys(name for card in cards for name in card.intrinsics))


def _declared(name: str, declared: dict[str, Any]) -> Intrinsic:
    from ilora_core.intrinsics import Intrinsic

    try:
        low, high = (float(part) for part in (declared["range"] or "0,1").split(","))
    except ValueError as error:
        raise ConfigError(f"--range is low,high (two numbers), not {declared['range']!r}.") from error
    return Intrinsic(name, declared["channels"] or 1, "", declared["space"] or "linear", low, high)


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        console(stderr=True).print(text, markup=False)  # a licence may have [brackets] in its name
