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

from benchmarks import BENCHMARKS, Benchmark
from bundle import bundle_facts, unpack
from machine import ROOT, Settings, Step, StepFailed, call, read_state
from pretraining import PRETRAININGS, Pretraining, plan, seen, ship, train_slice

__all__ = ["RESULTS", "STEPS", "figures_of", "install"]

RESULTS = ROOT / "bench" / "results"
_PYTHON = sys.executable


# ----------------------------------------------------------------------------------------------------- pre-training


def _pretrain_step(one: Pretraining) -> Step:
    """A step that trains in slices until the target is reached, here or by any machine's record."""

    def run(settings: Settings, seconds: float) -> bool:
        before = seen(one, one.shipped)
        done, results = train_slice(one, settings, seconds)
        _record(f"gpu-{one.name}", one.name, settings, {"visits": one.pictures(settings)}, results)
        if seen(one, one.shipped) > before:
            for step in _READS.get(one.name, ()):
                _forget(settings, step)
        return done

    def reached(settings: Settings) -> bool:
        for path in RESULTS.glob(f"gpu-{one.name}-*.json"):
            try:
                results = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if results.get("results", {}).get("visits", 0) >= one.pictures(settings):
                return True
        return False

    return Step(one.name, one.what, run, lambda settings: plan(one, settings), reached, least_s=200)


_READS = {
    "pretrain": ("rooms-lora", "rooms-losses"),
    "pretrain-aug": ("rooms-aug",),
    "pretrain-gan": ("rooms-gan",),
    "pretrain-labeller": ("rooms-gan", "rooms-vqgan"),
    "pretrain-prior": ("rooms-vqgan", "vqgan-layers"),
}
"""What is measured anew with better weights."""


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
    diffusion = PRETRAININGS[0]
    given = {**data["settings"], "visits": seen(diffusion, diffusion.shipped)}
    _record("rooms-lora", "rooms-lora", settings, given, results)
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


def _benchmark_step(one: Benchmark) -> Step:
    """A step of one benchmark that records for itself; what it wrote is carried."""

    def run(settings: Settings, seconds: float) -> bool:
        started = time.time()
        call(one.plan(settings)[0], settings, seconds, log=one.name)
        for path in RESULTS.glob(one.pattern):
            if path.stat().st_mtime >= started - 1:
                _carry(path, settings)
        return True

    return Step(one.name, one.what, run, one.plan, least_s=one.least_s)


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
    for one in () if keep_weights else (each for each in PRETRAININGS if each.ships):
        name = f"weights-{one.package}"
        if not (facts := bundle_facts(folder, name)):
            continue
        draft = one.shipped.with_name(f".{one.package}.carried")
        shutil.rmtree(draft, ignore_errors=True)
        if unpack(folder, name, draft) is None:
            yield f"{name}: the files are not whole and were left alone"
        else:
            taken = "taken over" if ship(one, draft) else "ours saw as many"
            yield f"{name}: {facts['visits']} pictures, {taken}"
        shutil.rmtree(draft, ignore_errors=True)


def _date(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("date", ""))
    except (OSError, ValueError):
        return ""


def _kind(settings: Settings) -> str:
    return "cuda" if settings.device.startswith("cuda") else "cpu"


STEPS: Sequence[Step] = (
    *(_pretrain_step(one) for one in PRETRAININGS),
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
    *(_benchmark_step(one) for one in BENCHMARKS),
)
