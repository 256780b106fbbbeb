"""Evaluation of sets: pooling against the field's code, intervals against theory, errors that name the picture."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_core.bootstrap import (
    HISTOGRAM_BINS,
    draw_crossed_weights,
    draw_weights,
    histogram_median,
    interval,
    statistic,
)
from ilora_core.errors import ConfigError, DataError, UnknownName
from ilora_core.evaluate import Evaluation, compare, evaluate, evaluate_all
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic

ORACLES = Path(__file__).parent / "oracles" / "labelers"
DSINE = ("mean", "median", "rmse", "a1", "a2", "a3", "a4", "a5")
OURS = ("mean_deg", "median_deg", "rmse_deg", "below_5", "below_7_5", "below_11_25", "below_22_5", "below_30")
ROUGHNESS = Intrinsic("roughness", 1, "", "linear")


@pytest.fixture(scope="module")
def expected():
    return json.loads((ORACLES / "metrics_expected.json").read_text())


@pytest.fixture(scope="module")
def normals():
    with np.load(ORACLES / "metrics_arrays.npz") as data:
        prediction, truth = (torch.from_numpy(data[f"normals_{side}"]) for side in ("pred", "gt"))
    return [(f"picture{i}", prediction[i], truth[i], (truth[i] != 0).any(0, keepdim=True)) for i in range(3)]


def tilted(errors_deg):
    """One pair of a single row: normals that face the camera, and the same turned by these angles."""
    angle = torch.as_tensor(errors_deg, dtype=torch.float64).deg2rad()
    prediction = torch.stack([angle.sin(), torch.zeros_like(angle), -angle.cos()])[:, None]
    truth = torch.zeros_like(prediction)
    truth[2] = -1
    return prediction, truth, torch.ones_like(truth[:1], dtype=torch.bool)


def offsets(values, size=(4, 5)):
    """Roughness pairs whose predictions are off by the given amounts."""
    truth = torch.full((1, *size), 0.5)
    return [(f"k{i}", truth + value, truth, torch.ones_like(truth, dtype=torch.bool)) for i, value in enumerate(values)]


# ---- figures


def test_pooled_normals_equal_dsine(normals, expected):
    figures = evaluate(iter(normals), NORMALS).figures
    for theirs, ours in zip(DSINE, OURS, strict=True):
        assert figures[ours].value == pytest.approx(expected["normals_pooled_dsine"][theirs], abs=1e-4), ours
    assert figures["l1x100"].value == pytest.approx(expected["normals_l1x100"]["pooled"], rel=1e-6)


def test_per_image_normals_equal_marigold(normals, expected):
    evaluation = evaluate(normals, NORMALS, protocol="normals-per-image")
    for (theirs, value), ours in zip(expected["normals_mean_of_images_marigold"].items(), OURS, strict=True):
        assert evaluation.figures[ours].value == pytest.approx(value, abs=6e-5), theirs
    assert evaluation.figures["mean_deg"].value != pytest.approx(20.258, abs=1)  # not the pooled one
    assert {figure.pool for figure in evaluation.figures.values()} == {"mean"}


def test_l1_needs_unit_vectors(normals, expected):
    """Predictions of any length are normalised first: the un-normalised figure is another one."""
    value = evaluate(normals, NORMALS).figures["l1x100"].value
    assert abs(value - expected["normals_l1x100"]["pooled_unnormalised_pred"]) > 5


def test_a_set_is_the_mean_of_its_pictures_for_depth(expected):
    with np.load(ORACLES / "metrics_arrays.npz") as data:
        arrays = {name: torch.from_numpy(data[name])[:, None] for name in ("depth_pred", "depth_gt", "depth_mask")}
    pairs = [(str(i), *(arrays[name][i] for name in ("depth_pred", "depth_gt", "depth_mask"))) for i in range(3)]
    both = evaluate_all(pairs, DEPTH, protocols=("metric@0.001-80", "marigold-lsq@0.001-80"), predicts="metric")
    assert list(both) == ["metric@0.001-80", "marigold-lsq@0.001-80"]
    for evaluation, rows in zip(
        both.values(), (expected["depth_none"], expected["depth_lsq_depth_space"]["metrics"]), strict=True
    ):
        wanted = np.mean([row["rmse_linear"] for row in rows])
        assert evaluation.figures["rmse"].value == pytest.approx(wanted, rel=1e-6)
        assert [row["rmse"] for row in evaluation.pictures.values()] == pytest.approx(
            [row["rmse_linear"] for row in rows], rel=1e-6
        )


def test_pooling_counts_pixels_and_the_median_is_exact_enough():
    pairs = [("small", *tilted([10.0] * 4)), ("large", *tilted([30.0] * 3 + [31.0] * 9))]
    figures = evaluate(pairs, NORMALS).figures
    assert figures["mean_deg"].value == pytest.approx((40 + 90 + 279) / 16, abs=1e-9)
    assert figures["rmse_deg"].value == pytest.approx(math.sqrt((400 + 2700 + 8649) / 16), abs=1e-9)
    assert figures["below_11_25"].value == 25.0
    assert figures["median_deg"].value == pytest.approx(31.0, abs=1e-4)
    assert evaluate(pairs, NORMALS, protocol="normals-per-image").figures["mean_deg"].value == pytest.approx(20.375)


def test_pooled_median_of_many_pictures_against_numpy():
    rng = np.random.default_rng(3)
    rows = [np.abs(rng.normal(12, 9, size=rng.integers(50, 200))) for _ in range(20)]
    figure = evaluate(((str(i), *tilted(row)) for i, row in enumerate(rows)), NORMALS).figures["median_deg"]
    assert figure.value == pytest.approx(np.median(np.concatenate(rows)), abs=0.03)  # between two of 2,500 errors
    assert figure.low < figure.value < figure.high


def test_default_protocols_and_units():
    truth = 0.1 + torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(truth[:1], dtype=torch.bool)
    colours = [("a", 0.5 * truth, truth, valid)]
    assert evaluate(colours, ALBEDO).protocol == "raw"
    shading = evaluate(colours, SHADING)
    assert (shading.protocol, shading.n) == ("scale-invariant", 1)
    assert shading.figures["si_rms"].value == pytest.approx(0, abs=1e-9)
    near = DEPTH.from_picture(DEPTH.to_picture(truth[None, :1]))[0]
    depth = evaluate([("a", near, truth[:1], valid)], DEPTH)
    assert depth.protocol == "relative01"
    assert depth.figures["rms01"].value == pytest.approx(0, abs=1e-6)
    roughness = evaluate(offsets([0.1, -0.3]), ROUGHNESS)
    assert roughness.figures["rms"].value == pytest.approx(0.2)
    assert roughness.figures["psnr"].higher_is_better


def test_maps_are_not_kept():
    """A generator whose tensors die as soon as the next pair is asked for: nothing may still refer to them."""
    import weakref

    alive = []

    def pairs():
        for i in range(6):
            assert sum(ref() is not None for ref in alive) <= 1  # the loop's own variable
            maps = tilted([float(i + 1)] * 50)
            alive.append(weakref.ref(maps[0]))
            yield f"k{i}", *maps

    assert evaluate(pairs(), NORMALS).n == 6


# ---- intervals


def test_the_interval_of_a_mean_has_the_size_theory_gives():
    values = np.random.default_rng(0).normal(0.3, 0.05, size=200)
    figure = evaluate(offsets(values, size=(1, 1)), ROUGHNESS, resamples=4000).figures["rms"]
    half = 1.96 * np.abs(values).std() / math.sqrt(200)
    assert figure.value == pytest.approx(np.abs(values).mean(), rel=1e-6)
    assert (figure.low, figure.high) == pytest.approx((figure.value - half, figure.value + half), abs=0.12 * half)


def test_the_interval_covers_the_true_mean():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(150):
        figures = rng.exponential(1.0, size=60)
        once = [statistic("mean", w, figures, np.ones(60)) for w in draw_weights(60, resamples=400, seed=trial)]
        low, high = interval(np.concatenate(once))
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 150 <= 0.99


def test_pooled_intervals_resample_pictures_not_pixels():
    """Two kinds of picture, 10° and 30°, of a thousand pixels each: the interval is wide although pixels abound."""
    pairs = [(f"k{i}", *tilted([10.0 if i % 2 else 30.0] * 1000)) for i in range(10)]
    figures = evaluate(pairs, NORMALS).figures
    half = 1.96 * 10 / math.sqrt(10)
    mean = figures["mean_deg"]
    assert (mean.low, mean.high) == pytest.approx((20 - half, 20 + half), abs=1.5)
    median = figures["median_deg"]  # either kind may have the majority
    assert (median.low, median.high) == pytest.approx((10.0, 30.0), abs=0.25)


def test_a_median_lies_inside_its_interval_even_when_all_errors_are_alike():
    """Draws come from bins of 0.1°; an error of 0.03° everywhere must not get an interval around 0.05°."""
    figure = evaluate([(f"k{i}", *tilted([0.03] * 10)) for i in range(5)], NORMALS).figures["median_deg"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.03, 0.03, 0.03), abs=2e-4)


def test_weighted_statistics_equal_repeated_pictures():
    rng = np.random.default_rng(2)
    figures, pixels = rng.random(5), rng.integers(1, 50, 5).astype(float)
    histograms = rng.integers(0, 9, (5, HISTOGRAM_BINS)).astype(np.float32)
    weights = np.array([[2.0, 0, 1, 0, 3]])
    again = np.repeat(np.arange(5), weights[0].astype(int))
    for pool in ("mean", "pixels", "pixels_rms", "pixels_median"):
        drawn = statistic(pool, weights, figures, pixels, histograms)
        copied = statistic(pool, np.ones((1, 6)), figures[again], pixels[again], histograms[again])
        assert drawn == pytest.approx(copied, rel=1e-12), pool
    wanted = math.sqrt((pixels[again] * figures[again] ** 2).sum() / pixels[again].sum())
    assert statistic("pixels_rms", weights, figures, pixels)[0] == pytest.approx(wanted)


def test_statistics_leave_out_pictures_without_a_figure():
    figures = np.array([1.0, math.nan, 4.0])
    rows = np.array([[1.0, 1, 1], [0, 3, 0]])
    assert statistic("mean", rows, figures, np.ones(3)).tolist() == pytest.approx([2.5, math.nan], nan_ok=True)


def test_histogram_median_is_linear_inside_a_bin():
    assert histogram_median(np.array([[0.0, 4, 0, 0], [1, 0, 0, 1], [1, 2, 1, 0]]), 4.0).tolist() == [1.5, 1.0, 1.5]


def test_draws_depend_on_the_seed_alone():
    first, again, other = (np.concatenate(list(draw_weights(7, resamples=250, seed=s))) for s in (4, 4, 5))
    assert first.shape == (250, 7)
    assert (first.sum(1) == 7).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    pairs = offsets([0.1, 0.2, 0.4])
    assert evaluate(pairs, ROUGHNESS, seed=3) == evaluate(pairs, ROUGHNESS, seed=3)
    assert evaluate(pairs * 1, ROUGHNESS, seed=3) != evaluate(pairs, ROUGHNESS, seed=8)


def test_crossed_draws_know_seeds_and_pictures():
    """Pictures that all seeds agree on have the interval they have alone; seeds that differ are not averaged away by pictures."""
    n, seeds = 40, 3
    own = np.random.default_rng(0).normal(size=n)
    alone = [statistic("mean", w, own, np.ones(n)) for w in draw_weights(n, resamples=250, seed=4)]
    draws = list(draw_crossed_weights(seeds, n, resamples=250, seed=4))
    assert [d.shape for d in draws] == [(100, seeds * n), (100, seeds * n), (50, seeds * n)]
    agreed = [statistic("mean", w, np.tile(own, seeds), np.ones(seeds * n)) for w in draws]
    assert np.allclose(np.concatenate(agreed), np.concatenate(alone))
    apart = np.repeat([0.0, 1.0, 2.0], n)
    by_seed = np.concatenate([statistic("mean", w, apart, np.ones(seeds * n)) for w in draws])
    assert set(np.round(3 * by_seed, 9)) == set(range(7))


def test_one_picture_has_no_interval():
    figure = evaluate(offsets([0.2]), ROUGHNESS).figures["rms"]
    assert math.isnan(figure.low)
    assert math.isnan(figure.high)


# ---- JSON


def test_json_round_trip(normals):
    evaluation = evaluate(normals, NORMALS)
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == evaluation
    single = evaluate(normals[:1], NORMALS)
    back = Evaluation.from_json(json.loads(json.dumps(single.to_json(), allow_nan=False)))
    assert math.isnan(back.figures["mean_deg"].low)
    assert back.pictures == single.pictures
    with pytest.raises(DataError, match="not an evaluation"):
        Evaluation.from_json({"figures": {}})


# ---- paired comparison


def test_a_paired_comparison_sees_what_intervals_alone_do_not():
    rng = np.random.default_rng(5)
    base = rng.uniform(0.1, 0.4, 40)
    a = evaluate(offsets(base - 0.01 + rng.normal(0, 0.004, 40)), ROUGHNESS)
    b = evaluate(offsets(base), ROUGHNESS)
    assert a.figures["rms"].high > b.figures["rms"].low  # the intervals overlap
    result = compare(a, b, "rms")
    assert result.difference == pytest.approx(a.figures["rms"].value - b.figures["rms"].value)
    assert result.low < result.difference < result.high < 0
    assert result.better == "a"
    assert compare(b, a, "rms").better == "b"
    assert compare(a, b, "psnr").better == "a"  # higher is better there
    assert (result.n, result.protocol) == (40, "raw")


def test_a_comparison_of_equals_is_undecided():
    a = evaluate(offsets([0.1, 0.2, 0.3]), ROUGHNESS)
    same = compare(a, a)
    assert (same.difference, same.low, same.high, same.better) == (0, 0, 0, "")


def test_pictures_are_paired_by_key_not_by_order():
    pairs = [(f"k{i}", *tilted(np.linspace(1, 20 + 5 * i, 60 + i))) for i in range(6)]
    forth, back = evaluate(pairs, NORMALS), evaluate(pairs[::-1], NORMALS)
    for figure in ("mean_deg", "median_deg", "rmse_deg", "below_5"):
        result = compare(forth, back, figure)
        assert (result.difference, result.low, result.high) == pytest.approx((0, 0, 0), abs=1e-9), figure


def test_a_pooled_median_needs_the_fresh_evaluation():
    pairs = [(f"k{i}", *tilted(np.linspace(1, 20 + i, 60))) for i in range(4)]
    worse = [(key, *tilted(np.linspace(5, 24 + i, 60))) for i, (key, *_) in enumerate(pairs)]
    a, b = evaluate(pairs, NORMALS), evaluate(worse, NORMALS)
    result = compare(a, b, "median_deg")
    assert result.difference == pytest.approx(-4.0, abs=0.4)
    assert result.high < 0
    stored = Evaluation.from_json(a.to_json())
    assert compare(stored, b, "mean_deg").difference == pytest.approx(-4.0, abs=0.1)
    with pytest.raises(ConfigError, match="mean_deg"):
        compare(stored, b, "median_deg")


def test_unlike_evaluations_cannot_be_compared(normals):
    a, b = evaluate(offsets([0.1, 0.2]), ROUGHNESS), evaluate(offsets([0.1, 0.2, 0.3]), ROUGHNESS)
    with pytest.raises(DataError, match="'k2'"):
        compare(a, b)
    with pytest.raises(ConfigError, match="no figure 'nope'"):
        compare(a, a, "nope")
    with pytest.raises(DataError, match="normals-per-image"):
        compare(evaluate(normals, NORMALS), evaluate(normals, NORMALS, protocol="normals-per-image"))


# ---- errors


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate([], NORMALS)


def test_errors_name_the_picture():
    good = offsets([0.1])[0]
    truth, valid = good[2], good[3]
    cases = {
        "no pixel counts": ("bad", truth, truth, torch.zeros_like(valid)),
        "one shape": ("bad", truth[..., :-1], truth, valid),
        "mask must be bool": ("bad", truth, truth, valid.float()),
        "NaN or infinite at 1 of 20": (
            "bad",
            truth.clone().index_put_((torch.tensor(0),) * 3, torch.tensor(torch.nan)),
            truth,
            valid,
        ),
    }
    for message, pair in cases.items():
        with pytest.raises(DataError, match=rf"'bad'.*{message}"):
            evaluate([good, pair], ROUGHNESS)
    with pytest.raises(DataError, match=r"'k0'.*came before"):
        evaluate([good, good], ROUGHNESS)


def test_depth_outside_the_limits_names_the_picture_and_the_reason():
    far = torch.full((1, 3, 3), 300.0)
    with pytest.raises(DataError, match=r"'far'.*limits"):
        evaluate([("far", far, far, far > 0)], DEPTH, protocol="metric@0.6-80", predicts="metric")


def test_a_protocol_that_does_not_suit_is_refused_before_any_map_is_read():
    def pairs():
        raise AssertionError("read")
        yield

    with pytest.raises(UnknownName, match="scale-invariant"):
        evaluate(pairs(), ALBEDO, protocol="median")
    with pytest.raises(UnknownName, match="relative01"):
        evaluate(pairs(), replace(DEPTH, kind="affine_depth"), protocol="metric")


def test_masked_pixels_may_hold_anything():
    key, prediction, truth, valid = offsets([0.1], size=(4, 5))[0]
    valid[:, 0] = False
    wild = torch.where(valid, prediction, torch.full_like(prediction, float("nan")))
    assert evaluate([(key, wild, truth, valid)], ROUGHNESS).figures["rms"].value == pytest.approx(0.1)
