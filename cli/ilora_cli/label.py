"""`ilora label`: run labelers over pictures once, keep the maps, and export them as pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json

if TYPE_CHECKING:
    from ilora_cli.label_work import Work
    from ilora_core.label_cache import LabelCache
    from ilora_core.plugins import PluginHost
    from ilora_core.protocols import Source
    from ilora_core.samples import SampledSource

__all__ = ["label"]

_SECTIONS = ("labeler", "source", "generator", "format")


def label(
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Folders, files or globs of pictures; none with --source.")
    ] = None,
    labeler: Annotated[
        str, typer.Option("--labeler", help="Name of a labeler (see list-plugins); several, mixed: first+second.")
    ] = "",
    source: Annotated[str, typer.Option("--source", help="Label a data set plugin's pictures instead.")] = "",
    generator: Annotated[
        str,
        typer.Option("--generator", "-g", help="Label --samples of a generator: those that `fit` would learn from."),
    ] = "",
    samples: Annotated[int, typer.Option("--samples", min=0, help="How many samples of --generator.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of --samples; train.seed of `fit`.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write pictures and maps as pairs into this folder.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of label caches. Default: $ILORA_CACHE/labels or ~/.cache.")
    ] = None,
    size: Annotated[
        int,
        typer.Option("--size", min=0, help="Shorter side of the centre cut that is labelled; 0: pictures as they are."),
    ] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures the labeler sees at once.")] = 8,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Share the pictures among so many processes, and GPUs.")
    ] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Settings: labeler.x=y, source.x=y, generator.x=y, format.normals=npy."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Fill the label cache: what has a label keeps it, and a stopped run goes on where it ended.

    Labels belong to the pixels that the labeler saw: give the --size that `fit` will use, or let `fit --labeler` label.

    Of a mix, each labeler is kept in its own cache and the mix in another, with maps of where they disagree.

    On several machines, or where accelerate chooses the devices: accelerate launch -m ilora_cli.main label …
    """
    from ilora_cli.label_work import Work, is_main_process
    from ilora_core.plugins import load_plugins

    _check(labeler, pictures, source, generator, samples, size, processes)
    settings = _settings(set_ or [])
    host = load_plugins()
    work = Work(labeler, tuple(pictures or ()), source, size, cache, batch, device, settings)
    if generator:
        drawn = _generator_samples(host, generator, samples, seed, settings["generator"])
        found, labels, reused = _label_samples(work, host, drawn, processes)
    else:
        found = work.open_source(host)
        labels, reused = _label_pictures(work, host, found, processes)
    if not is_main_process():
        return
    about = {"drawn_by": _drawn_by(host, generator, seed, settings["generator"])} if generator else {}
    exported = _export(found, labels, out, settings["format"], about) if out else 0
    _report(labels, len(found), reused, out, exported, json)


def _check(
    labeler: str, pictures: list[str] | None, source: str, generator: str, samples: int, size: int, processes: int
) -> None:
    from ilora_cli.label_work import launched
    from ilora_core.errors import ConfigError
    from ilora_core.labelling import labeler_names

    if not labeler_names(labeler):
        raise ConfigError("say who shall label: --labeler NAME (`ilora list-plugins` shows them).")
    if sum(map(bool, (pictures, source, generator))) != 1:
        raise ConfigError(
            "give pictures, --source NAME or --generator NAME with --samples N: exactly one of the three."
        )
    if bool(generator) != bool(samples):
        raise ConfigError("--generator NAME and --samples N go together.")
    if generator and size:
        raise ConfigError("samples have their generator's size: leave --size out.")
    if launched() and processes > 1:
        raise ConfigError("either accelerate launches several processes, or --processes N starts them: not both.")


def _settings(items: list[str]) -> dict[str, dict[str, Any]]:
    from ilora_core.errors import ConfigError
    from ilora_core.exports import check_suffix

    tree = parse_settings(items)
    if unknown := [key for key in tree if key not in _SECTIONS or not isinstance(tree[key], dict)]:
        raise ConfigError(f"--set {unknown[0]}=… is not for `label`; sections are {', '.join(_SECTIONS)}.")
    for name, suffix in tree.get("format", {}).items():
        check_suffix(str(suffix), f"--set format.{name}")
    return {section: tree.get(section, {}) for section in _SECTIONS}


def _generator_samples(host: PluginHost, name: str, samples: int, seed: int, settings: dict[str, Any]) -> SampledSource:
    """The very pictures that `ilora fit` draws: its preset's settings are the generator's here too."""
    from ilora_core.config import merge_settings
    from ilora_core.samples import SampledSource

    merged = merge_settings(name, "", {"generator": settings}).get("generator", {})
    return SampledSource(host.make("generators", name, **merged), samples, seed=seed)


def _label_samples(
    work: Work, host: PluginHost, drawn: SampledSource, processes: int
) -> tuple[Source, LabelCache, dict[str, int]]:
    """Draw everything, let the generator go, then label; other processes read the pictures from a folder."""
    import tempfile

    from ilora_core.maps_io import write_picture
    from ilora_core.runtime import pick_device
    from ilora_core.samples import draw_samples

    with _bar(len(drawn)) as show:
        for done in draw_samples(drawn, pick_device(work.device)):
            show("drawing", done)
    if processes == 1:
        return drawn, *_label_pictures(work, host, drawn, 1)
    with tempfile.TemporaryDirectory(prefix="ilora-samples-") as folder:
        for batch in drawn:
            for key, picture in zip(batch.keys, batch.pictures, strict=True):
                write_picture(Path(folder) / key, picture, format="png8")
        return drawn, *_label_pictures(replace(work, pictures=(folder,)), host, drawn, processes)


def _label_pictures(work: Work, host: PluginHost, source: Source, processes: int) -> tuple[LabelCache, dict[str, int]]:
    """Label with a progress bar on the error stream; returns the cache, and how many had a label before, by labeler."""
    from ilora_cli.label_work import launched
    from ilora_core.label_cache import LabelCache

    labelers = work.open_labelers(host) if processes == 1 else None
    if labelers is None:
        steps = work.spread(max(1, min(processes, len(source))), len(source))
    else:
        steps = work.join(labelers, source) if launched() else work.run(labelers, source)
    reused: dict[str, int] = {}
    labels = labelers.cache if labelers else None
    with _bar(len(source)) as show:
        for step in steps:
            if isinstance(step, Path):
                labels = LabelCache.at(step)
            else:
                show(f"labelling: {step.labeler}", step.done)
                reused[step.labeler] = step.reused
    assert labels is not None  # the last step of several processes is the folder
    return labels, reused


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A progress bar; gives the function (text, done) that moves it."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("labelling", total=total)
        yield lambda text, done: bar.update(task, description=text, completed=done)


def _drawn_by(host: PluginHost, name: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """What exported samples come from."""
    return {"generator": name, "licence": host.card("generators", name).licence, "seed": seed, "settings": settings}


def _export(source: Source, labels: LabelCache, out: Path, formats: dict[str, Any], about: dict[str, Any]) -> int:
    from ilora_core.labels import export_labels

    written = {intrinsic.name.replace("-", "_"): intrinsic.name for intrinsic in labels.intrinsics}
    suffixes = {written.get(name, name): str(suffix) for name, suffix in formats.items()}
    return sum(export_labels(source, labels, out, formats=suffixes, about=about))


def _report(
    labels: LabelCache, total: int, reused: dict[str, int], out: Path | None, exported: int, json: bool
) -> None:
    """reused: of the last one (of a mix, the mix itself) tells how many labels to learn from are new."""
    names = [i.name for i in labels.intrinsics]
    known = [*reused.values()][-1]
    if json:
        told = {"pictures": total, "labelled": total - known, "reused": known, "intrinsics": names}
        damaged = [str(path) for path in labels.damaged]
        by = {"reused_by_labeler": reused, "cache": str(labels.folder)}
        print_json({**told, **by, "out": out and str(out), "damaged": damaged})
        return
    screen = console()
    if len(reused) > 1:
        for name, count in reused.items():
            screen.print(f"  {name}: {total - count} new, {count} known", markup=False)
    screen.print(f"{total} pictures: {total - known} labelled with {', '.join(names)}, {known} had their labels.")
    screen.print(f"cache: {labels.folder}", soft_wrap=True)
    if labels.damaged:
        screen.print(f"{len(labels.damaged)} damaged shards were set aside and their pictures labelled again.")
    if out:
        screen.print(f"{exported} pairs written to {out}; fit on them with --pairs {out}", soft_wrap=True)
