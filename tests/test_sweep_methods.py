"""The baselines of a sweep that learn in closed form: what they depend on, and what they come to."""

from __future__ import annotations

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import NORMALS
from ilora_core.plugins import load_plugins
from ilora_core.sweep import Axis, Finished, Sweep, plan_sweep, run_sweep

BASE = {
    "generator": "toy",
    "source": "toys",
    "intrinsic": "normals",
    "validation": 2,
    "train.steps": 8,
    "runtime.device": "cpu",
}
RANKS = Axis.of("adapter.rank", (1, 2))
SEEDS = Axis.of("train.seed", (0, 1))
pytestmark = pytest.mark.usefixtures("sweep_toys")


def sweep(*axes, test="toys:test:6", **base):
    return Sweep({**BASE, **base}, axes, test)


def run(what, out):
    return list(run_sweep(what, out))


def finished(events):
    return [event.result for event in events if isinstance(event, Finished)]


def cells(*axes, **base):
    return plan_sweep(sweep(*axes, **base), load_plugins()).cells


def error_deg(result):
    return result.evaluations["normals"].figures["mean_deg"].value


def test_a_probe_finds_the_map_that_is_linear_in_the_features(tmp_path):
    methods = Axis.of("method", ("probe", "mean-map"))
    probe, mean = finished(run(sweep(methods, generator="seer"), tmp_path / "out"))
    assert error_deg(probe) < 0.5  # the ridge takes a hundredth off
    assert error_deg(mean) > 5
    assert probe.facts["data"] == {"train": 10, "validation": 2}
    assert probe.facts["probe"] == {"normals": 10 * 64}
    assert probe.facts["parameters"] == {"trained": (6 + 1) * 3, "network": 189, "generator": 195}


def test_a_probe_learns_from_the_pictures_that_a_fit_learns_from(tmp_path):
    from safetensors.torch import load_file
    from sweep_toys import Pictures, Seer

    from ilora_core.controls import LinearProbe
    from ilora_core.data import split_keys

    (result,) = finished(run(sweep(method="probe", generator="seer"), tmp_path / "out"))
    batches = [b for b in Pictures() if b.keys[0] not in split_keys(Pictures().keys, 2, seed=0)]
    pictures = torch.cat([b.pictures for b in batches])
    value, valid = (torch.cat([b.maps["normals"][part] for b in batches]) for part in (0, 1))
    expected = LinearProbe.fit(Seer().features({"x": pictures}, NORMALS), NORMALS.to_picture(value) * 2 - 1, valid)
    kept = load_file(tmp_path / "out" / "cells" / result.cell.hash / "probe" / "normals.safetensors")
    torch.testing.assert_close(LinearProbe(**kept).weights, expected.weights, atol=1e-6, rtol=1e-6)


def test_a_probe_of_large_pictures_looks_at_some_places_of_each():
    from ilora_core.sweep.learnt import PLACES, _pick

    values = torch.arange(2 * 3 * 40 * 30.0).view(2, 3, 40, 30)
    picked = _pick(values, [7, 8])
    assert picked.shape == (2, 3, PLACES, 1)
    assert all(len(row[0].unique()) == PLACES for row in picked)
    torch.testing.assert_close(picked[:, 1], picked[:, 0] + 1200)  # the same places in every channel
    torch.testing.assert_close(picked[1:], _pick(values[1:], [8]))
    assert not torch.equal(picked[0] + 3600, picked[1])
    small = values[..., :16, :16]
    torch.testing.assert_close(_pick(small, [7, 8]).view(2, 3, 16, 16), small)


def test_a_probe_is_shared_by_all_that_it_does_not_depend_on():
    recipes = Axis.of("train.lr", (1e-3, 1e-2))
    losses = Axis.of("intrinsic.loss", ("mse", "l1"))
    assert len(cells(RANKS, recipes, losses, method="probe", generator="seer")) == 1
    for axis in (SEEDS, Axis.of("limit", (6, 12)), Axis.of("intrinsic.prompt", ("a", "b"))):
        assert len(cells(RANKS, axis, method="probe", generator="seer")) == 2
    assert cells(method="probe", generator="seer", **{"generator.random_net": True})[0].method == "probe"


def test_a_generator_without_features_takes_no_probe(tmp_path):
    with pytest.raises(ConfigError, match="method=probe: generator 'toy' shows no features"):
        run(sweep(Axis.of("method", ("adapter", "probe"))), tmp_path / "out")
    assert not (tmp_path / "out").exists()
