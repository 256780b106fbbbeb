"""bench/gpu/run.py: the plan, and the machine that runs steps, remembers them and goes on after a failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "bench" / "gpu"


@pytest.fixture
def gpu(monkeypatch):
    """The modules of bench/gpu, which import each other by their plain names."""
    import importlib

    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("bundle", "machine", "benchmarks", "pretraining", "steps", "run")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = {name: importlib.import_module(name) for name in names}
    yield type("Modules", (), modules)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def settings(gpu, tmp_path):
    return gpu.machine.Settings(out=tmp_path / "out", scratch=tmp_path / "scratch", minutes=0.5)


def step(gpu, name, run, **options):
    return gpu.machine.Step(name, name, run, lambda settings: [["true"]], **options)


def test_dry_run_needs_the_standard_library_only(tmp_path):
    """Python alone, without site packages: torch and typer are not there."""
    command = [sys.executable, "-S", "-I", str(FOLDER / "run.py"), "--dry-run", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("ilora_rooms.pretrain", "--compact", "quickstart --controls", "tests/test_cuda.py", "--size sd15"):
        assert word in done.stdout
    assert (
        "bench/predict_speed.py --size sd15 --precision bf16 --batch 4 --rounds 15 --tiny-vae --device cuda"
        in done.stdout
    )
    assert not (tmp_path / "out").exists()


def test_quoted_modules_and_files_exist(gpu, settings):
    for one in gpu.steps.STEPS:
        for command in one.plan(settings):
            if command[1] == "-m":
                modules = ["ilora_rooms.data", "ilora_cli.main", "pytest"]
                assert command[2] in [*modules, *(each.module for each in gpu.pretraining.PRETRAININGS)]
            else:
                assert (ROOT / command[1]).is_file(), command
            assert all(isinstance(word, str) for word in command)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pretraining_is_called_with_options_it_has(gpu, settings, number, device):
    import dataclasses
    import importlib

    one = gpu.pretraining.PRETRAININGS[number]
    parse = importlib.import_module(one.module).parse
    *render, train, export = gpu.pretraining.plan(one, dataclasses.replace(settings, device=device))
    args = parse(train[3:])
    assert (args.resume, args.device) == (True, device)
    assert args.minutes <= settings.minutes
    assert parse(export[3:]).export == args.out
    if one.after:
        assert args.first_stage == parse(export[3:]).first_stage == settings.scratch / "weights" / "vqgan-first-stage"
    assert len(render) == one.shards
    if render:
        assert str(args.cache) in render[0]
        assert args.shards == 0
    stated = getattr(args, "visits", None) or getattr(args, "steps", None) or sum(count for _, count in args.stages)
    assert stated == one.target


def test_a_failing_step_is_noted_and_stops_no_other(gpu, settings, capsys):
    ran = []

    def breaks(settings, seconds):
        gpu.machine.call(
            [sys.executable, "-c", "import sys; print('no such device'); sys.exit(3)"], settings, 30, log="breaks"
        )

    def works(settings, seconds):
        ran.append(seconds)
        return True

    steps = [step(gpu, "breaks", breaks), step(gpu, "works", works)]
    assert gpu.machine.run_steps(steps, settings) == 1
    state = json.loads((settings.out / "state.json").read_text())
    assert state["breaks"]["status"] == "failed"
    assert "exit code 3: no such device" in state["breaks"]["error"]
    assert state["works"]["status"] == "done"
    assert ran == [30.0]
    gpu.machine.run_steps(steps, settings)
    assert len(ran) == 1, "what is done is not repeated"
    assert "works: done already" in capsys.readouterr().out


def test_a_partial_step_goes_on_until_it_is_done(gpu, settings):
    slices = []

    def partly(settings, seconds):
        slices.append(seconds)
        return len(slices) == 3

    assert gpu.machine.run_steps([step(gpu, "long", partly, least_s=0.0)], settings) == 0
    assert len(slices) == 3


def test_the_call_ends_in_time(gpu, settings, capsys):
    import dataclasses

    short = dataclasses.replace(settings, total_minutes=0.0)
    assert gpu.machine.run_steps([step(gpu, "long", lambda s, t: True)], short) == 0
    assert "no time left" in capsys.readouterr().out
    assert not (settings.out / "state.json").exists()


def test_a_command_that_hangs_is_stopped(gpu, settings):
    with pytest.raises(gpu.machine.StepFailed, match="stopped after 1 s"):
        gpu.machine.call([sys.executable, "-c", "import time; time.sleep(60)"], settings, 1, log="hangs")


def test_plugins_are_found_without_being_installed(gpu, settings):
    code = "import importlib.metadata as m; print(sorted(e.name for e in m.entry_points(group='ilora')))"
    environment = {**gpu.machine.environment(settings)}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(sorted(p.parent.name for p in ROOT.glob("plugins/*/pyproject.toml")))
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_a_bundle_survives_the_way(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.bundle, "PART_BYTES", 20_000)
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "state-1").mkdir(parents=True)
    (source / "state-1" / "00.bin").write_bytes(bytes(range(256)) * 200)
    (source / "note.json").write_text("{}")
    files = [(path, str(path.relative_to(source))) for path in source.rglob("*") if path.is_file()]
    written = gpu.bundle.pack(files, out, "pretrain", {"visits": 7})
    assert len(written) > 3
    assert all(path.parent == out and path.stat().st_size <= 20_000 for path in written)
    assert gpu.bundle.bundle_facts(out, "pretrain") == {"visits": 7}
    assert gpu.bundle.unpack(out, "pretrain", tmp_path / "back") == {"visits": 7}
    assert (tmp_path / "back" / "state-1" / "00.bin").read_bytes() == bytes(range(256)) * 200
    part = out / "pretrain.tar.01"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert gpu.bundle.unpack(out, "pretrain", tmp_path / "damaged") is None


def test_install_takes_what_is_newer(gpu, tmp_path, monkeypatch):
    results, carried = tmp_path / "results", tmp_path / "carried"
    shipped = tmp_path / "package" / "ldm"
    monkeypatch.setattr(gpu.steps, "RESULTS", results)
    monkeypatch.setattr(gpu.pretraining, "WEIGHTS", shipped.parent)
    for folder in (results, shipped, carried, tmp_path / "new"):
        folder.mkdir(parents=True)
    for folder, name, date in (
        (results, "a.json", "2026-02-01"),
        (carried, "result-a.json", "2026-01-01"),
        (carried, "result-b.json", "2026-01-01"),
    ):
        (folder / name).write_text(json.dumps({"date": date}))
    (shipped / "weights.json").write_text('{"visits": 10}')
    (tmp_path / "new" / "weights.json").write_text('{"visits": 20}')
    gpu.bundle.pack([(tmp_path / "new" / "weights.json", "weights.json")], carried, "weights-ldm", {"visits": 20})
    said = list(gpu.steps.install(carried))
    assert said == ["a.json: ours is as new", "b.json: taken over", "weights-ldm: 20 pictures, taken over"]
    assert json.loads((shipped / "weights.json").read_text())["visits"] == 20
    assert list(gpu.steps.install(carried))[-1] == "weights-ldm: 20 pictures, ours saw as many"


def test_a_prior_waits_for_its_finished_first_stage(gpu, settings, tmp_path):
    stage, prior = (one for one in gpu.pretraining.PRETRAININGS if "vqgan" in one.package)
    for visits, fits in ((stage.target - 1, False), (stage.target, True)):
        made = tmp_path / str(visits)
        made.mkdir()
        (made / "weights.json").write_text(json.dumps({"first_stage": {"visits": visits}}))
        gpu.bundle.pack([(made / "weights.json", "weights.json")], settings.out, f"weights-{stage.package}", {})
        if fits:
            gpu.pretraining._require_earlier(prior, settings)
            assert gpu.pretraining.seen(stage, stage.exported(settings)) == stage.target
        else:
            with pytest.raises(gpu.machine.StepFailed, match="finished pretrain-vqgan"):
                gpu.pretraining._require_earlier(prior, settings)


def test_pretraining_is_done_when_a_result_says_so(gpu, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.steps, "RESULTS", tmp_path)
    assert not gpu.steps.STEPS[0].done(settings)
    path = tmp_path / "gpu-pretrain-some-device.json"
    path.write_text(json.dumps({"results": {"visits": 2_999_999}}))
    assert not gpu.steps.STEPS[0].done(settings)
    path.write_text(json.dumps({"results": {"visits": 3_000_000}}))
    assert gpu.steps.STEPS[0].done(settings)


def test_the_experiment_is_recorded_without_single_pictures(gpu):
    from ilora_core.evaluate import evaluate
    from ilora_core.intrinsics import NORMALS
    from ilora_core.testing.scenes import make_scenes

    scenes = make_scenes(16, 16)
    truth = scenes.maps["normals"]
    found = evaluate(zip("ab", truth, truth, scenes.valid, strict=True), NORMALS).to_json()
    figures = gpu.steps.figures_of({"results": {"normals": {"adapter": found}}})["normals"]["adapter"]
    assert figures["protocol"] == "normals-pooled"
    assert figures["mean_deg"]["value"] < 1e-3
    assert "pictures" not in figures


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_benchmarks_are_called_with_options_they_have(gpu, settings, device, capsys, monkeypatch):
    """Each command's own parser says so: it names what it does not know, and stops before it loads a model."""
    import dataclasses
    import runpy

    for one in gpu.benchmarks.BENCHMARKS:
        _, script, *options = one.plan(dataclasses.replace(settings, device=device))[0]
        monkeypatch.setattr(sys, "argv", [script, *options, "--no-such-option"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert capsys.readouterr().err.strip().endswith("unrecognized arguments: --no-such-option"), one.name


def test_a_benchmark_carries_what_it_wrote(gpu, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.steps, "RESULTS", tmp_path)
    (tmp_path / "predict-speed-old.json").write_text("{}")
    os.utime(tmp_path / "predict-speed-old.json", (1, 1))
    ran = []

    def call(command, settings, seconds, *, log):
        ran.append((command[1:], log))
        (tmp_path / "predict-speed-sd15-some-gpu.json").write_text("{}")
        return ""

    monkeypatch.setattr(gpu.steps, "call", call)
    step = next(step for step in gpu.steps.STEPS if step.name == "predict-sd15")
    assert step.run(settings, 100.0)
    assert ran == [(step.plan(settings)[0][1:], "predict-sd15")]
    assert [path.name for path in settings.out.glob("result-*")] == ["result-predict-speed-sd15-some-gpu.json"]


def test_figures_go_through_record(gpu, settings, tmp_path, monkeypatch):
    import importlib

    monkeypatch.delitem(sys.modules, "keep", raising=False)
    keep = importlib.import_module("keep")
    path = keep.keep("gpu-tests", "cpu", "tests", {"settings": {"a": 1}, "results": {"b": 2}}, tmp_path)
    data = json.loads(path.read_text())
    assert data["command"] == "python bench/gpu/run.py --only tests"
    assert data["results"] == {"b": 2}
    assert {"date", "device", "versions"} <= set(data)
