"""Fitting in one process: caches, resume to the bit, several intrinsics, faults that stop it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, merge_settings
from ilora_core.data import split_keys
from ilora_core.errors import ArtefactError, ConfigError, DataError, NonFiniteLoss
from ilora_core.fit import Fitted, Step, Validated, fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.plugins import load_plugins

TRAIN = {"steps": 7, "batch": 3, "lr": 1e-2, "keep_every": 3}


@pytest.fixture
def config(tiny_model, tiny_pairs) -> FitConfig:
    settings = {
        "generator": {"weights": str(tiny_model), "resolution": 32},
        "train": TRAIN,
        "runtime": {"device": "cpu"},
    }
    return FitConfig("sd", (NORMALS,), pairs=str(tiny_pairs), validation=2, settings=settings)


def run(config, out, **options):
    return list(fit(config, out, **options))


def adapter(out, name="normals"):
    return load_file(out / name / "adapter_model.safetensors")


def assert_same_run(one, other, name="normals"):
    left, right = adapter(one, name), adapter(other, name)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert (one / name / "metrics.jsonl").read_text() == (other / name / "metrics.jsonl").read_text()


def test_a_fit_learns_and_leaves_an_artefact(config, tmp_path):
    settings = {**config.settings, "train": {**TRAIN, "steps": 40, "keep_every": 20}}
    events = run(replace(config, settings=settings), tmp_path / "out")
    losses = [float(event.loss) for event in events if isinstance(event, Step)]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    (done,) = [event for event in events if isinstance(event, Fitted)]
    best = min((event for event in events if isinstance(event, Validated)), key=lambda event: event.value)
    assert done.best == best
    (artefact,) = find_artefacts(tmp_path / "out")
    assert artefact.intrinsic == NORMALS
    assert artefact.record["best"]["step"] == best.step
    assert artefact.record["data"] == artefact.record["data"] | {"train": 8, "validation": 2}
    kept = load_file(done.folder / "checkpoints" / f"step_{best.step:06d}" / "adapter_model.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in artefact.tensors().items())
    assert not (done.folder / "state.pt").exists()


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_stopped_run_resumes_to_the_bit(config, tmp_path, stop):
    run(config, tmp_path / "whole")
    events = fit(config, tmp_path / "parts")
    for event in events:
        if isinstance(event, Step) and event.number == stop:
            events.close()
    assert not (tmp_path / "parts" / "normals" / "run.json").exists()
    resumed = run(config, tmp_path / "parts", resume=True)
    assert next(event.number for event in resumed if isinstance(event, Step)) == stop + 1
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_target_noise_follows_the_sample_and_not_the_process(config, tmp_path):
    # The tiny VAE has a wide posterior, so the runs above are noisy ones; without the noise the result differs.
    run(config, tmp_path / "noisy")
    quiet = {**config.settings, "generator": {**config.settings["generator"], "noisy_target": False}}
    run(replace(config, settings=quiet), tmp_path / "quiet")
    one, other = adapter(tmp_path / "noisy"), adapter(tmp_path / "quiet")
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_two_intrinsics_share_a_run_and_equal_two_runs(config, tmp_path):
    both = replace(config, intrinsics=(NORMALS, DEPTH))
    run(both, tmp_path / "both")
    run(replace(config, intrinsics=(DEPTH,)), tmp_path / "depth")
    assert_same_run(tmp_path / "both", tmp_path / "depth", "depth")
    assert [a.intrinsic.name for a in find_artefacts(tmp_path / "both")] == ["depth", "normals"]


def test_resuming_skips_what_is_done(config, tmp_path):
    both = replace(config, intrinsics=(NORMALS, DEPTH))
    events = fit(both, tmp_path / "out")
    for event in events:
        if isinstance(event, Fitted):
            events.close()
    before = adapter(tmp_path / "out")
    resumed = run(both, tmp_path / "out", resume=True)
    assert [event.intrinsic for event in resumed if isinstance(event, Fitted)] == ["depth"]
    assert all(torch.equal(before[key], value) for key, value in adapter(tmp_path / "out").items())


def test_accumulation_equals_a_larger_batch(config, tmp_path):
    def steps(name, **train):
        settings = {**config.settings, "train": {**TRAIN, "lr": 1e-3, **train}}
        run(replace(config, settings=settings), tmp_path / name)
        return adapter(tmp_path / name)

    whole, halves = steps("whole", batch=4), steps("halves", batch=2, accumulate=2)
    for key, value in whole.items():
        torch.testing.assert_close(halves[key], value, atol=1e-5, rtol=0)


def test_checkpointing_changes_nothing(config, tmp_path):
    run(config, tmp_path / "plain")
    settings = {**config.settings, "runtime": {"device": "cpu", "checkpointing": True}}
    run(replace(config, settings=settings), tmp_path / "checkpointed")
    for key, value in adapter(tmp_path / "plain").items():
        torch.testing.assert_close(adapter(tmp_path / "checkpointed")[key], value, atol=1e-5, rtol=0)


def test_bf16_runs(config, tmp_path):
    settings = {**config.settings, "runtime": {"device": "cpu", "precision": "bf16"}}
    run(replace(config, settings=settings), tmp_path / "out")
    assert all(value.dtype == torch.float32 for value in adapter(tmp_path / "out").values())


def test_full_fine_tuning_goes_the_same_way(config, tmp_path):
    from ilora_core.predict import Predictor

    run(replace(config, adapter="full", intrinsics=(NORMALS, DEPTH)), tmp_path / "out")
    drawer = Predictor(find_artefacts(tmp_path / "out"))
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    both = drawer(picture)
    alone = Predictor(find_artefacts(tmp_path / "out" / "normals"))(picture)
    torch.testing.assert_close(both["normals"], alone["normals"])


def test_a_loss_that_is_not_finite_names_the_pictures(config, tmp_path, monkeypatch):
    from ilora_sd.model import StableDiffusion

    healthy = StableDiffusion.loss

    def loss(self, codes, intrinsic):
        losses = healthy(self, codes, intrinsic)
        return torch.where(codes["seed"] == codes["seed"].max(), losses * math.nan, losses)

    monkeypatch.setattr(StableDiffusion, "loss", loss)
    with pytest.raises(NonFiniteLoss, match=r"step 1 for 00\d\. Check those label maps") as caught:
        run(config, tmp_path / "out")
    assert len(caught.value.keys) == 1
    assert not (tmp_path / "out" / "normals" / "state.pt").exists()


def test_an_occupied_folder_is_refused_before_anything_loads(config, tmp_path):
    run(config, tmp_path / "out")
    with pytest.raises(DataError, match="--resume"):
        run(replace(config, generator="nobody"), tmp_path / "out")


def test_resuming_another_run_is_refused(config, tmp_path):
    run(config, tmp_path / "out")
    with pytest.raises(ConfigError, match="validation = 2, but you ask for 3"):
        run(replace(config, validation=3), tmp_path / "out", resume=True)


def test_a_damaged_resume_point_says_so(config, tmp_path):
    events = fit(config, tmp_path / "out")
    for event in events:
        if isinstance(event, Step) and event.number == 4:
            events.close()
    state = tmp_path / "out" / "normals" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ArtefactError, match="Delete it"):
        run(config, tmp_path / "out", resume=True)


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_finished(config, tmp_path, monkeypatch):
    import errno

    import ilora_core.run as module

    saves = []

    def full(state, file):
        saves.append(1)
        if len(saves) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        torch_save(state, file)

    torch_save = torch.save
    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(DataError, match=r"cannot write .*state\.pt: No space left on device"):
        run(config, tmp_path / "out")
    monkeypatch.undo()
    leftovers = [path.name for path in (tmp_path / "out" / "normals").iterdir()]
    assert not [name for name in leftovers if name.endswith(".tmp")]
    resumed = run(config, tmp_path / "out", resume=True)
    assert next(event.number for event in resumed if isinstance(event, Step)) == TRAIN["keep_every"] + 1
    run(config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "out")


def test_run_json_recreates_the_fit(config, tmp_path):
    run(config, tmp_path / "first")
    recorded = json.loads((tmp_path / "first" / "normals" / "run.json").read_text())["config"]
    run(FitConfig.from_json(recorded), tmp_path / "second")
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_missing_maps_are_named(config, tmp_path):
    from ilora_core.intrinsics import ALBEDO

    with pytest.raises(DataError, match="albedo"):
        run(replace(config, intrinsics=(ALBEDO,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_asked_for_counts_beside_what_the_source_says():
    from ilora_core.data import trained_as
    from ilora_core.sources import TensorSource

    disparity = replace(DEPTH, kind="affine_disparity", unit="relative")
    maps = {"depth": (torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))}
    source = TensorSource(torch.zeros(1, 3, 4, 4), maps, intrinsics=(disparity,))
    assert trained_as(DEPTH, source) == disparity
    assert trained_as(replace(DEPTH, loss="l1"), source) == replace(disparity, loss="l1")
    assert trained_as(replace(DEPTH, rule="paper"), source) == replace(disparity, rule="paper")


def test_held_out_keys():
    keys = [f"{i:04d}" for i in range(1000)]
    assert len(split_keys(keys, 0.1, seed=0)) == 64
    assert len(split_keys(keys[:50], 0.1, seed=0)) == 5
    assert len(split_keys(keys[:3], 0.1, seed=0)) == 1
    assert len(split_keys(keys, 200, seed=0)) == 200
    assert split_keys(keys, 0, seed=0) == frozenset()
    assert split_keys(keys, 30, seed=0) != split_keys(keys, 30, seed=1)
    more = split_keys([*keys, "new"], 30, seed=0)
    assert len(more & split_keys(keys, 30, seed=0)) >= 29
    with pytest.raises(ConfigError, match="none would be left"):
        split_keys(keys[:5], 5, seed=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": {"step": 3}}, r"no setting train\.step\. Did you mean train\.steps"),
        ({"train": {"steps": 0}}, "at least 1"),
        ({"train": {"lr": "fast"}}, r"train\.lr must be float"),
        ({"train": {"schedule": "zigzag"}}, "constant, linear, cosine"),
        ({"trian": {"steps": 3}}, "no settings group 'trian'"),
        ({"runtime": {"precision": "int4"}}, "fp32, bf16, fp16"),
    ],
)
def test_settings_are_checked_before_anything_runs(given, message):
    with pytest.raises(ConfigError, match=message):
        merge_settings("sd", "none", given)


def test_presets_are_overlaid_by_the_user():
    stated = merge_settings("sd15", "", {})
    assert stated["train"]["lr"] == 1e-4
    assert stated["adapter"]["rank"] == 8
    assert merge_settings("sd15", "", {"train": {"lr": 3e-4}})["train"]["lr"] == 3e-4
    assert merge_settings("sd15", "none", {}) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": ""}, "exactly one of"),
        ({"samples": 5}, "exactly one of"),
        ({"pairs": "", "samples": 5}, "say who draws them"),
        ({"labeler": "zoedepth"}, "brings its own maps"),
        ({"intrinsics": ()}, "--intrinsic"),
    ],
)
def test_contradictions_are_refused(config, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **change)


def test_a_labeler_teaches_a_generators_own_samples(config, tmp_path, monkeypatch):
    from ilora_core.cards import Card
    from ilora_core.plugins import Plugin, PluginHost

    monkeypatch.setenv("ILORA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "toy_labeler.py").write_text(
        "import torch\n"
        "from ilora_core.intrinsics import DEPTH\n"
        "class Toy:\n"
        "    intrinsics = (DEPTH,)\n"
        "    version = '1'\n"
        "    weights_hash = 'none'\n"
        "    def label(self, pictures):\n"
        "        value = 1 + pictures.mean(1, keepdim=True)\n"
        "        return {'depth': (value, torch.ones_like(value, dtype=torch.bool))}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    card = Card("toy", "", "MIT", "toy_labeler:Toy", "toy_labeler:Toy", intrinsics=("depth",))
    host = PluginHost([*load_plugins().plugins, Plugin("toys", "0", "toy_labeler", {"labelers": (card,)})])
    own = replace(config, pairs="", samples=6, labeler="toy", intrinsics=(DEPTH,))
    events = run(own, tmp_path / "out", host=host)
    assert isinstance(events[-1], Fitted)
    record = json.loads((tmp_path / "out" / "depth" / "run.json").read_text())
    assert record["licences"]["labeler toy"] == "MIT"
