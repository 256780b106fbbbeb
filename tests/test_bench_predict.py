"""bench/predict_speed.py: every way draws the same maps, and the figures are what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch

from ilora_core.config import RuntimeConfig

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def bench():
    """The modules predict_speed and predict_models, which import their neighbours by plain names."""
    import importlib

    names = ("record", "cached_vs_uncached", "predict_models", "predict_speed")
    sys.path.insert(0, str(BENCH))
    modules = {name: importlib.import_module(name) for name in names}
    yield argparse.Namespace(**modules)
    sys.path.remove(str(BENCH))
    for name in names:
        sys.modules.pop(name, None)


def test_every_way_draws_the_same_maps(bench, tmp_path):
    drawer = bench.predict_models.drawer_of("small", tmp_path, RuntimeConfig(device="cpu"))
    drawer.generator.resolution = (32, 32)
    ways = dict(bench.predict_speed.Ways(drawer, bench.predict_models.tiny_decoder()).all())
    both = ["1 map", "4 maps, together", "4 maps, one by one"]
    assert list(ways) == [
        *(f"{way}{note}" for note in ("", ", tiny VAE") for way in both),
        *("4 maps, apart", "decoder, full", "decoder, tiny"),
    ]
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    drawn = {way: draw(pictures) for way, draw in ways.items()}
    assert list(drawn["4 maps, together"]) == ["albedo", "depth", "normals", "shading"]
    assert {value.shape[-2:] for value in drawn["4 maps, together"].values()} == {(32, 32)}
    assert max(bench.predict_speed.difference(ways, pictures).values()) < 1e-3
    assert torch.equal(drawn["1 map"]["albedo"], drawn["4 maps, apart"]["albedo"])
    tiny, full = drawn["4 maps, together, tiny VAE"], drawn["4 maps, together"]
    assert all((tiny[name] - full[name]).abs().max() > 1e-2 for name in full)
    assert drawn["decoder, full"].shape == drawn["decoder, tiny"].shape == (2, 3, 32, 32)


def test_figures(bench, monkeypatch):
    speed = bench.predict_speed
    clock = iter(range(1000))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(speed.time, "process_time", lambda: next(clock))
    seconds = speed.measure({"way": lambda part: None}, torch.zeros(4, 1), torch.device("cpu"), rounds=3)
    assert seconds == {("way", 1): 1 / 4, ("way", 4): 1 / 4}  # one tick of the clock for four pictures
    told = speed.ratios({("1 map", 1): 1.0, ("4 maps, together", 1): 2.0, ("4 maps, one by one", 1): 4.0})
    assert told == {"one_by_one_over_together": {"batch 1": 2.0}, "all_maps_over_one": {"batch 1": 2.0}}


def test_floors_are_of_one_gpu_and_one_kind_of_work(bench):
    told = {
        ("1 map", 4): 0.0112,
        ("4 maps, together", 4): 0.0364,
        ("1 map, tiny VAE", 4): 0.01,
        ("4 maps, apart", 4): 0.1,
    }
    args = argparse.Namespace(size="sd15", precision="bf16", adapters="")
    shares = bench.predict_speed.shares_of_floor(told, "NVIDIA H100 80GB HBM3", args, 512)
    assert shares == pytest.approx({"1 map, batch 4": 0.5, "4 maps, together, batch 4": 0.5})
    other = argparse.Namespace(**{**vars(args), "precision": "fp32"})
    for device, given, side in (
        ("NVIDIA H200", args, 512),
        ("NVIDIA H100 80GB HBM3", args, 256),
        ("NVIDIA H100 80GB HBM3", other, 512),
    ):
        assert bench.predict_speed.shares_of_floor(told, device, given, side) == {}
