"""`ilora sweep` as processes of their own: killed and started again, wrong input, and spread by Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ilora_cli.main import main
from ilora_core.errors import MissingDependency
from ilora_core.sweep import Axis, Failed, Finished, Sweep, Swept, run_sweep
from ilora_core.sweep.on_ray import require_ray

# Runs `ilora` and kills itself, without a chance to clean up, in the middle of the third cell's fit.
SELF_KILLER = textwrap.dedent(
    """
    import os, re, signal, sys
    finished = logged = 0
    def watch(event, arguments):
        global finished, logged
        if event == "os.rename" and re.search(r"/cells/[0-9a-f]{64}$", str(arguments[1])):
            finished += 1
        if event == "open" and str(arguments[0]).endswith("metrics.jsonl") and finished == 2:
            logged += 1
            if logged == 8:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    from ilora_cli.main import main
    sys.exit(main(sys.argv[1:]))
    """
)
FIT = (
    *("--generator", "toy", "--source", "toys", "--intrinsic", "normals", "--validation", "2", "--device", "cpu"),
    *("--steps", "8", "--lr", "1e-2", "--set", "train.keep_every=2", "--test", "toys:test:6"),
)
VARIED = ("--vary", "rank=1,2", "--vary", "seed=0,1")


@pytest.fixture
def ilora(sweep_toys_folder, sweep_toys):
    def call(*arguments, killer=False):
        start = ["-c", SELF_KILLER] if killer else ["-m", "ilora_cli.main"]
        path = os.pathsep.join([str(sweep_toys_folder), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *start, "sweep", *FIT, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    return call


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def steps(log) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def unbroken(out):
    axes = (Axis.of("adapter.rank", (1, 2)), Axis.of("train.seed", (0, 1)))
    base = {"generator": "toy", "source": "toys", "intrinsic": "normals", "validation": 2.0, "train.steps": 8}
    base |= {"train.lr": 1e-2, "train.keep_every": 2, "runtime.device": "cpu"}
    return Sweep(base, axes, "toys:test:6"), out


def figures(results):
    return {cell["hash"]: cell["evaluations"] for cell in results["cells"]}


def test_killed_and_started_again_it_computes_only_what_is_missing(ilora, sweep_toys, tmp_path):
    killed = ilora(*VARIED, "--out", str(tmp_path / "out"), killer=True)
    assert killed.returncode == -signal.SIGKILL
    assert "4 cells; 4 to do." in killed.stderr
    cells = [path for path in (tmp_path / "out" / "cells").iterdir() if not path.name.startswith(".")]
    assert len(cells) == 2
    (half,) = (tmp_path / "out" / "cells").glob(".*.part")
    before, done = {cell: files(cell) for cell in cells}, steps(sweep_toys)
    assert 2 * 8 < done < 3 * 8
    again = ilora(*VARIED, "--out", str(tmp_path / "out"), "--json")
    assert again.returncode == 0, again.stderr
    assert {cell: files(cell) for cell in cells} == before
    left = steps(sweep_toys) - done
    assert 8 < left < 2 * 8  # the half cell went on at its last resume point
    assert not half.exists()
    *_, end = run_sweep(*unbroken(tmp_path / "whole"))
    assert figures(json.loads(again.stdout)) == figures(end.results)


def test_a_sweep_shows_its_size_its_results_its_table_and_what_failed(ilora, tmp_path):
    trap = tmp_path / "trap"
    trap.touch()
    traps = ("--vary", f"generator.trap=none:='',set:='{trap}'", "--vary", "method=adapter,mean-map")
    done = ilora("--vary", "seed=0,1", *traps, "--out", str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("train.seed 2 × generator.trap 2 × method 2: 8 cells; 8 to do.\n")
    assert "[5/8] train.seed=1, generator.trap=none, method=adapter: normals mean error (°) ↓" in done.stderr
    assert f"[7/8] train.seed=1, generator.trap=set, method=adapter: failed: fell into {trap}" in done.stderr
    assert "4 cells failed; the same command tries them again." in done.stderr
    assert "report: " in done.stderr
    assert "Traceback" not in done.stderr
    shown = " ".join(done.stdout.split())
    assert "normals by normals-pooled on 6 pictures (toys:test:6); mean over seeds" in shown
    assert "set mean-map 0 of 2 failed" in shown


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("train.stpes=1,2", "Did you mean train.steps"),
        ("adapter.rank=1,one", "rank is int, not 'one'"),
        ("generator.trap=a,a", "has 'a' twice"),
        ("labeler=judge,nobody", "no labeler is called 'nobody'"),
    ],
)
def test_a_bad_axis_is_one_message_and_leaves_nothing(sweep_toys, tmp_path, capsys, axis, words):
    assert main(["sweep", *FIT, "--vary", axis, "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert words in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_the_cells(sweep_toys, tmp_path, capsys):
    assert main(["sweep", *FIT, *VARIED, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "adapter.rank 2 × train.seed 2: 4 cells"
    assert len(shown) == 5
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_how_to_install_it(sweep_toys, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", *FIT, *VARIED, "--on", "ray", "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'ilora[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of this machine alone, two workers wide."""
    try:
        ray = require_ray()
    except MissingDependency as absent:
        pytest.skip(str(absent))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def test_ray_gives_the_same_figures(cluster, sweep_toys, tmp_path):
    *_, in_turn = run_sweep(*unbroken(tmp_path / "sequential"))
    events = list(run_sweep(*unbroken(tmp_path / "ray"), on="ray"))
    assert sum(isinstance(event, Finished) for event in events) == 4
    assert figures(events[-1].results) == figures(in_turn.results)
    again = list(run_sweep(*unbroken(tmp_path / "ray"), on="ray"))
    assert [type(event) for event in again[1:]] == [Swept]


def test_ray_notes_what_fails_and_goes_on(cluster, sweep_toys, tmp_path):
    sweep, out = unbroken(tmp_path / "ray")
    traps = Axis.of("generator.trap", ("", str(tmp_path)))
    events = list(run_sweep(Sweep(sweep.base, (traps,), sweep.test), out, on="ray"))
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.message == f"fell into {tmp_path}"
    assert [cell["status"] for cell in events[-1].results["cells"]] == ["finished", "failed"]
