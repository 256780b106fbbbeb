"""Runs steps as child processes with time limits, remembers what is done, and goes on after a failure.

OUT/state.json    {"STEP": {"status": "done" | "partial" | "failed", "date", "seconds", "error"}}
OUT/STEP.log      the end of the step's output

Standard library only: a machine may lack everything else, and the step's error will say so.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Settings", "Step", "StepFailed", "call", "environment", "read_state", "run_steps"]

ROOT = Path(__file__).resolve().parents[2]
_LOG_BYTES = 100_000
_GRACE_S = 20


class StepFailed(Exception):
    """A step that could not do its work; the message goes into state.json."""


@dataclass(frozen=True)
class Settings:
    """One call of run.py."""

    out: Path
    scratch: Path
    minutes: float = 9.0
    total_minutes: float = float("inf")
    device: str = "cuda"
    visits: int = 3_000_000
    again: bool = False
    keep_weights: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Step:
    """A piece of work.

    run     does it within the seconds it is given, or raises; True = done, False = more of it is left
    plan    the commands that it would run, for --dry-run
    done    whether it is done already, beyond what state.json says (results of another machine)
    least_s seconds below which it is not worth starting
    """

    name: str
    what: str
    run: Callable[[Settings, float], bool]
    plan: Callable[[Settings], Sequence[Sequence[str]]]
    done: Callable[[Settings], bool] = field(default=lambda settings: False)
    least_s: float = 60.0


def run_steps(steps: Sequence[Step], settings: Settings) -> int:
    """Every step that is not done, in order, within the limits. Returns 1 when one failed, else 0."""
    started, failed = time.monotonic(), False
    state = read_state(settings.out)
    for step in steps:
        if _is_done(step, state, settings):
            print(f"{step.name}: done already", flush=True)
            continue
        if settings.dry_run:
            _show(step, settings)
            continue
        while True:
            left = 60 * settings.total_minutes - (time.monotonic() - started)
            limit = min(60 * settings.minutes, left)
            if limit < min(step.least_s, 60 * settings.minutes):
                print(f"{step.name}: no time left in this call; call again to go on", flush=True)
                break
            entry = _run_one(step, settings, limit)
            state = {**read_state(settings.out), step.name: entry}
            _write_state(settings.out, state)
            print(f"{step.name}: {entry['status']} after {entry['seconds']} s {entry.get('error', '')}", flush=True)
            failed |= entry["status"] == "failed"
            if entry["status"] != "partial":
                break
    return int(failed)


def call(command: Sequence[str], settings: Settings, seconds: float, *, log: str) -> str:
    """Run a command, at most `seconds`; its output. Raises StepFailed with the end of it when it does not succeed.

    When the time is up it gets SIGTERM and twenty seconds to save what it has.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / f"{log}.log"
    with open(path, "w+b") as file:
        child = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=environment(settings),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(timeout=_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    text = path.read_bytes().decode("utf-8", "replace")
    path.write_text(text[-_LOG_BYTES:], encoding="utf-8")
    if code != 0:
        why = f"stopped after {seconds:.0f} s" if code is None else f"exit code {code}"
        lines = [line for line in text.strip().splitlines() if line.strip()]
        raise StepFailed(f"{why}: {' | '.join(lines[-3:])[-500:]}")
    return text


def environment(settings: Settings) -> dict[str, str]:
    """The checkout's packages in front of any installed ones, and its plugins findable without being installed."""
    site = settings.scratch / "site"
    for project in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        data = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        info = site / f"{data['name'].replace('-', '_')}-{data['version']}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {data['name']}\nVersion: {data['version']}\n")
        points = data.get("entry-points", {}).get("ilora", {})
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[ilora]\n{lines}")
    sources = sorted(str(path) for path in ROOT.glob("plugins/*/src"))
    paths = [str(ROOT), str(ROOT / "cli"), *sources, str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = {"ILORA_CACHE": os.environ.get("ILORA_CACHE", str(settings.scratch / "cache"))}
    return {**os.environ, **cache, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def read_state(out: Path) -> dict[str, Any]:
    """What earlier calls noted; {} when there were none or the file is damaged."""
    try:
        data = json.loads((out / "state.json").read_text(encoding="utf-8"))
        return data if isinstance(data, dict) else {}
    except (OSError, ValueError):
        return {}


def _run_one(step: Step, settings: Settings, limit: float) -> dict[str, Any]:
    print(f"{step.name}: {step.what} (at most {limit / 60:.1f} min)", flush=True)
    started = time.monotonic()
    entry: dict[str, Any] = {}
    try:
        entry["status"] = "done" if step.run(settings, limit) else "partial"
    except Exception as error:  # whatever it was: the other steps must run
        text = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
        entry |= {"status": "failed", "error": text[:1000]}
    entry["seconds"] = round(time.monotonic() - started, 1)
    entry["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry["python"] = sys.version.split()[0]
    return entry


def _is_done(step: Step, state: dict[str, Any], settings: Settings) -> bool:
    if settings.again:
        return False
    return state.get(step.name, {}).get("status") == "done" or step.done(settings)


def _write_state(out: Path, state: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    draft = out / ".state.json"
    draft.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    draft.replace(out / "state.json")


def _show(step: Step, settings: Settings) -> None:
    print(f"{step.name}: {step.what} (at most {settings.minutes:g} min)")
    for command in step.plan(settings):
        print(f"    {' '.join(command)}")
