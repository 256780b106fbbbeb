"""The options that say what a fit is, for every command that fits."""

from typing import Annotated, Any

import typer

__all__ = [
    "SHORT",
    "Adapter",
    "BatchSize",
    "Device",
    "Generator",
    "Intrinsic",
    "Labeler",
    "Limit",
    "Pairs",
    "Pictures",
    "Precision",
    "Preset",
    "Rank",
    "Rate",
    "Samples",
    "Seed",
    "Set",
    "Source",
    "Steps",
    "Validation",
    "with_short",
]

SHORT = {
    "steps": "train.steps",
    "batch": "train.batch",
    "lr": "train.lr",
    "seed": "train.seed",
    "rank": "adapter.rank",
    "device": "runtime.device",
    "precision": "runtime.precision",
}
"""Options that stand for a setting."""

Generator = Annotated[str, typer.Option("--generator", "-g", help="Who draws: see `ilora list-plugins`.")]
Intrinsic = Annotated[str, typer.Option("--intrinsic", "-i", help="What to learn, with commas; or a .toml.")]
Pairs = Annotated[str, typer.Option(help="Folder with pictures/ and one folder of maps per intrinsic.")]
Pictures = Annotated[str, typer.Option(help="Folder of pictures for --labeler.")]
Source = Annotated[str, typer.Option(help="A source plugin, e.g. rooms.")]
Samples = Annotated[int, typer.Option(min=0, help="Learn from this many of the generator's own samples.")]
Labeler = Annotated[str, typer.Option(help="Who draws the maps to learn from; several, mixed: first+second.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="Use the first N pictures only.")]
Validation = Annotated[float, typer.Option(min=0, help="Held out: a share (<1, at most 64) or a number.")]
Steps = Annotated[int | None, typer.Option(min=1, help="train.steps")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="train.batch, per process")]
Rate = Annotated[float | None, typer.Option(min=0, help="train.lr")]
Rank = Annotated[int | None, typer.Option(min=1, help="adapter.rank")]
Seed = Annotated[int | None, typer.Option(help="train.seed")]
Device = Annotated[str | None, typer.Option(help="runtime.device: auto, cpu, cuda, cuda:1, mps")]
Precision = Annotated[str | None, typer.Option(help="runtime.precision: fp32, bf16, fp16")]
Preset = Annotated[str, typer.Option(help="A preset of the registry, or none. Default: the generator's first")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any other setting: group.name=value")]
Adapter = Annotated[str, typer.Option(help="The kind of adapter.")]


def with_short(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The settings of --set, by group, with those of SHORT that were given in place of theirs."""
    for name, value in options.items():
        if value is not None:
            group, _, setting = SHORT[name].partition(".")
            given.setdefault(group, {})[setting] = value
    return given
