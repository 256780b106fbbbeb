"""`ilora plan`: parameters, memory and arithmetic of a fit, before anything is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json
from ilora_core.plugins import load_plugins

if TYPE_CHECKING:
    from ilora_core.plan import Plan

__all__ = ["plan"]


def plan(
    generator: Annotated[str, typer.Option("--generator", "-g", help="A generator (`ilora list-plugins`).")],
    adapter: Annotated[str, typer.Option(help="An adapter (`ilora list-plugins`).")] = "lora",
    rank: Annotated[int | None, typer.Option(help="The adapter's rank.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the pictures; default: the generator's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Training pictures, for the size of the cache.")] = 1000,
    preset: Annotated[str, typer.Option(help="A preset of registry.toml, or none; default: the generator's.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="group.key=value, as for `ilora fit`.")] = None,
    labeler: Annotated[str, typer.Option(help="Who would label the pictures; several, mixed: first+second.")] = "",
    tflops: Annotated[float | None, typer.Option(min=0.001, help="Sustained 10¹² FLOP/s: estimates the time.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say what a fit needs (parameters, memory, FLOPs; time with --tflops), without downloading weights."""
    from ilora_core.config import choose_preset, merge_settings
    from ilora_core.plan import make_plan

    short = {"adapter": {"rank": rank}, "train": {"batch": batch}, "runtime": {"precision": precision}}
    given = parse_settings(settings or [])
    for group, values in short.items():
        stated = {key: value for key, value in values.items() if value is not None}
        given[group] = {**given.get(group, {}), **stated}
    merged = merge_settings(generator, preset, given)
    made = make_plan(
        load_plugins(),
        generator,
        settings=merged,
        adapter=adapter,
        resolution=resolution,
        pictures=pictures,
        tflops=tflops,
    )
    labels = _labels(labeler, merged.get("labeler", {}), made) if labeler else None
    chosen = choose_preset(generator, preset)
    stated = {"name": chosen.name, "provenance": chosen.provenance} if chosen else None
    if json:
        print_json({**made.to_json(), "preset": stated, **({"labels": labels} if labels else {})})
        return
    _show(made)
    if labels:
        order = " then ".join(labels["labelers"])
        text = f"labels: {order}, alone on the device; {_bytes(labels['bytes'])} on disk, {made.pictures} pictures, counted"
        console().print(text, markup=False)
    if stated:
        console().print(f"preset {stated['name']}: {stated['provenance']}", markup=False)


def _labels(labeler: str, settings: dict[str, Any], made: Plan) -> dict[str, Any]:
    """Who labels in which order, under which licences, and what their label caches take."""
    from ilora_core.intrinsics import get_intrinsic
    from ilora_core.labelling import labeler_names, own_settings
    from ilora_core.mixes import mixed_intrinsics

    host, names = load_plugins(), labeler_names(labeler)
    own_settings(names, settings)
    cards = {name: host.card("labelers", name) for name in names}
    given = [tuple(get_intrinsic(intrinsic) for intrinsic in card.intrinsics) for card in cards.values()]
    kept = [*given, mixed_intrinsics(given)] if len(given) > 1 else given
    per_pixel = sum(4 * intrinsic.channels + 1 for cache in kept for intrinsic in cache)  # float32 and a mask
    licences = {name: card.licence for name, card in cards.items()}
    return {"labelers": list(names), "licences": licences, "bytes": per_pixel * made.resolution**2 * made.pictures}


def _show(made: Plan) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=f"{made.generator}: what a fit needs", title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for row in [*_size_rows(made), *_work_rows(made), *_time_rows(made)]:
        table.add_row(*row)
    console().print(table)


def _size_rows(made: Plan) -> list[tuple[str, str, str]]:
    adapter, memory = made.adapter, made.memory
    rows = [(f"parameters of {name}", f"{count:,}", "counted") for name, count in made.parameters.items()]
    share = f"{adapter['share']:.3%} of {adapter['base_parameters']:,} ({_base(made)}), counted"
    return [
        *rows,
        ("adapter", f"{adapter['parameters']:,}", share),
        ("adapter sites, file", f"{adapter['sites']}", f"{_bytes(adapter['bytes'])} in float32, counted"),
        ("memory: weights", _bytes(memory["weights"]), f"what a step needs, the network in {made.precision}; counted"),
        ("memory: adapter, AdamW", _bytes(memory["optimiser"]), "counted"),
        ("memory: cached samples", _bytes(memory["cache"]), f"{made.pictures} pictures, per intrinsic, counted"),
        (
            "memory: activations",
            _bytes(memory["activations"]),
            f"batch {made.batch} at {made.resolution}², as autograd keeps them, fused attention; recorded",
        ),
        ("memory in all", _bytes(memory["total"]), "estimate: allocator and workspaces come on top"),
    ]


def _work_rows(made: Plan) -> list[tuple[str, str, str]]:
    flops = made.flops
    step = ("a training step", _flops(flops["step"]), f"forward and backward on the cache, batch {made.batch}; counted")
    if not flops["encode"] + flops["prepare"]:  # nothing that a cache could save
        return [step, ("a predicted map", _flops(flops["predict_picture"]), "one pass; counted")]
    ratio = flops["reference_step"] / flops["step"] if flops["step"] else 1.0
    return [
        step,
        ("the reference's step", _flops(flops["reference_step"]), f"it encodes every time: {ratio:.2f} times; counted"),
        ("a predicted map", _flops(flops["predict_picture"]), "encode, network, decode; counted"),
    ]


def _time_rows(made: Plan) -> list[tuple[str, str, str]]:
    seconds = made.seconds
    if not seconds:
        return [("time", "", "not estimated; give --tflops X, what your device sustains in this precision")]
    return [
        ("a training step", f"{1000 * seconds['step']:.1f} ms", "estimate: FLOPs / throughput"),
        (f"{made.steps} steps", f"{seconds['fit'] / 60:.1f} min", "estimate, encoding included"),
        ("the same, reference's way", f"{seconds['reference_fit'] / 60:.1f} min", "estimate"),
    ]


def _base(made: Plan) -> str:
    return "network and VAE" if "vae" in made.parameters else "network"


def _bytes(value: Any) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def _flops(value: int) -> str:
    return f"{value / 1e12:.2f} TFLOP" if value >= 1e11 else f"{value / 1e9:.2f} GFLOP"
