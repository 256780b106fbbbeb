"""`ilora label`: run a labeler over pictures once, keep the maps, and export them as pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json

if TYPE_CHECKING:
    from ilora_core.label_cache import LabelCache
    from ilora_core.plugins import PluginHost
    from ilora_core.protocols import Labeler, Source

__all__ = ["label"]


def label(
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Folders, files or globs of pictures; none with --source.")
    ] = None,
    labeler: Annotated[str, typer.Option("--labeler", help="Name of a labeler (see list-plugins).")] = "",
    source: Annotated[str, typer.Option("--source", help="Label a data set plugin's pictures instead.")] = "",
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
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Settings: labeler.x=y, source.x=y, format.normals=npy.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Fill the label cache: what has a label keeps it, and a stopped run goes on where it ended.

    Labels belong to the pixels that the labeler saw: give the --size that `fit` will use, or let `fit --labeler` label.
    """
    from ilora_core.errors import ConfigError
    from ilora_core.labels import cache_for
    from ilora_core.plugins import load_plugins

    if not labeler:
        raise ConfigError("say who shall label: --labeler NAME (`ilora list-plugins` shows them).")
    if bool(pictures) == bool(source):
        raise ConfigError("give pictures or --source NAME, and not both.")
    settings = _settings(set_ or [])
    host = load_plugins()
    found = _source(host, pictures or [], source, size, settings["source"])
    card = host.card("labelers", labeler)
    made: Labeler = host.make("labelers", labeler, **settings["labeler"])
    told = {"licence": card.licence, "summary": card.summary}
    labels = cache_for(made, labeler, settings["labeler"], root=cache, provenance=told)
    reused = _run(made, found, labels, batch, device)
    exported = _export(found, labels, out, settings["format"]) if out else 0
    _report(labels, len(found), reused, out, exported, json)


def _settings(items: list[str]) -> dict[str, dict[str, Any]]:
    from ilora_core.errors import ConfigError

    tree = parse_settings(items)
    known = ("labeler", "source", "format")
    if unknown := [key for key in tree if key not in known or not isinstance(tree[key], dict)]:
        raise ConfigError(f"--set {unknown[0]}=… is not for `label`; sections are {', '.join(known)}.")
    return {section: tree.get(section, {}) for section in known}


def _source(host: PluginHost, pictures: list[str], name: str, size: int, settings: dict[str, Any]) -> Source:
    from ilora_core.errors import ConfigError
    from ilora_core.sources import FolderSource

    if name:
        return host.make("sources", name, **({"size": size} if size else {}), **settings)
    if settings:
        raise ConfigError("--set source.… goes with --source NAME; for pictures use --size.")
    return FolderSource(pictures, size=size or None)


def _run(labeler: Labeler, source: Source, labels: LabelCache, batch: int, device: str) -> int:
    """Label with a progress bar on the error stream; returns how many had a label before."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from ilora_core.labels import label_source
    from ilora_core.runtime import pick_device

    reused = 0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("labelling", total=len(source))
        for progress in label_source(labeler, source, labels, batch_size=batch, device=pick_device(device)):
            bar.update(task, completed=progress.done)
            reused = progress.reused
    return reused


def _export(source: Source, labels: LabelCache, out: Path, formats: dict[str, Any]) -> int:
    from ilora_core.labels import export_labels

    return sum(export_labels(source, labels, out, formats={name: str(suffix) for name, suffix in formats.items()}))


def _report(labels: LabelCache, total: int, reused: int, out: Path | None, exported: int, json: bool) -> None:
    names = [i.name for i in labels.intrinsics]
    if json:
        told = {"pictures": total, "labelled": total - reused, "reused": reused, "intrinsics": names}
        damaged = [str(path) for path in labels.damaged]
        print_json({**told, "cache": str(labels.folder), "out": out and str(out), "damaged": damaged})
        return
    screen = console()
    screen.print(f"{total} pictures: {total - reused} labelled with {', '.join(names)}, {reused} had their labels.")
    screen.print(f"cache: {labels.folder}", soft_wrap=True)
    if labels.damaged:
        screen.print(f"{len(labels.damaged)} damaged shards were set aside and their pictures labelled again.")
    if out:
        screen.print(f"{exported} pairs written to {out}; fit on them with --pairs {out}", soft_wrap=True)
