"""Final figures: scenes are the unit, the gate says what it should, and the command writes what it prints."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_core.errors import DataError, MissingDependency
from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms import choose, dev, evaluate
from ilora_paradigms.dev import Truth
from ilora_paradigms.evaluate import gate
from ilora_paradigms.export import export_network
from ilora_paradigms.judge import FIGURES
from ilora_paradigms.net import ParadigmNet
from ilora_paradigms.path_traced import path_traced
from ilora_paradigms.scores import Scores, constant, difference, score
from ilora_paradigms.split import rescale


@pytest.fixture(scope="module")
def truth() -> Truth:
    return path_traced()


def _first(truth: Truth, n: int) -> Truth:
    parts = {name: getattr(truth, name)[:n] for name in vars(truth)}
    return replace(truth, **parts)


def _scores(worse: dict[str, float], n: int = 6) -> Scores:
    base = 0.2 + 0.05 * np.arange(n)
    noise = 0.002 * np.cos(np.arange(n))
    return Scores(tuple(map(str, range(n))), {f: base + worse.get(f, 0.0) + noise * (f in worse) for f in FIGURES})


def test_the_frozen_set_is_what_it_says(truth: Truth) -> None:
    assert truth.pictures.shape == truth.albedo.shape == (48, 3, 64, 64)
    assert truth.shading.shape == truth.valid.shape == (48, 1, 64, 64)
    assert len(set(truth.keys)) == 48
    assert len(set(truth.scenes)) == 24
    assert torch.equal(truth.albedo[0], truth.albedo[1])
    assert not torch.equal(truth.albedo[1], truth.albedo[2])
    assert truth.valid.float().mean((1, 2, 3)).min() > 0.4


def test_frozen_pictures_are_albedo_times_shading_up_to_gloss_tint_and_clipping(truth: Truth) -> None:
    linear = srgb_to_linear(truth.pictures).mean(1, keepdim=True)
    product = truth.albedo.mean(1, keepdim=True) * truth.shading
    counted = truth.valid & (truth.pictures.amax(1, keepdim=True) < 0.99)
    for i in range(48):
        pair = torch.stack([linear[i][counted[i]], product[i][counted[i]]])
        assert torch.corrcoef(pair)[0, 1] > 0.75, truth.keys[i]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Reinstall"):
        path_traced(tmp_path / "nothing.npz")


def test_the_truth_scores_nought_and_the_constant_does_not(truth: Truth) -> None:
    some = _first(truth, 4)
    answers = iter([rescale(some.albedo, some.shading, some.valid)])
    perfect, flat = score(lambda pictures: next(answers), some), score(constant, some)
    assert perfect.scenes == flat.scenes == ("traced-00", "traced-01")
    for figure in (*FIGURES, "relight"):
        assert perfect.mean(figure)[0] < 1e-5, figure
    assert flat.mean("ord-err")[0] == 0.5
    assert flat.mean("relight")[0] < 1e-6, "one albedo for all is always the same"
    assert difference(perfect, flat, "A si").high < 0


def test_scenes_are_means_of_their_pictures(truth: Truth) -> None:
    pair, single = _first(truth, 2), [replace(_first(truth, 2), scenes=("a", "b"))]
    together, apart = score(constant, pair), score(constant, single[0])
    assert len(together.rows["S si"]) == 1
    assert together.rows["S si"][0] == pytest.approx(apart.rows["S si"].mean())
    assert np.isnan(apart.rows["relight"]).all()


def test_the_gate_needs_two_wins_and_no_loss() -> None:
    reference = _scores({})
    better = {"ord-err": -0.02, "S rms": -0.02}
    assert gate(_scores(better), reference)["passed"]
    assert gate(_scores(better | {"A si": 0.001}), reference)["passed"]
    assert gate(_scores(better | {"A si": 0.01}), reference)["failed"] == ["A si"]
    assert gate(_scores({"ord-err": -0.02, "S rms": -0.0001}), reference)["failed"] == ["S rms"]


def test_differences_are_paired() -> None:
    found = difference(_scores({"A si": 0.01}), _scores({}), "A si")
    assert found.value == pytest.approx(0.01, abs=0.002)
    assert 0 < found.low < found.value < found.high < 0.02, "unpaired, the scenes' own spread would swamp it"
    with pytest.raises(ValueError, match="same scenes"):
        difference(_scores({}), _scores({}, 5), "A si")


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Truth, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(evaluate, "path_traced", lambda: _first(truth, 4))
    monkeypatch.setattr(evaluate, "rooms", lambda *which: asked.append(which) or _first(truth, 2))
    monkeypatch.setattr(evaluate, "SHOWN", (0, 3))
    weights = export_network(ParadigmNet((8, 8, 16)), tmp_path / "weights", {})
    out, sheet = tmp_path / "results.json", tmp_path / "sheet.png"
    evaluate.main(["--rooms", "2", "--weights", str(weights), "--out", str(out), "--sheet", str(sheet)])
    assert asked == [("test", 2)]
    printed = capsys.readouterr().out
    assert "== path-traced, 4 pictures" in printed
    assert "== rooms, 2 pictures" in printed
    assert "gate: " in printed
    data = json.loads(out.read_text())
    assert set(data["results"]) == {"path-traced", "rooms"}
    found = data["results"]["path-traced"]
    assert {"constant", "sqrt-split", "retinex", "retinex-blend", "paradigms"} <= set(found["methods"])
    assert set(found["paradigms - retinex-blend"]["differences"]) == set(FIGURES)
    assert str(tmp_path) not in out.read_text()
    assert sheet.stat().st_size > 0


def test_settings_are_compared_on_development_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Truth, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(choose, "rooms", lambda *which: asked.append(which) or _first(truth, 2))
    weights = export_network(ParadigmNet((8, 8, 16)), tmp_path / "weights", {})
    choose.main(["--weights", str(weights), "--n", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert asked == [("labeller", 2, 64)]
    assert lines[0].startswith("work 64 views 1 blend 0.0")
    assert lines[-1].startswith("retinex-blend")
    assert all("S si" in line and "dev 0." in line for line in lines)


def test_without_rooms_there_is_an_answer_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ilora_rooms.source", None)
    with pytest.raises(MissingDependency, match="pip install ilora-rooms"):
        dev.rooms("labeller", 2)
