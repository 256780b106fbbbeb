"""`ilora label` with mixes, with a generator's samples, and in several processes; `ilora convert` and `plan` with labelers."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from ilora_cli.main import main
from ilora_core.errors import IloraError
from ilora_core.label_cache import LabelCache, picture_key
from ilora_core.labels import LabelledSource
from ilora_core.maps_io import write_picture
from ilora_core.plan import Plan
from ilora_core.samples import SampledSource
from ilora_core.sources import FolderSource

SAMPLES = ("--generator", "toy-gan", "--labeler", "lean-a+lean-b", "--device", "cpu", "--batch", "1", "--json")


def ilora(capsys, *arguments):
    """Exit code, and the JSON on the standard output or else the error."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else err


def test_label_makes_what_fit_reads(toys, tmp_path, capsys):
    code, told = ilora(capsys, "label", *SAMPLES, "--samples", 6, "--seed", 5, "--out", tmp_path / "pairs")
    assert code == 0, told
    assert (told["labelled"], told["reused_by_labeler"]) == (6, {"lean-a": 0, "lean-b": 0, "mix": 0})
    assert (tmp_path / "pairs/pictures/sample-5-000005.png").is_file()
    assert (tmp_path / "pairs/disagreement-normals/sample-5-000005.exr").is_file()
    provenance = json.loads((tmp_path / "pairs/provenance.json").read_text())
    assert provenance["drawn_by"] == {"generator": "toy-gan", "licence": "CC0-1.0", "seed": 5, "settings": {}}
    assert [part["licence"] for part in provenance["labelers"]] == ["licence of a", "licence of b"]
    toys.LOG.clear()
    fit = (
        "fit",
        "--generator",
        "toy-gan",
        "--samples",
        6,
        "--seed",
        5,
        "--steps",
        2,
        "--validation",
        2,
        "--device",
        "cpu",
    )
    code, told = ilora(capsys, *fit, "--labeler", "lean-a+lean-b", "--out", tmp_path / "run", "--json")
    assert code == 0, told
    assert sorted(told["intrinsics"]) == ["depth", "normals"]
    assert not [what for _, what in toys.LOG if what.startswith("labels")]
    code, told = ilora(capsys, *fit, "--labeler", "lean-a", "--out", tmp_path / "other", "--json")
    assert code == 0, told
    assert not [what for _, what in toys.LOG if what.startswith("labels")]


def test_disagreements_are_not_learnt_by_themselves(toys, tmp_path, capsys):
    written = ("--out", tmp_path / "pairs", "--set", "format.disagreement-depth=npy")
    code, told = ilora(capsys, "label", *SAMPLES, "--samples", 4, *written)
    assert code == 0, told
    assert (tmp_path / "pairs/disagreement-depth/sample-0-000000.npy").is_file()
    from ilora_core.folders import map_folders

    assert (tmp_path / "pairs/disagreement-depth").is_dir()
    assert map_folders(tmp_path / "pairs") == ["depth", "normals"]


def test_the_generator_is_gone_when_labelling_starts(toys, capsys):
    assert ilora(capsys, "label", *SAMPLES, "--samples", 3)[0] == 0
    drawn = max(place for place, entry in enumerate(toys.LOG) if entry[0] == "gan")
    assert toys.LOG[drawn] == ("gan", "cpu")
    assert min(place for place, (_, what) in enumerate(toys.LOG) if what.startswith("labels")) > drawn


def test_samples_survive_a_png(toys, tmp_path):
    source = SampledSource(toys.Gan(), 3, seed=2)
    every = torch.arange(256).view(1, 16, 16).expand(3, -1, -1) / 255
    write_picture(tmp_path / "png" / "z", every, format="png8")
    for batch in source:
        for key, picture in zip(batch.keys, batch.pictures, strict=True):
            write_picture(tmp_path / "png" / key, picture, format="png8")
    read = {
        key: p for batch in FolderSource(tmp_path / "png") for key, p in zip(batch.keys, batch.pictures, strict=True)
    }
    assert torch.equal(read.pop("z"), every)
    for key, picture in zip(source.keys, next(iter(source)).pictures, strict=True):
        assert torch.equal(read[key], picture)


def test_two_processes_go_on_where_one_stopped_and_equal_one(toys, tmp_path, capsys):
    code, told = ilora(capsys, "label", *SAMPLES, "--samples", 2, "--cache", tmp_path / "two")
    assert code == 0, told
    spread = (*SAMPLES, "--samples", 5, "--processes", 2)
    code, two = ilora(capsys, "label", *spread, "--cache", tmp_path / "two", "--out", tmp_path / "pairs")
    assert code == 0, two
    assert two["reused_by_labeler"] == {"lean-a": 2, "lean-b": 2, "mix": 2}
    assert (two["pictures"], two["labelled"]) == (5, 3)
    assert len(list((tmp_path / "pairs/normals").iterdir())) == 5
    _, one = ilora(capsys, "label", *SAMPLES, "--samples", 5, "--cache", tmp_path / "one")
    source = SampledSource(toys.Gan(), 5)
    caches = [LabelCache.at(tmp_path / name / told["cache"].rpartition("/")[2]) for name in ("one", "two")]
    assert [len(cache) for cache in caches] == [5, 5]
    assert one["intrinsics"] == two["intrinsics"]
    for left, right in zip(*(LabelledSource(source, cache) for cache in caches), strict=True):
        for name, (value, valid) in left.maps.items():
            assert torch.equal(value, right.maps[name][0])
            assert torch.equal(valid, right.maps[name][1])


class Inline:
    """Runs what a pool of processes would, here and at once; `fails` stands for a process that died."""

    fails = False

    def __init__(self, processes, context, initializer, initargs):
        initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except IloraError as error:
            future.set_exception(BrokenProcessPool() if self.fails else error)
        return future


@pytest.mark.parametrize(("fails", "code", "words"), [(False, 2, "typo"), (True, 1, "fewer --processes")])
def test_an_error_in_a_process_is_one_message(toys, capsys, monkeypatch, fails, code, words):
    monkeypatch.setattr("ilora_cli.label_work.ProcessPoolExecutor", Inline)
    monkeypatch.setattr(Inline, "fails", fails)
    wrong = ("--samples", 2, "--processes", 2, "--set", "labeler.lean_b.typo=1")
    found, err = ilora(capsys, "label", *SAMPLES, *wrong)
    assert (found, words in err) == (code, True), err
    assert "Traceback" not in err


def test_pictures_of_a_folder_in_shares(toys, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ilora_cli.label_work.ProcessPoolExecutor", Inline)
    for i in range(5):
        write_picture(tmp_path / f"photos/{i}", torch.full((3, 12 + i, 10), 0.1 + 0.2 * i), format="png8")
    code, told = ilora(
        capsys, "label", tmp_path / "photos", "--labeler", "lean-a", "--processes", 9, "--device", "cpu", "--json"
    )
    assert code == 0, told
    assert (told["pictures"], told["labelled"]) == (5, 5)
    assert len(list((tmp_path / "cache/labels/lean-a@1+aaaaaaaaaaaa").glob("shard-*"))) == 5  # one each


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--generator", "toy-gan"), "go together"),
        (("--samples", 3), "exactly one"),
        (("--generator", "toy-gan", "--samples", 3, "--size", 8), "leave --size out"),
        (("--generator", "toy-gan", "--samples", 3, "--source", "x"), "exactly one"),
        (("--generator", "toy-gan", "--samples", 3, "--set", "labeler.tilt=1"), "labeler.mix"),
        (("--generator", "toy-gan", "--samples", 3, "--set", "generator.tilt=1"), "tilt"),
        (("--generator", "toy-gan", "--samples", 3, "--set", "format.normals=bmp"), "--set format.normals"),
    ],
)
def test_mistakes(toys, capsys, more, words):
    code, err = ilora(capsys, "label", "--labeler", "lean-a+lean-b", "--device", "cpu", *more)
    assert code == 2
    assert words in err
    assert not [what for _, what in toys.LOG if what.startswith("labels")]


def test_launched_processes_start_no_others(toys, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, err = ilora(capsys, "label", *SAMPLES, "--samples", 2, "--processes", 2)
    assert (code, "not both" in err) == (2, True)


def test_accelerate_launches_the_same_labels(tmp_path):
    """Two processes of `accelerate launch` fill one cache as one process does, and one of them reports and exports."""
    for i in range(5):
        write_picture(tmp_path / f"photos/{i}", torch.full((3, 12, 10), 0.1 + 0.2 * i), format="png8")
    label = ["-m", "ilora_cli.main", "label", str(tmp_path / "photos"), "--labeler", "sqrt-split+retinex"]
    label += ["--device", "cpu", "--json", "--cache"]
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    told = []
    for name, before in (("one", []), ("two", launcher)):
        command = [sys.executable, *before, *label, str(tmp_path / name), "--out", str(tmp_path / f"pairs-{name}")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    for each in told:
        assert (each["labelled"], each["reused_by_labeler"]) == (5, {"sqrt-split": 0, "retinex": 0, "mix": 0})
    one, two = (LabelCache.at(Path(each["cache"])) for each in told)
    assert len(one) == len(two) == 5
    for picture in FolderSource([str(tmp_path / "photos")]):
        for key in map(picture_key, picture.pictures):
            for name, (value, valid) in one.get(key).items():
                assert torch.equal(value, two.get(key)[name][0])
                assert torch.equal(valid, two.get(key)[name][1])
    assert (tmp_path / "pairs-two" / "provenance.json").is_file()


def test_convert_for_a_labeler(toys, tmp_path, capsys):
    (tmp_path / "weights.ckpt").write_text("abc")
    code, told = ilora(capsys, "convert", tmp_path / "weights.ckpt", tmp_path / "out", "--labeler", "lean-a", "--json")
    assert code == 0, told
    assert (told["labeler"], told["licence"], told["letters"]) == ("lean-a", "licence of a", 3)
    assert (tmp_path / "out/weights.txt").read_text() == "ABC"
    for more, words in (
        ((), "--labeler lean-a"),
        (("--labeler", "lean-b"), "nothing to convert"),
        (("--labeler", "lean-a", "--generator", "toy-gan"), "say whose checkpoint"),
    ):
        code, err = ilora(capsys, "convert", tmp_path / "weights.ckpt", tmp_path / "new", *more)
        assert (code, words in err) == (2, True), err


def test_plan_counts_the_labels(toys, capsys, monkeypatch):
    empty: dict = {}
    made = Plan("toy-gan", 64, 4, 1, 9, "fp32", 10, empty, empty, empty, empty)
    monkeypatch.setattr("ilora_core.plan.make_plan", lambda *_, **__: made)
    plan = ("plan", "--generator", "toy-gan", "--json")
    code, told = ilora(capsys, *plan, "--labeler", "lean-a+lean-b")
    assert code == 0, told
    # Normals 3 and depth 1 channel in float32 with a mask each: once per labeler and once mixed, with two disagreements.
    assert told["labels"]["bytes"] == 10 * 64**2 * (3 * (13 + 5) + 2 * 5)
    assert told["labels"]["licences"] == {"lean-a": "licence of a", "lean-b": "licence of b"}
    assert "labels" not in ilora(capsys, *plan)[1]
    assert ilora(capsys, *plan, "--labeler", "lean-a+lean-c")[0] == 2
