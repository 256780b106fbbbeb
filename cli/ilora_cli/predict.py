"""`ilora predict`: float maps from pictures, or from a generator's own samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, parse_settings, print_json
from ilora_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ilora_core.predict import Predictor

__all__ = ["predict"]

_FORMATS = ("npy", "png", "exr")


def predict(
    inputs: Annotated[list[str] | None, typer.Argument(help="Pictures, folders, or patterns like 'in/*.jpg'.")] = None,
    adapter: Annotated[list[str] | None, typer.Option("--adapter", "-a", help="What `ilora fit` wrote.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write: OUT/<intrinsic>/<name>.<format>")] = "maps",
    samples: Annotated[int, typer.Option(min=0, help="Draw this many of the generator's own samples instead.")] = 0,
    format_: Annotated[str, typer.Option("--format", help="npy (float32), png (16-bit), exr; with commas")] = "npy",
    process: Annotated[
        str, typer.Option(help="native, full or tile: how a picture meets the generator's size")
    ] = "native",
    normals: Annotated[str, typer.Option(help="Axes of written normals: opencv, opengl or directx")] = "opencv",
    preview: Annotated[bool, typer.Option(help="Also write 8-bit previews.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw again what exists.")] = False,
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="Use this card instead of the recorded one.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of --samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16")] = "fp32",
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
    from ilora_core.artefact import find_artefacts
    from ilora_core.config import RuntimeConfig
    from ilora_core.folders import find_pictures

    settings = parse_settings(set_ or [])
    artefacts = [artefact for path in adapter or [] for artefact in find_artefacts(path)]
    pictures = {} if samples else find_pictures(inputs or [])
    names = [artefact.intrinsic.name for artefact in artefacts]
    writer = _Writer(Path(out), formats, normals, preview=preview)
    keys = [f"sample-{seed}-{i:06d}" for i in range(samples)] if samples else list(pictures)
    todo = [key for key in keys if overwrite or not writer.complete(key, names)]
    failed: dict[str, str] = {}
    inversions: dict[str, float] = {}
    if todo:
        from ilora_core.predict import Predictor

        runtime = RuntimeConfig(device=device, precision=precision)
        drawer = Predictor(artefacts, runtime=runtime, generator=generator, settings=settings.get("generator"))
        if samples:
            drawn = _samples(drawer, samples, seed, todo)
        else:
            drawn = _pictures(drawer, pictures, todo, process, failed, inversions)
        _write_all(drawn, writer, len(todo), drawer, quiet=json)
    _report(out, keys, todo, failed, _passed_over(inputs or []), process, inversions, json=json)


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


class _Writer:
    """Where maps go, and whether they are there."""

    def __init__(self, out: Path, formats: list[str], frame: str, *, preview: bool):
        self.out, self.formats, self.frame, self.preview = out, formats, frame, preview

    def complete(self, key: str, names: list[str]) -> bool:
        """Whether every map of a picture exists."""
        return all(path.is_file() for name in names for path in self._paths(key, name))

    def write(self, key: str, name: str, value: Tensor, drawer: Predictor) -> None:
        """One map (C,H,W) in every format, each file whole or not at all."""
        import torch

        from ilora_core.maps_io import write_map, write_preview

        intrinsic, valid = drawer.intrinsics[name], torch.ones_like(value[:1], dtype=torch.bool)
        *paths, last = self._paths(key, name)
        for path in paths if self.preview else [*paths, last]:
            write_map(path, value, valid, intrinsic, frame=self.frame)
        if self.preview:
            write_preview(last, value, valid, intrinsic, frame=self.frame)

    def _paths(self, key: str, name: str) -> list[Path]:
        # Not with_suffix: a key may hold dots.
        paths = [self.out / name / f"{key}.{suffix}" for suffix in self.formats]
        return [*paths, self.out / f"{name}_preview" / f"{key}.png"] if self.preview else paths


def _pictures(
    drawer: Predictor,
    pictures: Mapping[str, Path],
    todo: list[str],
    process: str,
    failed: dict[str, str],
    inversions: dict[str, float],
) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    from ilora_core.maps_io import read_picture

    for key in todo:
        try:
            picture = read_picture(pictures[key])
        except DataError as error:
            failed[str(pictures[key])] = str(error)
            yield key, {}
            continue
        maps = drawer(picture[None], process=process)
        if drawer.psnr_db is not None:
            inversions[key] = round(drawer.psnr_db[0], 2)
        yield key, {name: value[0] for name, value in maps.items()}


def _samples(drawer: Predictor, n: int, seed: int, todo: list[str]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    codes = drawer.generator.sample(n, seed=seed)
    for index in range(n):
        key = f"sample-{seed}-{index:06d}"
        if key in todo:
            one = {name: value if len(value) == 1 else value[index : index + 1] for name, value in codes.items()}
            drawn = {name: value[0] for name, value in drawer.from_codes(one).items()}
            yield key, {**drawn, "": drawer.generator.picture(one)[0].float().cpu()}


def _write_all(
    drawn: Iterator[tuple[str, Mapping[str, Tensor]]], writer: _Writer, total: int, drawer: Predictor, *, quiet: bool
) -> None:
    from rich.progress import track

    out = console(stderr=True)
    shown = track(drawn, "predict", total, console=out, transient=True, disable=quiet or not out.is_terminal)
    for key, maps in shown:
        for name, value in maps.items():
            if name:
                writer.write(key, name, value, drawer)
            else:
                from ilora_core.maps_io import write_picture

                write_picture(writer.out / "pictures" / key, value, format="png8")


def _passed_over(inputs: list[str]) -> list[str]:
    """Files in the given folders that are no pictures by their name."""
    from ilora_core.pixels import SUFFIXES

    found = (path for item in inputs if Path(item).is_dir() for path in sorted(Path(item).rglob("*")))
    return [str(p) for p in found if p.is_file() and p.suffix.lower() not in SUFFIXES and not p.name.startswith(".")]


def _report(
    out: str,
    keys: list[str],
    todo: list[str],
    failed: dict[str, str],
    passed_over: list[str],
    process: str,
    inversions: dict[str, float],
    *,
    json: bool,
) -> None:
    skipped, written = len(keys) - len(todo), len(todo) - len(failed)
    if json:
        data: dict[str, Any] = {"out": out, "process": process, "written": written, "skipped": skipped}
        inverted = {"inversion_psnr_db": inversions} if inversions else {}
        print_json({**data, **inverted, "failed": failed, "passed_over": passed_over})
    else:
        note = f", {skipped} existed already (--overwrite draws them again)" if skipped else ""
        console(stderr=True).print(f"{written} pictures drawn into {out}, process {process}{note}")
        if inversions:
            worst = min(inversions, key=lambda key: inversions[key])
            mean = sum(inversions.values()) / len(inversions)
            told = f"these maps are of inversions, PSNR {mean:.1f} dB on average, worst {inversions[worst]:.1f} dB ({worst})"
            console(stderr=True).print(told, markup=False)
        if passed_over:
            console(stderr=True).print(f"passed over, not pictures: {', '.join(passed_over)}", markup=False)
        for message in failed.values():
            console(stderr=True).print(f"could not draw: {message}", style="red", markup=False)
    if failed:
        raise typer.Exit(1)
