"""`ilora predict`: float maps from pictures, or from a generator's own samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json, quiet_bars
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from ilora_cli.predict_work import Drawn, Writer
    from ilora_core.predict import Predictor

__all__ = ["predict"]

_FORMATS = ("npy", "png", "exr")


def predict(
    inputs: Annotated[list[str] | None, typer.Argument(help="Pictures, folders, or patterns like 'in/*.jpg'.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            help="What `ilora fit` wrote, hf://OWNER/NAME[/FOLDER][@REVISION], or [INTRINSIC=]FILE, a LoRA file.",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write: OUT/<intrinsic>/<name>.<format>")] = "maps",
    samples: Annotated[int, typer.Option(min=0, help="Draw this many of the generator's own samples instead.")] = 0,
    format_: Annotated[str, typer.Option("--format", help="npy (float32), png (16-bit), exr; with commas")] = "npy",
    process: Annotated[
        str, typer.Option(help="native, full or tile: how a picture meets the generator's size")
    ] = "native",
    overlap: Annotated[
        float,
        typer.Option(min=0.05, max=0.9, help="Of --process tile: the share of a tile that neighbours have in common."),
    ] = 0.66,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of one size, or tiles, drawn at once.")] = 1,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Each map in a pass of its own: slower, with less memory.")
    ] = False,
    shared_scale: Annotated[
        bool,
        typer.Option(
            "--shared-scale",
            help="Frames of one scene: depth and shading of a folder's pictures on one scale, so that none flickers.",
        ),
    ] = False,
    normals: Annotated[str, typer.Option(help="Axes of written normals: opencv, opengl or directx")] = "opencv",
    preview: Annotated[bool, typer.Option(help="Also write 8-bit previews.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw again what exists.")] = False,
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="Use this card instead of the recorded one.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of --samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16")] = "fp32",
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the network: for many pictures.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.name=value")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Machine-readable list of what was written and what failed.")
    ] = False,
) -> None:
    """Draw maps with trained adapters: all adapters in one pass over each picture.

    A picture that cannot be read is named at the end and does not stop the others; the exit code is then 1.
    """
    formats = [name.strip().lstrip(".") for name in format_.split(",")]
    _check(inputs or [], adapter or [], formats, process, normals, samples)
    if samples and shared_scale:
        raise ConfigError("--shared-scale is for the frames of one scene; --samples are pictures of different ones.")
    from ilora_cli.predict_work import Drawing, Writer, samples_of, with_their_folder
    from ilora_core.adapter_places import find_adapters
    from ilora_core.config import RuntimeConfig
    from ilora_core.folders import find_pictures

    settings = parse_settings(set_ or [])
    quiet_bars(json)
    given = settings.get("generator", {})
    artefacts = find_adapters(adapter or [], generator=generator, settings=given)
    pictures = {} if samples else find_pictures(inputs or [])
    names = [artefact.intrinsic.name for artefact in artefacts]
    writer = Writer(Path(out), formats, normals, preview=preview)
    keys = [f"sample-{seed}-{i:06d}" for i in range(samples)] if samples else list(pictures)
    todo = [key for key in keys if overwrite or not writer.complete(key, names)]
    todo = with_their_folder(todo, pictures) if shared_scale else todo
    done = _Done(out, process, len(keys), len(todo), passed_over=_passed_over(inputs or []))
    if todo:
        from ilora_core.predict import Predictor

        runtime = RuntimeConfig(device=device, precision=precision, compile=compile_)
        drawer = Predictor(artefacts, runtime=runtime, generator=generator, settings=given, one_by_one=one_by_one)
        done.generator = dict(getattr(drawer.generator, "provenance", {}))
        drawing = Drawing(drawer, pictures, process, overlap, batch, done.failed, done.inversions)
        if samples:
            drawn = samples_of(drawer, samples, seed, todo)
        elif shared_scale:
            from ilora_core.frames import SharedScale

            writer.scale = SharedScale(drawer.intrinsics)
            done.unfitted = writer.scale.unfitted
            drawn = drawing.on_one_scale(todo, writer.scale, Path(out))
        else:
            drawn = drawing.of(todo)
        _write_all(drawn, writer, len(todo), drawer, quiet=json)
    _report(done, json=json)


def _check(
    inputs: list[str], adapters: list[str], formats: list[str], process: str, normals: str, samples: int
) -> None:
    """Everything that can be refused before torch is loaded."""
    if not adapters:
        raise ConfigError("say with what to predict: --adapter FOLDER (what `ilora fit` wrote).")
    if bool(inputs) == bool(samples):
        raise ConfigError("give pictures, or --samples N; one of the two.")
    for value, allowed, option in (
        *((name, _FORMATS, "--format") for name in formats),
        (process, ("native", "full", "tile"), "--process"),
        (normals, ("opencv", "opengl", "directx"), "--normals"),
    ):
        if value not in allowed:
            raise ConfigError(f"{option} is one of {', '.join(allowed)}, not {value!r}.")


def _write_all(drawn: Drawn, writer: Writer, total: int, drawer: Predictor, *, quiet: bool) -> None:
    from rich.progress import track

    out = console(stderr=True)
    shown = track(drawn, "predict", total, console=out, transient=True, disable=quiet or not out.is_terminal)
    for key, maps in shown:
        for name, value in maps.items():
            writer.write(key, name, value, drawer)


def _passed_over(inputs: list[str]) -> list[str]:
    """Files in the given folders that are no pictures by their name."""
    from ilora_core.pixels import SUFFIXES

    found = (path for item in inputs if Path(item).is_dir() for path in sorted(Path(item).rglob("*")))
    return [str(p) for p in found if p.is_file() and p.suffix.lower() not in SUFFIXES and not p.name.startswith(".")]


@dataclass
class _Done:
    """What there is to tell."""

    out: str
    process: str
    total: int
    todo: int
    passed_over: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    inversions: dict[str, float] = field(default_factory=dict)
    unfitted: list[str] = field(default_factory=list)
    generator: dict[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> int:
        return self.todo - len(self.failed)

    @property
    def skipped(self) -> int:
        return self.total - self.todo


def _report(done: _Done, *, json: bool) -> None:
    if json:
        data: dict[str, Any] = {"out": done.out, "process": done.process, "written": done.written}
        told = {"inversion_psnr_db": done.inversions} if done.inversions else {}
        told |= {"own_scale": done.unfitted} if done.unfitted else {}
        told |= {"generator": done.generator} if done.generator else {}
        print_json({**data, "skipped": done.skipped, **told, "failed": done.failed, "passed_over": done.passed_over})
    else:
        _tell(done)
    if done.failed:
        raise typer.Exit(1)


def _tell(done: _Done) -> None:
    out = console(stderr=True)
    note = f", {done.skipped} existed already (--overwrite draws them again)" if done.skipped else ""
    out.print(f"{done.written} pictures drawn into {done.out}, process {done.process}{note}")
    if found := done.inversions:
        worst = min(found, key=lambda key: found[key])
        mean = sum(found.values()) / len(found)
        told = f"these maps are of inversions, PSNR {mean:.1f} dB on average, worst {found[worst]:.1f} dB ({worst})"
        out.print(told, markup=False)
    if done.unfitted:
        out.print(f"kept on a scale of their own, nothing fits: {', '.join(done.unfitted)}", markup=False)
    if done.passed_over:
        out.print(f"passed over, not pictures: {', '.join(done.passed_over)}", markup=False)
    for message in done.failed.values():
        out.print(f"could not draw: {message}", style="red", markup=False)
