"""`ilora fit` as a process of its own: killed at any moment, interrupted, and spread over two processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

# Runs `ilora` and kills itself, without a chance to clean up, at the n-th file operation inside the run's folder.
SELF_KILLER = textwrap.dedent(
    """
    import os, signal, sys
    left = int(sys.argv.pop(1))
    folder = sys.argv[sys.argv.index("--out") + 1]
    def watch(event, arguments):
        global left
        if event in ("open", "os.rename", "os.mkdir", "os.remove") and folder in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    from ilora_cli.main import main
    sys.exit(main(sys.argv[1:]))
    """
)
SETTINGS = ("--intrinsic", "normals", "--steps", "8", "--batch", "2", "--lr", "1e-2", "--set", "train.keep_every=2")


@pytest.fixture(scope="module")
def fit_command(helpers, tiny_model, tiny_pairs):
    def command(out, *more):
        return helpers.fit_command(tiny_model, tiny_pairs, out, *SETTINGS, *more)

    return command


def run(command, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def unbroken(fit_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    done = run(fit_command(out))
    assert done.returncode == 0, done.stderr
    return out


def adapter(out):
    return load_file(out / "normals" / "adapter_model.safetensors")


def assert_same(one, other):
    left, right = adapter(one), adapter(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_killed_at_three_random_points_and_resumed_it_equals_the_unbroken_run(fit_command, unbroken, tmp_path):
    out = tmp_path / "out"
    # An unbroken run of these settings does about 90 such operations; a kill that is never reached ends the run well.
    points = random.Random(4711)
    resume: list[str] = []
    kills = 0
    for _ in range(3):
        command = fit_command(out, *resume)
        killed = run([sys.executable, "-c", SELF_KILLER, str(points.randint(4, 30)), *command[3:]])
        kills += killed.returncode == -signal.SIGKILL
        resume = ["--resume"]
    assert kills == 3
    done = run(fit_command(out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert_same(unbroken, out)
    assert (out / "normals" / "metrics.jsonl").read_text() == (unbroken / "normals" / "metrics.jsonl").read_text()


def test_an_interrupt_saves_and_exits_with_130(fit_command, unbroken, tmp_path):
    out = tmp_path / "out"
    interrupter = textwrap.dedent(
        """
        import os, signal, sys
        folder = sys.argv[sys.argv.index("--out") + 1]
        def watch(event, arguments):
            if event == "open" and "metrics.jsonl" in str(arguments[0]) and folder in str(arguments[0]):
                os.kill(os.getpid(), signal.SIGINT)
        sys.addaudithook(watch)
        from ilora_cli.main import main
        sys.exit(main(sys.argv[1:]))
        """
    )
    stopped = run([sys.executable, "-c", interrupter, *fit_command(out)[3:]])
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (out / "normals" / "state.pt").is_file()
    done = run(fit_command(out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert_same(unbroken, out)


def test_two_processes_equal_one_with_twice_the_batch(helpers, tiny_model, tiny_pairs, tmp_path):
    common = ("--intrinsic", "normals", "--steps", "5", "--lr", "1e-3", "--validation", "2")
    alone = helpers.fit_command(tiny_model, tiny_pairs, tmp_path / "one", *common, "--batch", "4")
    done = run(alone)
    assert done.returncode == 0, done.stderr
    two = helpers.fit_command(tiny_model, tiny_pairs, tmp_path / "two", *common, "--batch", "2")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    spread = run([*launcher, "-m", "ilora_cli.main", *two[3:]])
    assert spread.returncode == 0, spread.stderr
    one, other = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, atol=1e-5, rtol=0)


def test_bad_input_is_one_message_and_leaves_nothing(fit_command, tmp_path):
    out = tmp_path / "out"
    for more, code, words in (
        (("--set", "train.setps=3"), 2, "train.steps"),
        (("--set", "generator.weigths=x"), 2, "weights"),
        (("--intrinsic", "nromals"), 2, "nromals"),
        (("--generator", "sd51"), 2, "sd15"),
        (("--pairs", str(tmp_path / "nowhere")), 2, "nowhere"),
        (("--set", f"generator.weights={tmp_path}"), 1, "not a complete Stable Diffusion folder"),
    ):
        failed = run(fit_command(out, *more))
        assert failed.returncode == code, failed.stderr
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr
        assert not out.exists()
