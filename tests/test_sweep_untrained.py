"""The baselines of a sweep that learn nothing."""

from __future__ import annotations

import re

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING
from ilora_core.plugins import load_plugins
from ilora_core.protocols import Batch
from ilora_core.sweep import Axis, Choice, Finished, Sweep, plan_sweep, run_sweep
from ilora_core.sweep.methods import get_method

BASE = {
    "generator": "seer",
    "source": "toys",
    "intrinsic": "normals",
    "validation": 2,
    "train.steps": 2,
    "runtime.device": "cpu",
}
UNSEEN = (
    Axis.of("limit", (6, 12)),
    Axis.of("train.seed", (0, 1)),
    Axis.of("adapter.rank", (1, 2)),
    Axis.of("intrinsic.loss", ("mse", "l1")),
)
pytestmark = pytest.mark.usefixtures("sweep_toys")


def sweep(*axes, test="toys:test:6", **base):
    return Sweep({**BASE, **base}, axes, test)


def cells(*axes, **base):
    return plan_sweep(sweep(*axes, **base), load_plugins()).cells


def results(what, out):
    return [event.result for event in run_sweep(what, out) if isinstance(event, Finished)]


def error_deg(result):
    return result.evaluations["normals"].figures["mean_deg"].value


def drawer(method, **base):
    (cell,) = cells(method=method, **base)
    host = load_plugins()
    return lambda folder: get_method(cell.method).open(cell.config, folder, cell.config.intrinsics[0].name, host)


def test_a_labelers_own_maps_are_a_row(sweep_toys, tmp_path):
    ways = Axis(
        "way",
        (
            Choice("exact", {"method": "labeler", "labeler": "judge"}),
            Choice("tilted", {"method": "labeler", "labeler": "other-judge"}),
            Choice("both", {"method": "labeler", "labeler": "judge+other-judge"}),
            Choice("mean", {"method": "mean-map"}),
        ),
    )
    exact, tilted, both, mean = results(sweep(ways), tmp_path / "out")
    assert error_deg(exact) == pytest.approx(0, abs=0.1)
    assert error_deg(exact) < error_deg(both) < error_deg(tilted) < error_deg(mean)
    assert exact.facts["parameters"] == {"trained": 0}
    assert exact.facts["data"]["train"] == 0
    assert not sweep_toys.exists()  # nothing was trained


def test_a_labelers_depth_is_drawn_as_an_adapters_is(tmp_path):
    (result,) = results(sweep(method="labeler", labeler="judge", intrinsic="depth"), tmp_path / "out")
    assert result.evaluations["depth"].figures["rms01"].value == pytest.approx(0, abs=1e-6)


def test_a_labeler_is_not_judged_by_itself():
    own = {"method": "labeler", "source": "", "samples": 5, "labeler": "judge"}
    with pytest.raises(ConfigError, match="judge would be judged by itself"):
        cells(test="samples:5", **own)
    with pytest.raises(ConfigError, match="judge would be judged by itself"):
        cells(test="", **{**own, "validation": 2})
    assert cells(test="samples:5:labeler=other-judge", **own)[0].method == "labeler"


@pytest.mark.parametrize("intrinsic", [ALBEDO, SHADING], ids=lambda i: i.name)
def test_a_picture_is_its_own_albedo_and_shading(tmp_path, intrinsic):
    from ilora_core.sweep.untrained import _Itself

    picture = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = _Itself(intrinsic, 4)(Batch(("a", "b"), picture))
    assert drawn.shape == picture.shape
    torch.testing.assert_close(drawn, ALBEDO.from_picture(picture))  # both decode sRGB
    assert (drawn < picture).all()


def test_the_ceiling_of_a_perfect_codec_is_the_truth(tmp_path):
    (result,) = results(sweep(method="ceiling", intrinsic="normals,depth"), tmp_path / "out")
    assert error_deg(result) == pytest.approx(0, abs=0.1)
    assert result.evaluations["depth"].figures["rms01"].value == pytest.approx(0, abs=1e-6)
    assert result.facts["parameters"] == {"trained": 0, "network": 189, "generator": 195}


@pytest.mark.parametrize("kind", ["metric", "affine_disparity"])
def test_the_ceiling_reads_depth_as_the_test_has_it(tmp_path, kind):
    from dataclasses import replace

    truth = replace(DEPTH, kind=kind)
    value = torch.linspace(1, 3, 64).view(1, 1, 8, 8)
    batch = Batch(("a",), torch.zeros(1, 3, 8, 8), {"depth": (value, torch.ones_like(value, dtype=torch.bool))})
    reading = drawer("ceiling", intrinsic="depth")(tmp_path).reading(truth)
    assert reading.intrinsic == truth.predicted()
    torch.testing.assert_close(reading(batch), truth.from_picture(truth.to_picture(value)))


def test_a_prompted_generator_draws_what_it_renders_without_an_adapter(tmp_path):
    from sweep_toys import Seer

    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = drawer("prompt", **{"intrinsic.prompt": "four"})(tmp_path)(Batch(("a", "b"), pictures))
    torch.testing.assert_close(drawn, NORMALS.from_picture(Seer().net(pictures) / 16 + 0.125), atol=1e-4, rtol=0)
    larger = Batch(("a",), torch.rand(1, 3, 20, 13))
    assert drawer("prompt")(tmp_path)(larger).shape == (1, 3, 20, 13)


def test_prompts_are_compared(tmp_path):
    prompts = Axis.of("intrinsic.prompt", ("normals", "a map of surface normals"))
    short, long = results(sweep(prompts, method="prompt"), tmp_path / "out")
    assert error_deg(short) != error_deg(long)


@pytest.mark.parametrize(
    "base", [{"method": "ceiling"}, {"method": "prompt"}, {"method": "labeler", "labeler": "judge"}], ids=str
)
def test_what_learns_nothing_is_computed_once(base):
    assert len(cells(*UNSEEN, **base)) == 1
    assert len(cells(Axis.of("generator.width", (5, 6)), **base)) == 2


def test_validation_pictures_depend_on_the_seed():
    assert len(cells(UNSEEN[1], test="", method="ceiling")) == 2


def test_the_labeler_matters_to_itself_alone():
    labelers = Axis.of("labeler", ("judge", "other-judge"))
    assert len(cells(labelers, method="ceiling")) == 1
    assert len(cells(labelers, method="labeler")) == 2


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"method": "labeler"}, "method=labeler needs a labeler: give --labeler NAME"),
        ({"method": "picture"}, "method=picture: a picture is no normals; it stands for albedo, shading"),
        ({"method": "prompt", "generator": "toy"}, "generator 'toy' draws the same whatever the prompt says"),
        ({"method": "ceiling", "generator": "blind"}, "method=ceiling needs an encoder: it only dreams"),
    ],
)
def test_what_cannot_be_is_one_error_before_anything_is_made(tmp_path, base, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        results(sweep(**base), tmp_path / "out")
    assert not (tmp_path / "out").exists()
