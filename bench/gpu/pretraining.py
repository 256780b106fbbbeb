"""Pre-training of the weights that ilora-rooms and ilora-paradigms ship: what there is to train, and a slice of it that resumes.

All the scripts share their options: --out, --device, --minutes, --resume, and --export OUT --to FOLDER; a state is a folder
`state-PICTURES` in OUT, an export says in weights.json how many pictures it saw.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import bundle_facts, pack, unpack
from machine import ROOT, Settings, StepFailed, call

__all__ = ["PRETRAININGS", "WEIGHTS", "Pretraining", "plan", "seen", "ship", "train_slice"]

WEIGHTS = ROOT / "plugins" / "ilora-rooms" / "src" / "ilora_rooms" / "weights"
_PYTHON = sys.executable
_SHARDS = {"cuda": 120, "cpu": 4}
_END_S = 45.0  # for exporting and packing after a slice of training
_START_S = 45.0  # for imports, the codec and its gate before it
_WHOLE = 3_000_000  # Settings.visits of the full programme: every target scales with it


@dataclass(frozen=True)
class Pretraining:
    """One script.

    package   folder of the shipped weights in ilora_rooms/weights
    counted   what weights.json calls the number of pictures seen; "part.visits" of a part in it
    target    that number, for the full programme
    goal      options that state the target
    cuda      options on a GPU
    compiles  whether it takes --compile
    shards    whether it learns from shards of rendered pictures (--cache, --shards); else it renders for itself
    styles    pictures of each room in those shards
    kept      what a state needs beside its folder
    after     the pre-training whose finished export this one starts from (--first-stage)
    ships     whether its export replaces weights of the package; else a later one takes it along
    """

    name: str
    what: str
    module: str
    package: str
    counted: str
    target: int
    goal: Callable[[int], list[str]]
    cuda: tuple[str, ...] = ()
    compiles: bool = False
    shards: bool = True
    styles: int = 1
    kept: tuple[str, ...] = ()
    after: str = ""
    ships: bool = True

    @property
    def shipped(self) -> Path:
        """The package's own weights."""
        return WEIGHTS / self.package

    def pictures(self, settings: Settings) -> int:
        """The target of this call."""
        return max(1, self.target * settings.visits // _WHOLE)

    def folder(self, settings: Settings) -> Path:
        """Where the run lives on this machine."""
        return settings.scratch / self.name

    def exported(self, settings: Settings) -> Path:
        """Where its weights are exported to."""
        return settings.scratch / "weights" / self.package


def _visits(pictures: int) -> list[str]:
    return ["--visits", str(pictures)]


PRETRAININGS: Sequence[Pretraining] = (
    Pretraining(
        "pretrain",
        "pre-training of the rooms diffusion model",
        "ilora_rooms.pretrain",
        "ldm",
        "visits",
        3_000_000,
        lambda n: [*_visits(n), "--decay-visits", str(n), "--compact"],
        # Without min-SNR weighting, as the shipped weights: the UNet is read at the last timestep, which it plays down.
        ("--batch", "512", "--lr", "1e-3", "--snr-cap", "1e9"),
        compiles=True,
        kept=("codec/*", "codec.json"),
    ),
    Pretraining(
        "pretrain-aug",
        "the rooms diffusion model beside a picture, from the weights that are shipped by then",
        "ilora_rooms.pretrain_aug",
        "aug",
        "visits",
        1_000_000,
        lambda n: [*_visits(n), "--decay-visits", str(n), "--compact"],
        ("--batch", "512", "--lr", "1e-3"),
        compiles=True,
        styles=3,
    ),
    Pretraining(
        "pretrain-labeller",
        "training of the rooms labeler",
        "ilora_rooms.pretrain_labeller",
        "labeller",
        "visits",
        2_000_000,
        lambda n: [*_visits(n), "--n", "60000"],
        ("--batch", "256", "--lr", "4e-3"),
        shards=False,
    ),
    Pretraining(
        "pretrain-gan",
        "pre-training of the rooms StyleGAN2",
        "ilora_rooms.pretrain_gan",
        "stylegan2",
        "images",
        4_000_000,
        lambda n: ["--stages", f"16:{n // 16},32:{n // 8},64:{n - n // 16 - n // 8}", "--compact"],
        # Wider than what a CPU can train.
        (
            "--batch",
            "64",
            "--gamma",
            "1",
            "--base",
            "2048",
            "--widest",
            "192",
            "--latent",
            "256",
            "--ema-images",
            "20000",
        ),
    ),
    Pretraining(
        "pretrain-vqgan",
        "pre-training of the rooms VQGAN's first stage",
        "ilora_rooms.pretrain_vqgan",
        "vqgan-first-stage",
        "first_stage.visits",
        2_000_000,
        lambda n: [*_visits(n), "--critic-from", str(n // 2), "--quantise-from", str(n // 20), "--compact"],
        ("--batch", "128", "--lr", "1.5e-3", "--widths", "48", "96", "192", "--codes", "1024"),
        ships=False,
    ),
    Pretraining(
        "pretrain-prior",
        "pre-training of the rooms VQGAN's prior",
        "ilora_rooms.pretrain_prior",
        "vqgan",
        "prior.visits",
        2_000_000,
        lambda n: [*_visits(n), "--compact"],
        ("--batch", "256", "--lr", "1e-3", "--width", "256", "--layers", "8"),
        kept=("codes.npz",),
        after="pretrain-vqgan",
    ),
    # Not shipped by its length: whether it beats the shipped one is for `ilora_paradigms.evaluate` to say.
    Pretraining(
        "pretrain-paradigms",
        "training of the paradigms labeler at 128² and 256²",
        "ilora_paradigms.pretrain",
        "paradigms",
        "step",
        20_000,
        lambda n: ["--steps", str(n)],
        ("--preset", "gpu"),
        shards=False,
        ships=False,
    ),
)


def plan(one: Pretraining, settings: Settings) -> list[list[str]]:
    """The commands of a slice."""
    minutes = max(0.1, settings.minutes - (_START_S + _END_S) / 60)
    commands = [_render(one, settings)] if one.shards else []
    return [*commands, _train(one, settings, minutes, compiled=one.compiles), _export(one, settings)]


def train_slice(one: Pretraining, settings: Settings, seconds: float) -> tuple[bool, dict[str, Any]]:
    """Render what this machine lacks, train, export, pack. Whether the target is reached, and figures to record."""
    deadline, folder = time.monotonic() + seconds, one.folder(settings)
    _require_earlier(one, settings)
    before = _take_up(one, settings)
    if one.shards:
        _render_shards(one, settings, 0.4 * seconds)
    _train_in_time(one, settings, deadline, before)
    pictures = _pictures(folder)
    if pictures <= before:
        raise StepFailed(f"the slice was too short: still at {before} pictures. Give more --minutes.")
    files = [(path, str(path.relative_to(folder))) for path in _state_files(one, folder)]
    pack(files, settings.out, one.name, {"visits": pictures})
    call(_export(one, settings), settings, 120, log="export")
    _carry_weights(one, settings, pictures)
    target = one.pictures(settings)
    logged = {key: value for key, value in _last_log(folder).items() if isinstance(value, (int, float))}
    return pictures >= target, {**logged, "visits": pictures, "target": target}


def ship(one: Pretraining, weights: Path) -> bool:
    """Replace the package's weights by ones that saw more pictures."""
    if seen(one, weights) <= seen(one, one.shipped):
        return False
    draft = one.shipped.with_name(f".{one.package}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(weights, draft)
    shutil.rmtree(one.shipped, ignore_errors=True)
    draft.rename(one.shipped)
    return True


def seen(one: Pretraining, weights: Path) -> int:
    """Pictures that an export saw; 0 where there is none."""
    try:
        value = json.loads((weights / "weights.json").read_text(encoding="utf-8"))
        for name in one.counted.split("."):
            value = value[name]
        return int(value)
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _shards(one: Pretraining, settings: Settings) -> Path:
    return settings.scratch / ("shards" if one.styles == 1 else f"shards-{one.styles}-styles")


def _render(one: Pretraining, settings: Settings) -> list[str]:
    command = [_PYTHON, "-m", "ilora_rooms.data", "--cache", str(_shards(one, settings)), "--device", settings.device]
    return [*command, "--shards", str(_SHARDS[_kind(settings)]), "--styles", str(one.styles)]


def _train(one: Pretraining, settings: Settings, minutes: float, *, compiled: bool) -> list[str]:
    command = [_PYTHON, "-m", one.module, "--out", str(one.folder(settings)), "--device", settings.device]
    if one.shards:
        command += ["--cache", str(_shards(one, settings)), "--shards", "0"]
    command += [
        *_first_stage(one, settings),
        *one.goal(one.pictures(settings)),
        "--minutes",
        f"{minutes:.2f}",
        "--resume",
        "--save-minutes",
        "2",
    ]
    if _kind(settings) == "cuda":
        command += [*one.cuda, *(["--compile"] if compiled else [])]
    return command


def _export(one: Pretraining, settings: Settings) -> list[str]:
    command = [_PYTHON, "-m", one.module, "--export", str(one.folder(settings)), *_first_stage(one, settings)]
    return [*command, "--to", str(one.exported(settings))]


def _earlier(one: Pretraining) -> Pretraining:
    return next(other for other in PRETRAININGS if other.name == one.after)


def _first_stage(one: Pretraining, settings: Settings) -> list[str]:
    return ["--first-stage", str(_earlier(one).exported(settings))] if one.after else []


def _require_earlier(one: Pretraining, settings: Settings) -> None:
    """What this one starts from, here or from the carried files; StepFailed unless it is finished."""
    if not one.after:
        return
    earlier = _earlier(one)
    folder, target = earlier.exported(settings), earlier.pictures(settings)
    if seen(earlier, folder) < target:
        shutil.rmtree(folder, ignore_errors=True)
        unpack(settings.out, f"weights-{earlier.package}", folder)
    if seen(earlier, folder) < target:
        raise StepFailed(f"it needs the finished {earlier.name}: run that first.")


def _take_up(one: Pretraining, settings: Settings) -> int:
    """Restore the carried state unless this machine's own is further; the pictures so far."""
    folder = one.folder(settings)
    if int(bundle_facts(settings.out, one.name).get("visits", 0)) > _pictures(folder):
        shutil.rmtree(folder, ignore_errors=True)
        if unpack(settings.out, one.name, folder) is None:
            raise StepFailed(f"the files {one.name}.* in {settings.out} are not whole; delete them to start anew.")
    return _pictures(folder)


def _render_shards(one: Pretraining, settings: Settings, seconds: float) -> None:
    """Shards appear whole, so that a render that ran out of time is simply continued next time."""
    try:
        call(_render(one, settings), settings, seconds, log="render")
    except StepFailed as error:
        found = len(list(_shards(one, settings).glob("*-shard-*.npz")))
        if found < 4:
            raise StepFailed(f"only {found} shards of pictures could be rendered: {error}") from error


def _train_in_time(one: Pretraining, settings: Settings, deadline: float, before: int) -> None:
    """Compiled, and if that fails before any progress, without compilation."""

    def go(*, compiled: bool) -> None:
        left = deadline - time.monotonic() - _END_S
        minutes = max(6.0, left - _START_S) / 60
        call(_train(one, settings, minutes, compiled=compiled), settings, max(30.0, left + 20), log=one.name)

    try:
        go(compiled=one.compiles)
    except StepFailed:
        if _pictures(one.folder(settings)) > before or _kind(settings) != "cuda" or not one.compiles:
            raise
        go(compiled=False)


def _state_files(one: Pretraining, folder: Path) -> list[Path]:
    patterns = ("state-*/*", *one.kept, "log.jsonl")
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]


def _pictures(folder: Path) -> int:
    """Of the latest state; its folder is called state-PICTURES."""
    names = sorted(path.name for path in folder.glob("state-*"))
    return int(names[-1].removeprefix("state-")) if names else 0


def _last_log(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}


def _carry_weights(one: Pretraining, settings: Settings, pictures: int) -> None:
    """Into OUT for the way home, and into the package, when they saw more pictures than what is there."""
    weights = one.exported(settings)
    files = [(path, str(path.relative_to(weights))) for path in weights.rglob("*") if path.is_file()]
    pack(files, settings.out, f"weights-{one.package}", {"visits": pictures})
    sheet = one.folder(settings) / "shipped.png"
    if sheet.is_file():
        shutil.copyfile(sheet, settings.out / f"{one.name}-samples.png")
    if one.ships and not settings.keep_weights:
        ship(one, weights)


def _kind(settings: Settings) -> str:
    return "cuda" if settings.device.startswith("cuda") else "cpu"
