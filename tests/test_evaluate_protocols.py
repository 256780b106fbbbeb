"""Several protocols on the same predictions, against the field's own code; results beside earlier ones, or refused."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ilora_cli.main import main
from ilora_cli.terminal_tables import fitting_tables
from ilora_core.errors import ConfigError, DataError
from ilora_core.evaluate import evaluate_all
from ilora_core.evaluate_results import leading_figures, merge_results, read_results
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS
from ilora_core.metrics.predicted import PREDICTS
from ilora_core.metrics.protocols import get_protocol, protocols_for
from ilora_core.report import evaluation_table, protocols_table

ORACLES = Path(__file__).parent / "oracles" / "labelers"
LIMITS = "@0.001-80"  # the oracles' own
MARIGOLD = {
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
ZOE = {"a1": "delta1", "a2": "delta2", "a3": "delta3", "log_10": "log10"} | {
    name: name for name in ("abs_rel", "rmse", "rmse_log", "silog", "sq_rel")
}
NORMAL_FIGURES = ("mean_deg", "median_deg", "rmse_deg", "below_5", "below_7_5", "below_11_25", "below_22_5", "below_30")


@pytest.fixture(scope="module")
def expected():
    return json.loads((ORACLES / "metrics_expected.json").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The oracles' arrays as files: data/{depth,normals,mask} and maps/{depth,normals}."""
    root = tmp_path_factory.mktemp("oracles")
    with np.load(ORACLES / "metrics_arrays.npz") as arrays:
        files = {
            "data/depth": arrays["depth_gt"],
            "data/depth_mask": arrays["depth_mask"].astype(np.uint8) * 255,
            "data/normals": arrays["normals_gt"].transpose(0, 2, 3, 1),
            "maps/depth": arrays["depth_pred"],
            "maps/normals": arrays["normals_pred"].transpose(0, 2, 3, 1),
        }
    for folder, maps in files.items():
        (root / folder).mkdir(parents=True)
        for i, value in enumerate(maps):
            np.save(root / folder / f"{i}.npy", value)
    return root


def command(folders, *arguments):
    """`ilora evaluate` in a process of its own; what it prints as JSON."""
    line = [sys.executable, "-m", "ilora_cli.main", "evaluate", "maps", "--truth", "data", *arguments, "--json"]
    done = subprocess.run(line, cwd=folders, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- against the field's code


def test_every_depth_protocol_equals_the_fields_code_in_one_pass(folders, expected):
    oracles = {
        "metric": (expected["depth_none"], MARIGOLD),
        "median": (expected["depth_median_scaled_zoe"], ZOE),
        "marigold-lsq": (expected["depth_lsq_depth_space"]["metrics"], MARIGOLD),
        "disparity-lsq": (expected["depth_lsq_disparity_space(pred=1/depth_pred)"]["metrics"], MARIGOLD),
    }
    names = ",".join(stem + LIMITS for stem in oracles)
    told = command(folders, "-i", "depth", "--predicts", "metric", "--protocol", names)
    assert list(told["results"]) == names.split(",")
    for stem, (rows, figures) in oracles.items():
        found = told["results"][stem + LIMITS]["maps"]
        assert (found["n"], found["predicts"]) == (3, "metric")
        for theirs, ours in figures.items():
            for i, row in enumerate(rows):
                assert found["pictures"][str(i)][ours] == pytest.approx(row[theirs], rel=3e-6, abs=1e-7), (stem, ours)
            mean = np.mean([row[theirs] for row in rows])
            assert found["figures"][ours]["value"] == pytest.approx(mean, rel=3e-6, abs=1e-7), (stem, ours)
        assert told["side_by_side"]["maps"][stem + LIMITS]["abs_rel"] == found["figures"]["abs_rel"]["value"]


def test_both_protocols_of_normals_equal_the_fields_code_in_one_pass(folders, expected):
    told = command(folders, "-i", "normals", "--protocol", "normals-pooled", "--protocol", "normals-per-image")
    pooled, per_image = (told["results"][name]["maps"]["figures"] for name in ("normals-pooled", "normals-per-image"))
    for ours, theirs in zip(NORMAL_FIGURES, expected["normals_pooled_dsine"].values(), strict=True):
        assert pooled[ours]["value"] == pytest.approx(theirs, abs=1e-4), ours
    for ours, theirs in zip(NORMAL_FIGURES, expected["normals_mean_of_images_marigold"].values(), strict=True):
        assert per_image[ours]["value"] == pytest.approx(theirs, abs=6e-5), ours  # they round to four decimals


# ---- what predictions hold


def depth_pairs(distort, *, seeds=(0, 1), size=(12, 16)):
    """Depth of 1 to 5 m, and what `distort` makes of it."""
    for seed in seeds:
        truth = 1 + 4 * torch.rand(1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        yield f"k{seed}", distort(truth), truth, torch.ones_like(truth, dtype=torch.bool)


def relative(x):
    return (x - x.min()) / (x.max() - x.min())


@pytest.mark.parametrize(
    ("predicts", "distort", "exact"),
    [
        ("depth", lambda d: 0.2 * d + 0.9, ["marigold-lsq"]),
        ("depth", lambda d: relative(-1 / d), ["disparity-lsq"]),  # 1 − p is affine in 1/d
        ("depth", lambda d: d / 5, ["median", "marigold-lsq"]),
        ("disparity", lambda d: 7 / d - 0.3, ["disparity-lsq"]),
        ("metric", lambda d: d, ["median", "marigold-lsq", "disparity-lsq", "metric"]),
    ],
)
def test_each_kind_is_read_as_what_it_is(predicts, distort, exact):
    names = [name for name in protocols_for(DEPTH, predicts) if name not in ("relative01", "paper")]
    found = evaluate_all(depth_pairs(distort), DEPTH, protocols=names, predicts=predicts)
    assert [name for name, e in found.items() if e.figures["abs_rel"].value < 1e-6] == exact
    assert {e.predicts for e in found.values()} == {predicts}
    assert all(e.read_as for e in found.values())


def test_relative_depth_goes_through_all_protocols_but_metric():
    found = evaluate_all(depth_pairs(relative), DEPTH, protocols=protocols_for(DEPTH, "depth"))
    assert list(found) == ["relative01", "paper", "median", "marigold-lsq", "disparity-lsq"]
    assert found["marigold-lsq"].figures["abs_rel"].value < 1e-6
    assert 0.01 < found["disparity-lsq"].figures["abs_rel"].value < 0.5
    assert "1 − depth, taken as disparity" in found["disparity-lsq"].read_as
    flipped = evaluate_all(depth_pairs(lambda d: 1 - relative(d)), DEPTH, protocols=("disparity-lsq",))
    for name, figure in found["disparity-lsq"].figures.items():  # the fit does not mind the sign
        assert flipped["disparity-lsq"].figures[name].value == pytest.approx(figure.value, rel=1e-9)


def test_metres_are_drawn_for_the_relative_protocols():
    found = evaluate_all(depth_pairs(lambda d: d), DEPTH, protocols=("relative01", "paper"), predicts="metric")
    assert found["relative01"].figures["rms01"].value < 1e-6
    assert found["paper"].figures["rms01"].value < 0.05  # the paper's rule cuts the truth's far 1 %
    drawn = evaluate_all(depth_pairs(lambda d: 6 - d), DEPTH, protocols=("relative01", "paper"), predicts="metric")
    assert min(e.figures["rms01"].value for e in drawn.values()) > 0.3


@pytest.mark.parametrize("predicts", PREDICTS)
def test_a_protocol_without_a_use_for_a_kind_says_what_else_there_is(predicts):
    usable = protocols_for(DEPTH, predicts)
    assert set(usable) <= set(protocols_for(DEPTH))
    for name in set(protocols_for(DEPTH)) - set(usable):
        with pytest.raises(ConfigError, match=f"{name} has no use for predictions of {predicts}: .* use [a-z]+-lsq"):
            get_protocol(name, DEPTH, predicts=predicts)
    with pytest.raises(ConfigError, match="leave it out"):
        get_protocol(None, NORMALS, predicts=predicts)


def test_one_over_metres_needs_positive_metres():
    with pytest.raises(DataError, match=r"picture 'k0'.* of 192 pixels are 0 or below"):
        evaluate_all(depth_pairs(lambda d: d - 2), DEPTH, protocols=("disparity-lsq",), predicts="metric")


def test_integers_without_a_scale_are_no_metres(folders, tmp_path, capsys):
    np.save(tmp_path / "0.npy", np.full((24, 32), 2000, np.uint16))
    arguments = (tmp_path, "--truth", folders / "data", "-i", "depth", "--protocol", "metric", "--predicts", "metric")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "--scale 0.001" in err
    assert run(capsys, *arguments, "--scale", 0.001)[0] == 0


@pytest.mark.parametrize(
    ("old", "new"), [("none", "metric"), ("lsq-depth", "marigold-lsq"), ("lsq-disparity@1-9", "disparity-lsq")]
)
def test_a_name_that_changed_names_its_successor(old, new):
    with pytest.raises(ConfigError, match=f"it is called {new} now"):
        get_protocol(old, DEPTH)


def test_limits_have_one_spelling():
    names = ("marigold-lsq@0.60-350.0", "marigold-lsq@0.6-350", "marigold-lsq@0.001-1000")
    assert [get_protocol(name, DEPTH).name for name in names] == [names[1], names[1], "marigold-lsq"]
    found = evaluate_all(depth_pairs(lambda d: d), DEPTH, protocols=names)
    assert list(found) == [names[1], "marigold-lsq"]


# ---- side by side


def test_protocols_stand_side_by_side(folders, tmp_path, capsys):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full((24, 32), 3.0, np.float32))
    report = tmp_path / "report.html"
    code, out, err = run(
        *(capsys, f"ours={folders / 'maps'}", f"flat={tmp_path}", "--truth", folders / "data", "-i", "depth"),
        *("--predicts", "metric", "--protocol", "paper,marigold-lsq,metric", "--report", report),
    )
    assert code == 0, err
    table = out.partition("protocol paper")[0]
    assert "3 protocols on the same predictions" in table
    for name in ("paper", "marigold-lsq", "metric", "AbsRel ↓", "δ < 1.25 ↑", "ours", "flat"):
        assert name in table
    for name in ("paper", "marigold-lsq", "metric"):
        assert f"protocol {name} · 3 pictures" in out
    page = report.read_text()
    assert '<th scope="colgroup" colspan="2" class="named">marigold-lsq</th>' in page
    assert "Read as: scale and shift of metres." in page


@pytest.mark.parametrize("width", [60, 80, 100, 300])
def test_a_narrow_terminal_gets_the_table_in_parts_that_fit(width):
    found = evaluate_all(depth_pairs(relative), DEPTH, protocols=protocols_for(DEPTH, "depth"))
    whole = protocols_table({name: {"ours": e, "theirs": e} for name, e in found.items()})
    parts = fitting_tables(whole, width)
    screen = Console(width=width, file=io.StringIO())
    for part in parts:
        screen.print(part)
    shown = screen.file.getvalue()
    for name in found:  # neither cut nor wrapped
        assert len(re.findall(rf"(?<![\w-]){name}(?![\w-])", shown)) == 1
    assert shown.count("theirs") == len(parts)
    assert "…" not in shown
    assert (len(parts) == 1) == (width == 300)


def test_one_protocol_needs_no_second_table(folders, capsys):
    code, out, _ = run(capsys, folders / "maps", "--truth", folders / "data", "-i", "normals")
    assert code == 0
    assert "on the same predictions" not in out


def test_the_table_marks_the_best_method_of_each_column():
    names = ("marigold-lsq", "disparity-lsq")
    ours = evaluate_all(depth_pairs(lambda d: d), DEPTH, protocols=names)
    noisy = evaluate_all(depth_pairs(lambda d: d + 0.5 * (d * 40).sin()), DEPTH, protocols=names)
    noisy = {name: replace(e, predicts="", read_as="") for name, e in noisy.items()}  # written before kinds were told
    table = protocols_table({name: {"ours": ours[name], "noisy": noisy[name]} for name in names})
    assert list(table.groups) == [("", 1), ("", 1), ("marigold-lsq", 2), ("disparity-lsq", 2)]
    assert table.header[2:4] == ["AbsRel ↓", "δ < 1.25 ↑"]
    assert [row[:2] for row in table.rows] == [["ours", "depth"], ["noisy", "not stated"]]
    best = {name: ours[name].figures["abs_rel"].value < noisy[name].figures["abs_rel"].value for name in names}
    assert [table.rows[0][2].best, table.rows[0][4].best] == list(best.values())
    assert best["marigold-lsq"]


def test_unlike_readings_are_told_apart_in_one_table():
    ours = evaluate_all(depth_pairs(relative), DEPTH, protocols=("disparity-lsq",))["disparity-lsq"]
    midas = evaluate_all(depth_pairs(lambda d: 9 / d), DEPTH, protocols=("disparity-lsq",), predicts="disparity")
    note = evaluation_table({"ours": ours, "midas": midas["disparity-lsq"]}).note
    assert "ours: scale and shift of 1 − depth, taken as disparity; midas: scale and shift of disparity." in note


def test_a_protocol_without_known_figures_is_stood_for_by_its_first():
    albedo = [("a", torch.rand(3, 4, 4), torch.rand(3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))]
    raw = evaluate_all(albedo, ALBEDO, protocols=("raw",))["raw"]
    assert leading_figures(raw) == ("rms",)
    assert leading_figures(replace(raw, figures={"own": raw.figures["rms"], "other": raw.figures["mse"]})) == ("own",)


# ---- beside earlier results


@pytest.fixture
def earlier(folders, tmp_path, capsys):
    """Results by two protocols, kept as the command writes them."""

    def keep(*arguments, name="theirs"):
        code, out, err = run(
            capsys, f"{name}={folders / 'maps'}", "--truth", folders / "data", "-i", "depth", *arguments, "--json"
        )
        assert code == 0, err
        (tmp_path / f"{name}.json").write_text(out)
        return tmp_path / f"{name}.json"

    return keep


def test_earlier_results_stand_beside_new_ones(folders, earlier, tmp_path, capsys):
    kept = earlier("--protocol", "paper,marigold-lsq,median")
    second = earlier("--protocol", "paper,marigold-lsq", "--predicts", "metric", name="second")
    arguments = (folders / "maps", "--truth", folders / "data", "-i", "depth", "--protocol", "marigold-lsq,paper")
    report = tmp_path / "report.html"
    code, out, err = run(capsys, *arguments, "--with", kept, "--with", second, "--report", report)
    assert code == 0, err
    assert f"not shown of {kept}: median" in err
    for text in ("maps against theirs (marigold-lsq)", "maps against second (paper)", "undecided"):
        assert text in out
    page = report.read_text()
    assert "earlier: second" in page
    assert str(second) in page
    code, out, _ = run(capsys, *arguments, "--with", kept, "--json")
    told = json.loads(out)
    assert list(told["results"]["paper"]) == ["maps", "theirs"]
    assert told["side_by_side"]["maps"] == told["side_by_side"]["theirs"]
    assert told["comparisons"]["maps against theirs (paper)"]["difference"] == 0.0
    again = tmp_path / "again.json"
    again.write_text(out)
    assert set(read_results(again)["paper"]) == {"maps", "theirs"}  # what was merged can be merged on


@pytest.mark.parametrize(
    ("kept_by", "asked", "message"),
    [
        ("median", "marigold-lsq", "was not evaluated by marigold-lsq, only by median"),
        ("median", "median,paper", "was not evaluated by paper, only by median"),
        ("median@0.5-9", "median", "other limits of truth: median@0.5-9 there, median here"),
        ("median@0.5-9", "median@0.5-8", "other limits of truth: median@0.5-9 there, median@0.5-8 here"),
    ],
)
def test_unlike_protocols_are_never_merged(folders, earlier, capsys, kept_by, asked, message):
    kept = earlier("--protocol", kept_by)
    arguments = (folders / "maps", "--truth", folders / "data", "-i", "depth", "--protocol", asked)
    code, out, err = run(capsys, *arguments, "--with", kept)
    assert (code, out) == (1, "")
    assert str(kept) in err
    assert message in err
    assert "Ask for" in err
    assert f"--protocol {kept_by}" in err


def test_other_pictures_pixels_names_and_intrinsics_are_not_merged(folders, earlier, tmp_path, capsys):
    kept = earlier("--protocol", "median")
    usual = ("--truth", folders / "data", "-i", "depth", "--protocol", "median")
    some = tmp_path / "some"
    some.mkdir()
    for i in range(2):
        np.save(some / f"{i}.npy", np.load(folders / "maps" / "depth" / f"{i}.npy"))
    half = tmp_path / "half"
    half.mkdir()
    np.save(half / "1.npy", np.tri(24, 32, dtype=np.uint8) * 255)
    cases = {
        "was evaluated on other pictures: 3 there, 2 here, 1 not on both sides ('2' only there)": (some, *usual),
        "was evaluated on other pixels: of '1'": (folders / "maps", *usual, "--mask", half),
        "holds a method 'theirs' too": (f"theirs={folders / 'maps'}", *usual),
        "evaluates depth, this run normals": (folders / "maps", "--truth", folders / "data", "-i", "normals"),
    }
    for message, arguments in cases.items():
        code, out, err = run(capsys, *arguments, "--with", kept)
        assert (code, out) == (1, "")
        assert message in err
        assert str(kept) in err
    holes = np.load(folders / "maps" / "depth" / "0.npy")
    holes[:5] = np.nan
    np.save(some / "0.npy", holes)
    np.save(some / "2.npy", np.load(folders / "maps" / "depth" / "2.npy"))
    assert run(capsys, some, *usual, "--skip-holes", "--with", kept)[0] == 0  # left out on purpose


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": {"median": {"a": {}}}}', None])
def test_a_file_that_holds_no_results_is_named(folders, tmp_path, capsys, text):
    path = tmp_path / "kept.json"
    if text is not None:
        path.write_text(text)
    code, _, err = run(capsys, folders / "maps", "--truth", folders / "data", "-i", "depth", "--with", path)
    assert code == 1
    assert f"{path} does not hold results of `ilora evaluate --json`" in err
    assert "Traceback" not in err


def test_a_file_that_was_edited_is_refused(earlier):
    kept = earlier("--protocol", "median")
    told = json.loads(kept.read_text())
    told["results"] = {"metric": told["results"]["median"]}
    kept.write_text(json.dumps(told))
    with pytest.raises(DataError, match="an evaluation by median stands under metric"):
        read_results(kept)


def test_the_library_refuses_what_the_command_refuses():
    pairs = list(depth_pairs(relative))
    ours = {p: {"ours": e} for p, e in evaluate_all(pairs, DEPTH, protocols=("median", "paper")).items()}
    theirs = {p: {"theirs": e} for p, e in evaluate_all(pairs, DEPTH, protocols=("median",)).items()}
    with pytest.raises(DataError, match="the other side was not evaluated by paper, only by median"):
        merge_results(ours, theirs)
    merged = merge_results({"median": ours["median"]}, theirs)
    assert list(merged["median"]) == ["ours", "theirs"]
    with pytest.raises(DataError, match="was evaluated by median, not by paper"):
        merge_results({"paper": ours["paper"]}, {"paper": theirs["median"]})
    fewer = evaluate_all(pairs[:1], DEPTH, protocols=("median",))["median"]
    with pytest.raises(DataError, match="'few' in kept was evaluated on other pictures"):
        merge_results({"median": ours["median"]}, {"median": {"few": fewer}}, where="kept")
