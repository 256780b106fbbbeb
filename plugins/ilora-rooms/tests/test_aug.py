"""The shipped multi-step model: it keeps a picture's layout, and the benchmark's pieces measure what they say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from ilora_core.intrinsics import Intrinsic
from ilora_core.metrics.edges import edge_agreement
from ilora_core.plan import count
from ilora_core.plugins import load_plugins
from ilora_rooms.aug import augmented
from ilora_rooms.source import RoomsSource

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture(scope="module")
def pictures():
    return next(iter(RoomsSource(split="test", n=8))).pictures


def test_it_says_where_it_comes_from():
    model = augmented()
    assert model.provenance["weights"] == "shipped with ilora-rooms"
    assert model.provenance["name"] == "rooms-aug"
    assert model.unet.conv_in.in_channels == 24
    assert model.scheduler_config["prediction_type"] == "v_prediction"


def test_it_repaints_the_room_that_it_sees(pictures):
    """Another colour of walls on words, edges where the picture has them; blind, they are nowhere near."""
    words = Intrinsic("repainted", 3, "", "srgb", prompt="a red room with a blue floor")
    model, blind = augmented(steps=4), augmented(steps=4, blind=True)
    drawn = model.render(model.encode(pictures), words)
    own, others = (edge_agreement(drawn, given).mean() for given in (pictures, pictures.roll(1, 0)))
    unseen = edge_agreement(blind.render(blind.encode(pictures), words), pictures).mean()
    assert own > others + 0.1
    assert own > unseen + 0.1
    walls = drawn[:, :, 8:32].mean((0, 2, 3))
    assert walls[0] > walls[2] + 0.2


def test_counts():
    parameters, adapter = count(load_plugins(), "rooms-aug", {})
    assert parameters["net"] == sum(p.numel() for p in augmented().net.parameters())
    assert adapter["parameters"] == count(load_plugins(), "rooms", {})[1]["parameters"]


def test_the_benchmark_scores_every_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("rooms_aug", BENCH / "rooms_aug.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "STEPS", (1, 2))
    monkeypatch.setattr(bench, "WEIGHTS", (1.0, 3.0))
    monkeypatch.setattr(bench, "STRENGTHS", (0.08,))
    record = bench.record
    monkeypatch.setattr(bench, "record", lambda *given, **named: record(*given, **named, folder=tmp_path))
    arguments = [
        "--labels",
        "4",
        "--train-steps",
        "2",
        "--test",
        "3",
        "--batch",
        "2",
        "--intrinsics",
        "normals",
        "--chunk",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["rooms_aug.py", *arguments, "--pictures", str(tmp_path)])
    bench.main()
    (path,) = tmp_path.glob("rooms-aug-*.json")
    told = json.loads(path.read_text())["results"]
    monkeypatch.setattr(sys, "argv", ["rooms_aug.py", "--table", str(path)])
    bench.main()
    assert "| 2 | " in capsys.readouterr().out
    methods = {bench.aug(s, w) for s in (1, 2) for w in (1.0, 3.0)} | {bench.sdedit(0.08)}
    assert set(told["normals"]) == methods | {"mean map", "truth", "best"}
    for method in methods:
        figure = told["normals"][method]
        assert figure["low"] <= figure["mean_deg"] <= figure["high"]
        assert 0 <= figure["edges"]["value"] <= 1
    assert {path.name for path in tmp_path.glob("*.png")} == {"rooms-aug-normals.png", "rooms-aug-normals-settings.png"}


@pytest.mark.parametrize("card", ["rooms-aug", "rooms-sdedit"])
def test_the_cards_differ_in_what_the_network_sees(card, pictures):
    model = load_plugins().make("generators", card, steps=2)
    seen = []
    call = model._call
    model._call = lambda given, *rest: seen.append(given) or call(given, *rest)
    model.render(model.encode(pictures[:1]), Intrinsic("x", 3, "", "srgb"))
    assert torch.cat(seen)[:, 12:].any() == (card == "rooms-aug")
    assert len(seen) == (2 if card == "rooms-aug" else 1)
