"""Metrics against the figures of the field's own code (tests/oracles/labelers) and against geometry."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_core.errors import ConfigError, DataError, UnknownName
from ilora_core.intrinsics import ALBEDO, BUILT_IN, DEPTH, NORMALS, SHADING, Intrinsic
from ilora_core.metrics import PictureMetric, get_metric, metrics_for, register_metric
from ilora_core.metrics.depth import ALIGNMENTS, fit_scale_shift, measure_depth, measure_paper, measure_relative
from ilora_core.metrics.figures import Measured
from ilora_core.metrics.normals import angular_error_deg, measure_normals, omnidata_terms
from ilora_core.metrics.protocols import get_protocol, protocols_for
from ilora_core.metrics.reflectance import (
    lmse,
    lmse_score,
    measure_range,
    measure_raw,
    measure_scale_invariant,
    scale_invariant_mse,
)
from ilora_core.metrics.whdr import whdr
from ilora_core.protocols import Metric

ORACLES = Path(__file__).parent / "oracles" / "labelers"
OUR_NORMALS = {
    "mean_angular_error": "mean_deg",
    "median_angular_error": "median_deg",
    "rmse_angular_error": "rmse_deg",
    "sub5_error": "below_5",
    "sub7_5_error": "below_7_5",
    "sub11_25_error": "below_11_25",
    "sub22_5_error": "below_22_5",
    "sub30_error": "below_30",
}
MARIGOLD_DEPTH = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "delta1",
    "delta2_acc": "delta2",
    "delta3_acc": "delta3",
    "i_rmse": "irmse",
    "silog_rmse": "silog",
}
ZOE_DEPTH = {
    "a1": "delta1",
    "a2": "delta2",
    "a3": "delta3",
    "abs_rel": "abs_rel",
    "rmse": "rmse",
    "log_10": "log10",
    "rmse_log": "rmse_log",
    "silog": "silog",
    "sq_rel": "sq_rel",
}
DIODE_DEPTH = {"mae": "mae", "rmse": "rmse", "abs_rel": "abs_rel", "log_mae": "log10"} | {
    f"delta{n}": f"delta{n}" for n in (1, 2, 3)
}
LIMITS = (1e-3, 80.0)


@pytest.fixture(scope="module")
def arrays():
    with np.load(ORACLES / "metrics_arrays.npz") as data:
        return {name: torch.from_numpy(data[name]) for name in data}


@pytest.fixture(scope="module")
def expected():
    return json.loads((ORACLES / "metrics_expected.json").read_text())


def normals_of(arrays, i):
    truth = arrays["normals_gt"][i]
    return arrays["normals_pred"][i], truth, torch.ones_like(truth[:1], dtype=torch.bool)


def depth_of(arrays, i):
    return arrays["depth_pred"][i][None], arrays["depth_gt"][i][None], arrays["depth_mask"][i][None]


def reflectance_of(arrays, name):
    return arrays[f"iid_{name}_pred"][None], arrays[f"iid_{name}"][None], arrays["iid_mask"].bool()[None]


def rotated(truth, degrees):
    """Normals (3,H,W) turned about an axis at right angles to each of them."""
    axis = torch.linalg.cross(truth, torch.tensor([1.0, 0, 0]).to(truth).view(3, 1, 1).expand_as(truth), dim=0)
    side = torch.linalg.cross(axis / axis.norm(dim=0), truth, dim=0)
    angle = math.radians(degrees)
    return truth * math.cos(angle) + side * math.sin(angle)


def some_normals(seed, size=(16, 20)):
    n = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return n / n.norm(dim=0)


# ---- normals


@pytest.mark.parametrize("i", range(3))
def test_normals_of_a_picture_equal_marigold(arrays, expected, i):
    wanted = expected["normals_per_image_marigold"][i]
    measured = measure_normals(*normals_of(arrays, i))
    assert measured.pixels == wanted["n_valid"]  # truth without a direction is not counted, whatever the mask says
    for theirs, ours in OUR_NORMALS.items():
        assert measured.figures[ours] == pytest.approx(wanted[theirs], abs=6e-5), ours
    assert measured.figures["l1x100"] == pytest.approx(expected["normals_l1x100"]["per_image"][i], rel=1e-6)


def test_loss_terms_equal_omnidata(arrays, expected):
    truth = arrays["normals_gt"]
    l1, cosine = omnidata_terms(arrays["normals_pred"], truth, torch.ones_like(truth[:, :1], dtype=torch.bool))
    wanted = expected["omnidata_training_losses_on_01"]
    assert l1 == pytest.approx(wanted["masked_l1"], abs=1e-7)
    assert cosine == pytest.approx(wanted["masked_cos"], abs=1e-6)
    nothing = torch.zeros_like(truth[:, :1], dtype=torch.bool)
    assert all(math.isnan(value) for value in omnidata_terms(truth, truth, nothing))


def test_thresholds_are_strict_and_named():
    truth = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).view(3, 1, 1).expand(3, 1, 4).clone()
    angles = torch.tensor([0.0, 4.99, 7.6, 31.0], dtype=torch.float64).deg2rad()
    prediction = torch.stack([angles.sin(), torch.zeros(4), -angles.cos()])[:, None]
    figures = measure_normals(prediction, truth, torch.ones(1, 1, 4, dtype=torch.bool)).figures
    shares = {name: value for name, value in figures.items() if name.startswith("below")}
    assert shares == {"below_5": 50, "below_7_5": 50, "below_11_25": 75, "below_22_5": 75, "below_30": 75}


def test_a_share_leaves_out_the_threshold_itself(monkeypatch):
    monkeypatch.setattr("ilora_core.metrics.normals.THRESHOLDS_DEG", (90.0, 90.5))  # right angles are exact
    truth = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    prediction = torch.tensor([0.0, 2.0, 0.0]).view(3, 1, 1)
    figures = measure_normals(prediction, truth, torch.ones(1, 1, 1, dtype=torch.bool)).figures
    assert (figures["mean_deg"], figures["below_90"], figures["below_90_5"]) == (90.0, 0.0, 100.0)


@pytest.mark.parametrize("degrees", [1e-4, 0.01, 5.0, 90.0, 179.0])
def test_a_known_rotation_is_measured_exactly(degrees):
    truth = some_normals(0)
    error = angular_error_deg(3.7 * rotated(truth, degrees), truth, dim=0)
    assert torch.allclose(error, torch.full_like(error, degrees), rtol=1e-9, atol=1e-9)


def test_small_errors_survive_float32():
    truth = some_normals(1).float()
    error = angular_error_deg(rotated(truth, 0.02), truth, dim=0)
    assert (error - 0.02).abs().max() < 1e-4  # arccos in float32 gives 0.00 or 0.028 here


def test_a_prediction_without_direction_is_wrong_by_90():
    truth = some_normals(2)
    error = angular_error_deg(torch.zeros_like(truth), truth, dim=0)
    assert torch.equal(error, torch.full_like(error, 90.0))


def test_masked_normals_do_not_matter():
    truth, valid = some_normals(3), torch.ones(1, 16, 20, dtype=torch.bool)
    valid[:, :8] = False
    prediction = rotated(truth, 12.0)
    wild = torch.where(valid, prediction, torch.full_like(prediction, float("nan")))
    hole = torch.where(valid, truth, torch.full_like(truth, float("inf")))
    assert measure_normals(wild, hole, valid).figures == measure_normals(prediction, truth, valid).figures
    assert measure_normals(wild, hole, valid).pixels == 160


# ---- depth


@pytest.mark.parametrize("i", range(3))
@pytest.mark.parametrize(
    ("alignment", "section", "names"),
    [
        ("metric", "depth_none", MARIGOLD_DEPTH),
        ("metric", "depth_none_zoe", ZOE_DEPTH),
        ("metric", "depth_none_diode_devkit", DIODE_DEPTH),
        ("median", "depth_median_scaled_zoe", ZOE_DEPTH),
        ("marigold-lsq", "depth_lsq_depth_space", MARIGOLD_DEPTH),
        ("disparity-lsq", "depth_lsq_disparity_space(pred=1/depth_pred)", MARIGOLD_DEPTH),
    ],
)
def test_depth_equals_the_published_code(arrays, expected, alignment, section, names, i):
    rows = expected[section]
    wanted = (rows if isinstance(rows, list) else rows["metrics"])[i]
    prediction, truth, valid = depth_of(arrays, i)
    prediction = 1 / prediction.double() if alignment == "disparity-lsq" else prediction
    figures = measure_depth(prediction, truth, valid, alignment=alignment, limits_m=LIMITS).figures
    for theirs, ours in names.items():
        assert figures[ours] == pytest.approx(wanted[theirs], rel=3e-6, abs=1e-7), ours
    if section == "depth_none_diode_devkit":  # their logarithm has base 10
        assert figures["rmse_log"] / math.log(10) == pytest.approx(wanted["log_rmse"], rel=1e-6)


@pytest.mark.parametrize("i", range(3))
def test_scale_and_shift_equal_the_published_code(arrays, expected, i):
    prediction, truth, valid = (x[0] for x in depth_of(arrays, i))
    p, g = prediction[valid].double(), truth[valid].double()
    wanted = expected["depth_lsq_depth_space"]["scale_shift"][i]
    assert fit_scale_shift(p, g) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    wanted = expected["depth_lsq_disparity_space(pred=1/depth_pred)"]["scale_shift"][i]
    assert fit_scale_shift(1 / p, 1 / g) == pytest.approx(wanted, rel=1e-5)
    wanted = expected["depth_median_scaled_zoe"][i]["scale"]
    assert (ALIGNMENTS["median"](p, g) / p).mean().item() == pytest.approx(wanted, rel=1e-6)


def some_depth(seed, size=(12, 15)):
    return 1 + 4 * torch.rand(1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("alignment", "distort"),
    [
        ("metric", lambda d: d),
        ("median", lambda d: 0.37 * d),
        ("marigold-lsq", lambda d: 0.2 * d - 0.9),
        ("disparity-lsq", lambda d: 5 / d - 0.3),
    ],
)
def test_an_alignment_undoes_what_it_is_for(alignment, distort):
    truth = some_depth(0)
    valid = torch.ones_like(truth, dtype=torch.bool)
    figures = measure_depth(distort(truth), truth, valid, alignment=alignment).figures
    perfect = {"delta1": 1, "delta2": 1, "delta3": 1}
    assert figures == pytest.approx({name: perfect.get(name, 0.0) for name in figures}, abs=1e-6)
    if alignment != "metric":
        assert measure_depth(distort(truth), truth, valid, alignment="metric").figures["abs_rel"] > 0.05


def test_a_constant_factor_has_known_depth_figures():
    truth = some_depth(1)
    valid = torch.ones_like(truth, dtype=torch.bool)
    figures = measure_depth(1.3 * truth, truth, valid, alignment="metric").figures
    known = {"abs_rel": 0.3, "log10": math.log10(1.3), "rmse_log": math.log(1.3), "silog": 0.0}
    assert {name: figures[name] for name in known} == pytest.approx(known, abs=1e-9)
    assert (figures["delta1"], figures["delta2"], figures["delta3"]) == (0.0, 1.0, 1.0)
    assert figures["mae"] == pytest.approx(0.3 * truth.mean().item())


def test_truth_outside_the_limits_is_not_counted_and_predictions_are_clipped():
    truth = torch.tensor([0.0, 2.0, 4.0, 500.0, float("nan")], dtype=torch.float64).view(1, 1, 5)
    prediction = torch.tensor([9.0, -1.0, 4.0, 9.0, 9.0], dtype=torch.float64).view(1, 1, 5)
    valid = torch.ones(1, 1, 5, dtype=torch.bool)
    measured = measure_depth(prediction, truth, valid, alignment="metric", limits_m=(0.5, 80.0))
    assert measured.pixels == 2
    assert measured.figures["abs_rel"] == pytest.approx((1.5 / 2 + 0) / 2)


def test_median_scaling_refuses_a_prediction_around_zero():
    truth = some_depth(2)
    with pytest.raises(DataError, match="positive"):
        measure_depth(-truth, truth, torch.ones_like(truth, dtype=torch.bool), alignment="median")


def test_a_constant_prediction_is_aligned_to_the_mean():
    assert fit_scale_shift(torch.full((9,), 3.0), torch.arange(9.0)) == (0.0, 4.0)


def test_relative_depth_takes_the_prediction_as_it_is():
    truth = some_depth(3).float()
    valid = torch.ones_like(truth, dtype=torch.bool)
    near = DEPTH.to_picture(truth[None], valid[None])
    exact = DEPTH.from_picture(near)[0]
    assert measure_relative(exact, truth, valid, intrinsic=DEPTH).figures["rms01"] == pytest.approx(0, abs=1e-6)
    shifted = measure_relative(exact + 0.1, truth, valid, intrinsic=DEPTH).figures
    assert shifted == pytest.approx({"rms01": 0.1, "mae01": 0.1}, abs=1e-6)  # a re-normalised prediction would give 0
    flipped = measure_relative(1 - exact, truth, valid, intrinsic=DEPTH).figures["rms01"]
    assert flipped == pytest.approx((2 * near[0, :1] - 1).square().mean().sqrt().item(), rel=1e-5)


def test_relative_depth_knows_disparity():
    disparity = replace(DEPTH, kind="affine_disparity", unit="relative")
    truth = some_depth(4).float()
    valid = torch.ones_like(truth, dtype=torch.bool)
    exact = disparity.from_picture(disparity.to_picture(truth[None], valid[None]))[0]
    assert measure_relative(exact, truth, valid, intrinsic=disparity).figures["rms01"] == pytest.approx(0, abs=1e-6)
    assert measure_relative(1 - exact, truth, valid, intrinsic=disparity).figures["rms01"] > 0.3


def test_relative_depth_refuses_metres():
    truth = some_depth(5).float()
    with pytest.raises(DataError, match="--predicts metric"):
        measure_relative(truth, truth, torch.ones_like(truth, dtype=torch.bool), intrinsic=DEPTH)


def test_the_papers_depth_stretches_the_prediction():
    truth = torch.linspace(1.0, 9.0, 101).view(1, 1, 101)
    valid = torch.ones_like(truth, dtype=torch.bool)
    figures = measure_paper(0.1 + 0.05 * truth, truth, valid, intrinsic=DEPTH).figures
    # The reference cuts the farthest hundredth: the last of 101 pixels meets the one before it, stretched by 100/99.
    ramp, cut = np.linspace(0, 1, 101), np.minimum(np.linspace(0, 1, 101), 0.99) / 0.99
    assert figures["rms01"] == pytest.approx(np.sqrt(np.mean((ramp - cut) ** 2)), rel=1e-3)
    ratio = (1 - ramp + 1e-6) / (1 - cut + 1e-6)
    assert figures["delta1_01"] == pytest.approx(100 * np.mean(np.maximum(ratio, 1 / ratio) < 1.25), abs=1e-6)


# ---- albedo, shading, other maps


def test_reflectance_equals_the_published_code(arrays, expected):
    shading, albedo = reflectance_of(arrays, "shading"), reflectance_of(arrays, "albedo")
    wanted = expected["lmse_grosse_fixed"]
    assert lmse(*shading, window=wanted["window"], step=wanted["shift"]) == pytest.approx(wanted["shading"], rel=1e-9)
    assert lmse(*albedo) == pytest.approx(wanted["albedo"], rel=1e-9)
    assert lmse_score(lmse(*albedo), lmse(*shading)) == pytest.approx(wanted["score"], rel=1e-9)
    wanted = expected["si_mse_global"]
    assert scale_invariant_mse(*shading) == pytest.approx(wanted["shading_mean"], rel=1e-9)
    assert scale_invariant_mse(*shading) * shading[2].sum() == pytest.approx(wanted["shading_sum"], rel=1e-9)
    assert scale_invariant_mse(*albedo) == pytest.approx(wanted["albedo_mean"], rel=1e-9)
    assert measure_raw(*shading).figures["rms"] == pytest.approx(expected["rms"]["shading"], rel=1e-9)
    assert measure_raw(*albedo).figures["rms"] == pytest.approx(expected["rms"]["albedo"], rel=1e-9)


def some_colours(seed, size=(45, 52)):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(3, *size, generator=g, dtype=torch.float64), torch.ones(1, *size, dtype=torch.bool)


def test_scale_invariant_figures_ignore_a_scale_and_nothing_else():
    truth, valid = some_colours(0)
    scaled = measure_scale_invariant(0.3 * truth, truth, valid).figures
    assert scaled == pytest.approx({"si_rms": 0, "si_mse": 0, "lmse": 0}, abs=1e-9)
    shifted = measure_scale_invariant(truth + 0.3, truth, valid).figures
    assert min(shifted.values()) > 0.01
    tinted = truth * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
    assert scale_invariant_mse(tinted, truth, valid) > 0.01
    assert scale_invariant_mse(tinted, truth, valid, per_channel=True) == pytest.approx(0, abs=1e-15)


def test_lmse_by_hand_on_two_windows():
    truth = torch.ones(1, 20, 30, dtype=torch.float64)
    prediction = torch.ones_like(truth)
    prediction[..., 10:] = 2.0  # the second window is constant: only the first one, half and half, has an error
    alpha = (1 + 2) / (1 + 4)
    first = 200 * (1 - alpha) ** 2 + 200 * (1 - 2 * alpha) ** 2
    assert lmse(prediction, truth, truth.bool()) == pytest.approx(first / 800)


def test_lmse_of_a_black_prediction_is_one_and_of_black_truth_nan():
    truth, valid = some_colours(1, (8, 9))
    assert lmse(torch.zeros_like(truth), truth, valid) == 1.0
    assert math.isnan(lmse(truth, torch.zeros_like(truth), valid))


def test_range_figures_and_their_units():
    truth, valid = some_colours(2)
    figures = measure_range(truth + 0.1, truth, valid, span=2.0).figures
    assert figures == pytest.approx({"rms": 0.1, "mae": 0.1, "psnr": 20 * math.log10(20)})
    assert measure_range(truth, truth, valid).figures == {"rms": 0.0, "mae": 0.0, "psnr": 100.0}


@pytest.mark.parametrize("measure", [measure_raw, measure_scale_invariant, measure_range])
def test_masked_values_do_not_matter(measure):
    truth, valid = some_colours(3)
    valid[:, 5:20, 7:30] = False
    prediction = (truth + 0.1 * torch.rand(truth.shape)).clamp(0, 1)
    wild = torch.where(valid, prediction, torch.full_like(prediction, 1e6))
    assert measure(wild, truth, valid).figures == pytest.approx(measure(prediction, truth, valid).figures, rel=1e-12)


def test_whdr_equals_the_published_code(arrays, expected):
    reflectance, judgements = arrays["whdr_reflectance"].permute(2, 0, 1), expected["whdr"]["judgements"]
    assert whdr(reflectance, judgements) == pytest.approx(expected["whdr"]["delta_0.10"], rel=1e-12)
    assert whdr(reflectance, judgements, delta=0.05) == pytest.approx(expected["whdr"]["delta_0.05"], rel=1e-12)


def test_whdr_without_comparisons_is_none():
    points = [{"id": 1, "x": 0.1, "y": 0.1, "opaque": False}, {"id": 2, "x": 0.9, "y": 0.9, "opaque": True}]
    comparison = {"point1": 1, "point2": 2, "darker": "1", "darker_score": 1.0}
    judgements = {"intrinsic_points": points, "intrinsic_comparisons": [comparison]}
    assert whdr(torch.rand(3, 5, 5), judgements) is None
    points[0]["opaque"] = True
    ramp = torch.linspace(0.1, 1, 25).view(1, 5, 5)
    assert whdr(ramp, judgements) == 0.0
    assert whdr(1.1 - ramp, judgements) == 1.0
    red = torch.cat([1.1 - ramp, 3 * ramp, 3 * ramp])  # the mean of the channels decides, not the first one
    assert whdr(red, judgements) == 0.0


# ---- Metric objects


def test_every_intrinsic_finds_the_metric_it_is_chosen_by():
    for intrinsic in BUILT_IN.values():
        metric = get_metric(intrinsic.metric)
        assert isinstance(metric, Metric)
        assert metric in metrics_for(intrinsic)
        assert metric.intrinsic in (intrinsic.name, "")
        assert not metric.higher_is_better


def test_a_metric_gives_one_figure_per_picture_and_nan_without_pixels(arrays, expected):
    truth, prediction = arrays["normals_gt"], arrays["normals_pred"]
    valid = torch.ones_like(truth[:, :1], dtype=torch.bool)
    valid[1] = False
    got = get_metric("normals_mean_deg")(prediction, truth, valid)
    wanted = [row["mean_angular_error"] for row in expected["normals_per_image_marigold"]]
    assert got.tolist() == pytest.approx([wanted[0], math.nan, wanted[2]], abs=6e-5, nan_ok=True)


@pytest.mark.parametrize("metric", [m for i in BUILT_IN for m in metrics_for(i)], ids=lambda m: m.name)
def test_every_metric_prefers_the_truth_and_shows_nan(metric):
    g = torch.Generator().manual_seed(5)
    shape = (2, 1 if metric.intrinsic == "depth" else 3, 24, 24)
    truth = 0.2 + 0.6 * torch.rand(shape, generator=g)
    exact = DEPTH.from_picture(DEPTH.to_picture(truth)) if metric.name in ("depth_rms01", "depth_mae01") else truth
    exact = 1 / exact if metric.name.endswith("@disparity-lsq") else exact
    noisy = exact + (2.0 if metric.intrinsic == "normals" else 0.4) * exact.mean() * torch.rand(shape, generator=g)
    valid = torch.ones_like(truth[:, :1], dtype=torch.bool)
    best, worse = metric(exact, truth, valid), metric(noisy, truth, valid)
    assert best.shape == (2,)
    assert ((best > worse) if metric.higher_is_better else (best < worse)).all()
    broken = exact.clone()
    broken[0, 0, 0, 0] = float("nan")
    shown = metric(broken, truth, valid)
    assert shown[0].isnan()
    assert shown[1] == best[1]


def test_relative_depth_metric_has_the_agreed_meaning():
    truth = some_depth(6).float()[None]
    valid = torch.ones_like(truth, dtype=torch.bool)
    prediction = DEPTH.from_picture(DEPTH.to_picture(truth, valid)) * 0.9
    wanted = (0.1 * (1 - DEPTH.to_picture(truth, valid)[:, :1])).square().mean().sqrt()
    assert get_metric("depth_rms01")(prediction, truth, valid).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_unknown_metric_lists_the_known_ones():
    with pytest.raises(UnknownName, match=r"Did you mean normals_mean_deg.*albedo_rms.*shading_si_rms"):
        get_metric("normals_mean_degr")


def test_a_registered_metric_is_found_once():
    metric = PictureMetric("roughness_test_bias", "roughness_test", "", False, "bias", lambda p, g, v: Measured({}, 0))
    assert register_metric(metric) is register_metric(metric) is get_metric("roughness_test_bias")
    assert metrics_for("roughness_test")[0] is metric
    with pytest.raises(ConfigError, match="exists already"):
        register_metric(PictureMetric("roughness_test_bias", "", "", False, "bias", lambda p, g, v: Measured({}, 0)))


def test_psnr_takes_the_range_of_the_users_map():
    height = Intrinsic("height", 1, "mm", "linear", -5.0, 15.0)
    truth = torch.zeros(1, 1, 4, 4)
    psnr = {m.name: m for m in metrics_for(height)}["psnr"]
    assert psnr(truth + 2, truth, truth == 0).item() == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("prediction", "valid", "message"),
    [
        ((1, 3, 4, 5), (1, 1, 4, 4), "one shape"),
        ((3, 4, 4), (1, 1, 4, 4), "one shape"),
        ((1, 3, 4, 4), (1, 3, 4, 4), "mask"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(prediction, valid, message):
    with pytest.raises(DataError, match=message):
        get_metric("albedo_rms")(torch.zeros(prediction), torch.zeros(1, 3, 4, 4), torch.ones(valid).bool())


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(DataError, match="bool"):
        get_metric("albedo_rms")(*[torch.zeros(1, 3, 4, 4)] * 2, torch.ones(1, 1, 4, 4))


# ---- protocols


def test_protocols_suit_their_intrinsic():
    affine = replace(DEPTH, kind="affine_depth")
    roughness = Intrinsic("roughness", 1, "", "linear")
    assert protocols_for(NORMALS)[0] == "normals-pooled"
    assert protocols_for(DEPTH) == ("relative01", "paper", "median", "marigold-lsq", "disparity-lsq", "metric")
    assert protocols_for(affine) == ("relative01", "paper")
    assert (protocols_for(ALBEDO)[0], protocols_for(SHADING)[0]) == ("raw", "scale-invariant")
    assert [f.name for f in get_protocol(None, roughness).figures] == ["rms", "mae", "psnr"]
    with pytest.raises(UnknownName, match="metric for the others"):
        get_protocol("metric", affine)
    with pytest.raises(UnknownName, match="normals-pooled, normals-per-image"):
        get_protocol("marigold-lsq", NORMALS)


def test_limits_are_part_of_a_protocols_name():
    truth = torch.tensor([0.5, 2.0, 4.0, 90.0]).view(1, 1, 4)
    valid = torch.ones_like(truth, dtype=torch.bool)
    protocol = get_protocol("metric@0.6-80", DEPTH, predicts="metric")
    assert protocol.name == "metric@0.6-80"
    assert protocol.measure(truth, truth, valid).pixels == 2
    assert get_protocol("metric", DEPTH, predicts="metric").measure(truth, truth, valid).pixels == 4
    for wrong in ("metric@80", "metric@80-0.6"):
        with pytest.raises(ConfigError, match="limits in metres"):
            get_protocol(wrong, DEPTH)
    with pytest.raises(UnknownName):
        get_protocol("relative01@0.6-80", DEPTH)
