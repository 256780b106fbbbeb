"""The steps: pre-training of the shipped weights, the experiment on them, CUDA tests, benchmarks; and taking over results."""

from __future__ import annotations

import json
import shutil
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bundle import bundle_facts, pack, unpack
from machine import ROOT, Settings, Step, StepFailed, call, read_state

__all__ = ["RESULTS", "SHIPPED", "STEPS", "figures_of", "install"]

RESULTS = ROOT / "bench" / "results"
SHIPPED = ROOT / "plugins" / "ilora-rooms" / "src" / "ilora_rooms" / "weights" / "ldm"
_PYTHON = sys.executable
_SHARDS = {"cuda": 120, "cpu": 4}
_END_S = 45.0  # for exporting and packing after a slice of training
_START_S = 45.0  # for imports, the codec and its gate before it


# ----------------------------------------------------------------------------------------------------- pre-training


def _render_command(settings: Settings) -> list[str]:
    shards = str(_SHARDS[_kind(settings)])
    cache = str(settings.scratch / "shards")
    return [_PYTHON, "-m", "ilora_rooms.data", "--cache", cache, "--shards", shards, "--device", settings.device]


def _train_command(settings: Settings, minutes: float, *, compiled: bool) -> list[str]:
    folder, cache = str(settings.scratch / "pretrain"), str(settings.scratch / "shards")
    command = [_PYTHON, "-m", "ilora_rooms.pretrain", "--out", folder, "--cache", cache, "--device", settings.device]
    command += ["--shards", "0", "--visits", str(settings.visits), "--decay-visits", str(settings.visits)]
    command += ["--minutes", f"{minutes:.2f}", "--resume", "--compact", "--save-minutes", "2"]
    if _kind(settings) == "cuda":
        # Without min-SNR weighting, as the shipped weights: the UNet is read at the last timestep, which it plays down.
        command += ["--batch", "512", "--lr", "1e-3", "--snr-cap", "1e9", *(["--compile"] if compiled else [])]
    return command


def _export_command(settings: Settings) -> list[str]:
    folder, target = str(settings.scratch / "pretrain"), str(settings.scratch / "weights" / "ldm")
    return [_PYTHON, "-m", "ilora_rooms.pretrain", "--export", folder, "--to", target]


def _pretrain_plan(settings: Settings) -> list[list[str]]:
    minutes = max(0.1, settings.minutes - (_START_S + _END_S) / 60)
    train = _train_command(settings, minutes, compiled=True)
    return [_render_command(settings), train, _export_command(settings)]


def _pretrain(settings: Settings, seconds: float) -> bool:
    """A slice: render what this machine lacks, train, export, pack. Done when the visits are reached."""
    deadline, folder = time.monotonic() + seconds, settings.scratch / "pretrain"
    before = _take_up(settings, folder)
    _render(settings, 0.4 * seconds)
    _train(settings, deadline, before)
    visits = _visits(folder)
    if visits <= before:
        raise StepFailed(f"the slice was too short: still at {before} visits. Give more --minutes.")
    files = [(path, str(path.relative_to(folder))) for path in _state_files(folder)]
    pack(files, settings.out, "pretrain", {"visits": visits})
    call(_export_command(settings), settings, 120, log="export")
    weights = settings.scratch / "weights" / "ldm"
    _keep_weights(weights, settings, visits)
    results = {"visits": visits, "target": settings.visits}
    results |= {key: value for key, value in _log_entry(folder).items() if key in ("loss", "visits_per_s", "pictures")}
    _record("gpu-pretrain", "pretrain", settings, {"visits": settings.visits}, results)
    return visits >= settings.visits


def _take_up(settings: Settings, folder: Path) -> int:
    """Restore the carried state unless this machine's own is further; the visits so far."""
    carried = int(bundle_facts(settings.out, "pretrain").get("visits", 0))
    if carried > _visits(folder):
        shutil.rmtree(folder, ignore_errors=True)
        if unpack(settings.out, "pretrain", folder) is None:
            raise StepFailed(f"the files pretrain.* in {settings.out} are not whole; delete them to start anew.")
    return _visits(folder)


def _render(settings: Settings, seconds: float) -> None:
    """Shards appear whole, so that a render that ran out of time is simply continued next time."""
    try:
        call(_render_command(settings), settings, seconds, log="render")
    except StepFailed as error:
        found = len(list((settings.scratch / "shards").glob("*-shard-*.npz")))
        if found < 4:
            raise StepFailed(f"only {found} shards of pictures could be rendered: {error}") from error


def _train(settings: Settings, deadline: float, before: int) -> None:
    """Compiled, and if that fails before any progress, without compilation."""

    def go(*, compiled: bool) -> None:
        left = deadline - time.monotonic() - _END_S
        minutes = max(6.0, left - _START_S) / 60
        call(_train_command(settings, minutes, compiled=compiled), settings, max(30.0, left + 20), log="pretrain")

    try:
        go(compiled=True)
    except StepFailed:
        if _visits(settings.scratch / "pretrain") > before or _kind(settings) != "cuda":
            raise
        go(compiled=False)


def _state_files(folder: Path) -> list[Path]:
    kept = [*folder.glob("state-*/*"), *folder.glob("codec/*"), folder / "codec.json", folder / "log.jsonl"]
    return [path for path in kept if path.is_file()]


def _visits(folder: Path) -> int:
    """Of the latest state; its folder is called state-VISITS."""
    names = sorted(path.name for path in folder.glob("state-*"))
    return int(names[-1].removeprefix("state-")) if names else 0


def _log_entry(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}


def _keep_weights(weights: Path, settings: Settings, visits: int) -> None:
    """Into OUT for the way home, and into the package, when they saw more pictures than what is there."""
    files = [(path, str(path.relative_to(weights))) for path in weights.rglob("*") if path.is_file()]
    pack(files, settings.out, "weights", {"visits": visits})
    sheet = settings.scratch / "pretrain" / "shipped.png"
    if sheet.is_file():
        shutil.copyfile(sheet, settings.out / "samples.png")
    if not settings.keep_weights and _ship(weights):
        _forget(settings, "rooms-lora")


def _ship(weights: Path) -> bool:
    """Replace the package's weights by ones that saw more pictures."""
    if _seen(weights) <= _seen(SHIPPED):
        return False
    draft = SHIPPED.with_name(f".{SHIPPED.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(weights, draft)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    draft.rename(SHIPPED)
    return True


def _seen(weights: Path) -> int:
    try:
        return int(json.loads((weights / "weights.json").read_text(encoding="utf-8")).get("visits", 0))
    except (OSError, ValueError):
        return 0


def _pretrain_done(settings: Settings) -> bool:
    """Any machine's record that reached the target counts."""
    for path in RESULTS.glob("gpu-pretrain-*.json"):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))["results"]
        except (OSError, ValueError, KeyError):
            continue
        if results.get("visits", 0) >= settings.visits:
            return True
    return False


# --------------------------------------------------------------------------------------------------- the experiment


def _lora_plan(settings: Settings) -> list[list[str]]:
    folder = str(settings.scratch / "quickstart")
    command = [_PYTHON, "-m", "ilora_cli.main", "quickstart", "--controls", "--device", settings.device]
    return [[*command, "--out", folder, "--overwrite"]]


def _lora(settings: Settings, seconds: float) -> bool:
    """Adapter, random init, probe, mean map and ceiling on unseen rooms, with the weights that are there now."""
    call(_lora_plan(settings)[0], settings, seconds, log="rooms-lora")
    folder = settings.scratch / "quickstart"
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results = figures_of(data)
    _record("rooms-lora", "rooms-lora", settings, {**data["settings"], "visits": _seen(SHIPPED)}, results)
    for name in results:
        if (folder / f"{name}.png").is_file():
            shutil.copyfile(folder / f"{name}.png", settings.out / f"rooms-{name}.png")
    return True


def figures_of(data: dict[str, Any]) -> dict[str, Any]:
    """A quickstart's results.json without every picture's own figures: intrinsic -> method -> protocol and figures."""
    return {
        name: {method: {"protocol": found["protocol"], **found["figures"]} for method, found in methods.items()}
        for name, methods in data["results"].items()
    }


# --------------------------------------------------------------------------------------------- tests and benchmarks


def _tests_plan(settings: Settings) -> list[list[str]]:
    report = f"--junitxml={settings.scratch / 'cuda.xml'}"
    return [[_PYTHON, "-m", "pytest", "tests/test_cuda.py", "-m", "cuda", "-q", "-p", "no:cacheprovider", report]]


def _tests(settings: Settings, seconds: float) -> bool:
    """The tests marked `cuda`; their counts are recorded whether they pass or not."""
    failure: StepFailed | None = None
    try:
        call(_tests_plan(settings)[0], settings, seconds, log="tests")
    except StepFailed as error:
        failure = error
    report = settings.scratch / "cuda.xml"
    if not report.is_file():
        raise failure or StepFailed("pytest left no report.")
    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    broken = [
        c.get("name") for c in suite.iter("testcase") if c.find("failure") is not None or c.find("error") is not None
    ]
    report.unlink()
    if counts["tests"] == counts["skipped"]:
        raise StepFailed("every CUDA test was skipped: is there a GPU that torch can use?")
    try:
        _record("gpu-tests", "tests", settings, {"marker": "cuda"}, {**counts, "failed": broken})
    finally:
        if failure:
            raise failure
    return True


def _sd15_plan(settings: Settings, *, compiled: bool = False) -> list[list[str]]:
    command = [_PYTHON, "bench/cached_vs_uncached.py", "--device", settings.device]
    if _kind(settings) == "cpu":
        return [[*command, "--size", "small", "--rounds", "2", "--warmup", "1"]]
    command += ["--size", "sd15", "--precision", "bf16", "--resolution", "512", "--batch", "4"]
    return [[*command, *(["--compile"] if compiled else [])]]


def _sd15(settings: Settings, seconds: float, *, compiled: bool = False) -> bool:
    """A cached step, an uncached one and the reference recipe in one process, SD1.5's size with random weights."""
    started = time.time()
    call(_sd15_plan(settings, compiled=compiled)[0], settings, seconds, log="sd15-compiled" if compiled else "sd15")
    for path in [p for p in RESULTS.glob("cached-vs-uncached-sd15-*.json") if p.stat().st_mtime >= started - 1]:
        if compiled:  # beside the plain figures, not over them
            name = path.name.replace("-sd15-", "-sd15-compiled-")
            path = path.replace(path.with_name(name)) if "compiled" not in path.name else path
        _carry(path, settings)
    return True


def _sd15_compiled(settings: Settings, seconds: float) -> bool:
    kept = {path: path.read_bytes() for path in RESULTS.glob("cached-vs-uncached-sd15-*.json")}
    try:
        return _sd15(settings, seconds, compiled=True)
    finally:
        for path, text in kept.items():
            if not path.exists():
                path.write_bytes(text)


def _renderer_plan(settings: Settings) -> list[list[str]]:
    return [[_PYTHON, "bench/gpu/render_rooms.py", "--device", settings.device]]


def _renderer(settings: Settings, seconds: float) -> bool:
    started = time.time()
    call(_renderer_plan(settings)[0], settings, seconds, log="renderer")
    for path in RESULTS.glob("rooms-renderer-*.json"):
        if path.stat().st_mtime >= started - 1:
            _carry(path, settings)
    return True


# ------------------------------------------------------------------------------------------------- recording, taking


def _record(name: str, step: str, settings: Settings, given: dict[str, Any], results: dict[str, Any]) -> None:
    """Through bench/record.py, in a child: this process knows no torch."""
    package = settings.scratch / f"{name}.record.json"
    package.parent.mkdir(parents=True, exist_ok=True)
    package.write_text(json.dumps({"settings": given, "results": results}), encoding="utf-8")
    command = [_PYTHON, "bench/gpu/keep.py", name, str(package), "--device", settings.device, "--step", step]
    printed = call(command, settings, 120, log="record")
    path = ROOT / printed.strip().splitlines()[-1]
    _carry(path, settings)
    (settings.out / "record.log").unlink(missing_ok=True)


def _carry(result: Path, settings: Settings) -> None:
    settings.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(result, settings.out / f"result-{result.name}")


def _forget(settings: Settings, step: str) -> None:
    state = read_state(settings.out)
    if state.pop(step, None):
        (settings.out / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def install(folder: Path, *, keep_weights: bool = False) -> Iterator[str]:
    """Results that are newer than ours, and weights that saw more pictures; yields what was done."""
    for path in sorted(folder.glob("result-*.json")):
        target = RESULTS / path.name.removeprefix("result-")
        if target.is_file() and _date(target) >= _date(path):
            yield f"{target.name}: ours is as new"
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        yield f"{target.name}: taken over"
    facts = bundle_facts(folder, "weights")
    if not facts or keep_weights:
        return
    draft = SHIPPED.with_name(".ldm.carried")
    shutil.rmtree(draft, ignore_errors=True)
    if unpack(folder, "weights", draft) is None:
        yield "weights: the files are not whole and were left alone"
    else:
        yield f"weights: {facts['visits']} visits, " + ("taken over" if _ship(draft) else "ours saw as many")
    shutil.rmtree(draft, ignore_errors=True)


def _date(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("date", ""))
    except (OSError, ValueError):
        return ""


def _kind(settings: Settings) -> str:
    return "cuda" if settings.device.startswith("cuda") else "cpu"


STEPS: Sequence[Step] = (
    Step("pretrain", "pre-training of the rooms model", _pretrain, _pretrain_plan, _pretrain_done, least_s=200),
    Step("rooms-lora", "adapters on the rooms model beside their controls", _lora, _lora_plan, least_s=180),
    Step("tests", "the tests that need a GPU", _tests, _tests_plan, least_s=90),
    Step("sd15", "a cached and an uncached step at SD1.5's size", _sd15, _sd15_plan, least_s=150),
    Step(
        "sd15-compiled",
        "the same with torch.compile",
        _sd15_compiled,
        lambda settings: _sd15_plan(settings, compiled=True),
        least_s=240,
    ),
    Step("renderer", "rooms per second", _renderer, _renderer_plan, least_s=60),
)
