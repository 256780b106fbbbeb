"""`ilora fit --labeler zoedepth` from the command line, offline: tiny weights of both networks as a user would name them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

SIDE, STEPS = 32, 3


@pytest.fixture(scope="module")
def tiny_zoedepth(tmp_path_factory):
    """A folder as Intel/zoedepth-nyu-kitti is one, of random weights that see 64×96 pixels."""
    from ilora_zoedepth.labeler import tiny

    labeler, folder = tiny(), tmp_path_factory.mktemp("weights") / "zoedepth"
    labeler.net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(labeler.processing.to_json()))
    return folder


@pytest.fixture(scope="module")
def fit(tiny_model, tiny_pairs, tiny_zoedepth, tmp_path_factory):
    """Runs a fit into a folder, all with one cache of labels; gives the finished process and that cache."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ILORA_CACHE": str(cache)}

    def run(out):
        command = [
            *(sys.executable, "-m", "ilora_cli.main", "fit", "--generator", "sd15", "--preset", "none"),
            *("--set", f"generator.weights={tiny_model}", "--set", f"generator.resolution={SIDE}"),
            *("--pictures", str(tiny_pairs / "pictures"), "--labeler", "zoedepth"),
            *("--set", f"labeler.weights={tiny_zoedepth}"),
            *("--steps", str(STEPS), "--batch", "2", "--validation", "2", "--device", "cpu", "--out", str(out)),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done, cache / "labels"

    return run


@pytest.fixture(scope="module")
def first(fit, tmp_path_factory):
    """The first fit: (its folder, what it printed, state of the label cache after it)."""
    out = tmp_path_factory.mktemp("runs") / "first"
    done, labels = fit(out)
    return out, done, shards(labels)


def shards(labels):
    """Every file of labels, with the time it was written."""
    return {path: path.stat().st_mtime_ns for path in labels.rglob("*.safetensors")}


def test_it_trains_an_adapter_on_depth_without_being_told_so(first):
    out, _, _ = first
    tensors = load_file(out / "depth" / "adapter_model.safetensors")
    assert tensors
    assert any(bool(value.any()) for name, value in tensors.items() if "lora_B" in name), "nothing was learnt"
    lines = [json.loads(line) for line in (out / "depth" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == STEPS


def test_the_record_names_the_labeler_and_its_licence(first, tiny_zoedepth):
    out, done, _ = first
    for record in (json.loads((out / name).read_text()) for name in ("run.json", "depth/run.json")):
        assert record["config"]["labeler"] == "zoedepth"
        assert record["config"]["settings"]["labeler"] == {"weights": str(tiny_zoedepth)}
        assert record["licences"]["labeler zoedepth"] == "MIT"
    assert "labeler zoedepth: MIT" in done.stderr


def test_labels_are_metres_and_what_the_adapter_draws_is_up_to_scale_and_shift(first):
    out, _, labels = first
    made_by = json.loads((next(iter(labels)).parent / "provenance.json").read_text())
    assert made_by["labeler"] == "zoedepth"
    assert [(i["name"], i["kind"]) for i in made_by["intrinsics"]] == [("depth", "metric")]
    intrinsic = json.loads((out / "depth" / "run.json").read_text())["intrinsic"]
    assert (intrinsic["name"], intrinsic["kind"]) == ("depth", "affine_depth")


def test_a_second_fit_takes_the_labels_of_the_first(first, fit, tmp_path):
    out, _, before = first
    assert len(before) == 1
    _, labels = fit(tmp_path / "second")
    assert shards(labels) == before
    one, other = (load_file(place / "depth" / "adapter_model.safetensors") for place in (out, tmp_path / "second"))
    assert all((one[name] == other[name]).all() for name in one)
