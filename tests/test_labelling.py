"""Labelers by name: mixes, their caches and provenance, who is on the device when, and weights from disagreement."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ilora_core.config import FitConfig, TrainConfig
from ilora_core.data import open_source, prepare
from ilora_core.errors import ConfigError, DataError
from ilora_core.fit import fit
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS
from ilora_core.labelling import labeler_names, open_labelers, own_settings, run_labelers, share_of
from ilora_core.labels import LabelledSource, export_labels
from ilora_core.mixes import mix_labels, pixel_weights
from ilora_core.plugins import load_plugins
from ilora_core.sources import PairsSource, TensorSource

LEAN_B = {"lean_b": {"degrees": 60.0, "scale": 2.0}}


def pictures(n: int = 6) -> TensorSource:
    return TensorSource(torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)), batch_size=4)


def label(text, settings=None, source=None):
    """The labelled source, and what was reused of each labeler."""
    source = source or pictures()
    labelers = open_labelers(load_plugins(), text, settings or {})
    reused = {progress.labeler: progress.reused for progress in run_labelers(labelers, source, batch_size=4)}
    return LabelledSource(source, labelers.cache), reused


def config(**more) -> FitConfig:
    settings = {"train": {"steps": 3, "batch": 2, "lr": 1e-2}, "runtime": {"device": "cpu"}, "labeler": LEAN_B}
    given = {"samples": 6, "labeler": "lean-a+lean-b", "validation": 2, "settings": settings}
    return FitConfig("toy-gan", (NORMALS,), **{**given, **more})


def with_settings(wanted: FitConfig, **groups) -> FitConfig:
    merged = {name: dict(values) for name, values in wanted.settings.items()}
    for name, values in groups.items():
        merged.setdefault(name, {}).update(values)
    return replace(wanted, settings=merged)


def test_names():
    assert labeler_names("") == ()
    assert labeler_names("a") == ("a",)
    assert labeler_names("p/a + b") == ("p/a", "b")
    for wrong in ("a+", "+", "a+a"):
        with pytest.raises(ConfigError, match="each once"):
            labeler_names(wrong)


def test_settings_of_a_mix_and_of_one():
    assert own_settings(("a",), {"mix": 3}) == ("mean", {"a": {"mix": 3}})
    given = {"mix": "median", "a_b": {"x": 1}}
    assert own_settings(("p/a-b", "c"), given) == ("median", {"p/a-b": {"x": 1}, "c": {}})
    for wrong, named in (({"x": 1}, "labeler.x"), ({"c": 1}, "labeler.c"), ({"mix": "mode"}, "mean, median")):
        with pytest.raises(ConfigError, match=named):
            own_settings(("p/a-b", "c"), wrong)


def test_a_mix_is_what_its_labelers_say_mixed(toys):
    mixed, _ = label("lean-a+lean-b", LEAN_B)
    one, other = label("lean-a")[0], label("lean-b", LEAN_B["lean_b"])[0]
    assert [i.name for i in mixed.intrinsics] == ["normals", "disagreement-normals", "depth", "disagreement-depth"]
    for batch, a, b in zip(mixed, one, other, strict=True):
        for row in range(len(batch.keys)):
            parts = [{n: (v[row], ok[row]) for n, (v, ok) in part.maps.items()} for part in (a, b)]
            expected = mix_labels(parts, [(NORMALS, DEPTH)] * 2)
            for name, (value, valid) in expected.items():
                assert torch.equal(batch.maps[name][0][row], value)
                assert torch.equal(batch.maps[name][1][row], valid)
        assert batch.maps["disagreement-normals"][0].max() > 1


def test_each_labeler_works_once_for_all_mixes(toys, tmp_path):
    assert label("lean-a")[1] == {"lean-a": 0}
    assert label("lean-a+lean-b")[1] == {"lean-a": 6, "lean-b": 0, "mix": 0}
    assert label("lean-a+lean-b")[1] == {"lean-a": 6, "lean-b": 6, "mix": 6}
    assert label("lean-a+lean-b", {"mix": "median"})[1] == {"lean-a": 6, "lean-b": 6, "mix": 0}
    assert label("lean-a+lean-b", LEAN_B)[1] == {"lean-a": 6, "lean-b": 0, "mix": 0}
    assert label("lean-b+lean-a")[1] == {"lean-b": 6, "lean-a": 6, "mix": 0}
    folders = {path.name.partition("@")[0] for path in (tmp_path / "cache/labels").iterdir()}
    assert folders == {"lean-a", "lean-b", "lean-a+lean-b", "lean-b+lean-a"}
    assert len(list((tmp_path / "cache/labels").iterdir())) == 3 + 4
    assert len([1 for _, what in toys.LOG if what.startswith("labels")]) == 3 * 2  # batches of 4 and 2


def test_a_stopped_mix_goes_on(toys):
    labelers = open_labelers(load_plugins(), "lean-a+lean-b", {})
    steps = run_labelers(labelers, pictures(), batch_size=4)
    for step in steps:
        if step.labeler == "lean-b":
            break
    steps.close()
    assert label("lean-a+lean-b")[1] == {"lean-a": 6, "lean-b": 4, "mix": 0}


def test_shares_are_all_pictures_once():
    shares = [share_of(pictures(7), number, 3) for number in range(3)]
    assert [len(share) for share in shares] == [3, 2, 2]
    assert sorted(key for share in shares for batch in share for key in batch.keys) == list(pictures(7).keys)


def test_provenance_of_every_labeler(toys, tmp_path):
    source, _ = label("lean-a+lean-b", {**LEAN_B, "mix": "median"})
    told = source.provenance
    assert told["mix"] == "median"
    assert told["licence"] == "lean-a: licence of a; lean-b: licence of b"
    assert [part["labeler"] for part in told["labelers"]] == ["lean-a", "lean-b"]
    assert [part["licence"] for part in told["labelers"]] == ["licence of a", "licence of b"]
    assert told["labelers"][1]["settings"] == LEAN_B["lean_b"]
    assert told["labelers"][0]["facts"] == {"origin": "a toy"}
    assert told["labelers"][0]["plugin"] == "toys"
    labelers = open_labelers(load_plugins(), "lean-a+lean-b", {**LEAN_B, "mix": "median"})
    assert sum(export_labels(pictures(), labelers.cache, tmp_path / "out")) == 6
    exported = json.loads((tmp_path / "out/provenance.json").read_text())
    assert exported["labelers"] == told["labelers"]
    pairs = PairsSource(tmp_path / "out", source.intrinsics, batch_size=4)
    for batch, labelled in zip(pairs, source, strict=True):
        for name, (value, valid) in labelled.maps.items():
            assert torch.equal(batch.maps[name][1], valid)
            assert torch.equal(batch.maps[name][0][valid.expand_as(value)], value[valid.expand_as(value)])


def test_a_fit_on_a_mix_names_all_of_them(toys, tmp_path):
    wanted = with_settings(config(), train={"weighting": "disagreement@10"})
    events = list(fit(wanted, tmp_path / "out"))
    assert events[-1].intrinsic == "normals"
    record = json.loads((tmp_path / "out/normals/run.json").read_text())
    assert record["licences"]["labeler lean-a"] == "licence of a"
    assert record["licences"]["labeler lean-b"] == "licence of b"
    assert {part["version"].partition("-")[0] for part in record["labels"]["labelers"]} == {"1"}
    list(fit(config(), tmp_path / "even"))
    one, other = (load_file(tmp_path / name / "normals/adapter_model.safetensors") for name in ("out", "even"))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    repeated = FitConfig.from_json(record["config"])
    assert repeated.train.disagreement_scale == 10


def drain(steps):
    """A generator's return value."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def opened(wanted: FitConfig, generator, device: str = "cpu"):
    return drain(open_source(wanted, generator, load_plugins(), torch.device(device)))


def test_generator_and_labelers_are_never_on_the_device_together(toys):
    opened(config(), toys.Gan(), "meta")
    where = {"gan": "cpu", "a": "cpu", "b": "cpu"}
    work = []
    for who, what in toys.LOG:
        if what in ("cpu", "meta"):
            where[who] = what
        elif what != "parks":
            work.append(who)
            assert where[who] == "meta"
        assert list(where.values()).count("meta") <= 1
    assert "".join(name[0] for name in dict.fromkeys(work)) == "gab"
    assert set(where.values()) == {"cpu"}
    assert toys.LOG.index(("gan", "parks")) < toys.LOG.index(("gan", "cpu")) < toys.LOG.index(("a", "meta"))


def test_both_stay_when_asked(toys):
    opened(with_settings(config(), runtime={"keep_both": True}), toys.Gan(), "meta")
    assert ("gan", "cpu") not in toys.LOG
    assert toys.LOG.index(("a", "meta")) < toys.LOG.index(("gan", "samples 6"))


def test_the_same_samples_are_drawn_and_labelled_either_way(toys):
    apart = opened(config(), toys.Gan())
    together = opened(with_settings(config(), runtime={"keep_both": True}), toys.Gan())
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.maps["normals"][0], other.maps["normals"][0])


def test_a_limit_labels_no_more_than_that(toys):
    source = opened(replace(config(), limit=3), toys.Gan())
    assert len(source) == 3
    assert ("gan", "samples 3") in toys.LOG


def test_disagreement_becomes_weights(toys):
    generator, wanted = toys.Gan(), with_settings(config(), train={"weighting": "disagreement"})
    source = opened(wanted, generator)
    (task,) = drain(prepare(source, generator, wanted, frozenset()))
    (batch,) = list(source)
    expected = pixel_weights(*batch.maps["disagreement-normals"], batch.maps["normals"][1])
    assert torch.equal(task.train.codes["valid"], expected)
    assert 0 < expected.min() < 0.5 < expected.max() <= 1
    (even,) = drain(prepare(source, generator, config(), frozenset()))
    assert even.train.codes["valid"].dtype == torch.bool


def test_exported_disagreement_weighs_too(toys, tmp_path):
    labelled = opened(config(), toys.Gan())
    labelers = open_labelers(load_plugins(), "lean-a+lean-b", LEAN_B)
    sum(export_labels(labelled, labelers.cache, tmp_path / "pairs"))
    wanted = with_settings(
        config(samples=0, labeler="", pairs=str(tmp_path / "pairs")), train={"weighting": "disagreement"}
    )
    read, drawn = next(iter(opened(wanted, toys.Gan()))), next(iter(labelled))
    for name in ("normals", "disagreement-normals"):
        torch.testing.assert_close(read.maps[name][0], drawn.maps[name][0])


def test_what_cannot_be_weighted_is_said_before_anything_is_labelled(toys):
    weighted = with_settings(config(), train={"weighting": "disagreement"})
    with pytest.raises(ConfigError, match=r"--labeler first\+second"):
        opened(replace(weighted, labeler="lean-a", settings={**weighted.settings, "labeler": {}}), toys.Gan())
    with pytest.raises(DataError, match="no albedo maps"):
        opened(replace(weighted, intrinsics=(ALBEDO,)), toys.Gan())
    deaf = toys.Gan()
    deaf.takes_weights = False
    with pytest.raises(ConfigError, match="no weights between"):
        opened(weighted, deaf)
    assert not [what for _, what in toys.LOG if what.startswith("labels")]


@pytest.mark.parametrize(
    ("text", "scale"), [("even", 0), ("disagreement", 0), ("disagreement@5", 5), ("disagreement@.25", 0.25)]
)
def test_weightings(text, scale):
    assert TrainConfig(weighting=text).disagreement_scale == scale


@pytest.mark.parametrize("text", ["", "odd", "even@3", "disagreement@", "disagreement@-1", "disagreement@x"])
def test_wrong_weightings(text):
    with pytest.raises(ConfigError, match="disagreement@NUMBER"):
        TrainConfig(weighting=text)
