"""Evaluation of folders, by the library and by `ilora evaluate`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ilora_cli.main import main
from ilora_core.errors import ConfigError, DataError
from ilora_core.evaluate import evaluate
from ilora_core.evaluate_folders import evaluate_folders, match_keys, open_predictions, open_truth
from ilora_core.evaluate_report import draw_map, pictures_beside, spread_keys
from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic, unit_vectors
from ilora_core.maps_io import write_map, write_picture

SIZE = (12, 16)
ROUGHNESS = Intrinsic("roughness", 1, "", "linear")


def some_normals(seed, size=SIZE):
    return unit_vectors(torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed)))[0]


def some_depth(seed, size=SIZE):
    return 1 + 4 * torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def data(tmp_path):
    """Four pairs with normals (exr, a masked first row) and depth (npy, metres)."""
    mask = torch.ones(3, *SIZE)
    mask[:, 0] = 0
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        write_picture(tmp_path / "data" / "pictures" / key, torch.rand(3, *SIZE), format="png8")
        write_picture(tmp_path / "data" / "mask" / key, mask, format="png8")
        write_map(tmp_path / "data" / "normals" / f"{key}.exr", some_normals(i), None, NORMALS)
        write_map(tmp_path / "data" / "depth" / f"{key}.npy", some_depth(i), None, DEPTH)
    return tmp_path / "data"


KEYS = ("kitchen/3", "room.0", "room.1", "room.2")


def noisy(n, amount, seed):
    return unit_vectors((n + amount * torch.randn(n.shape, generator=torch.Generator().manual_seed(seed)))[None])[0]


def write_normals(folder, amount, *, suffix="npy", frame="opencv"):
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        write_map(
            folder / "normals" / f"{key}.{suffix}", noisy(some_normals(i), amount, 9 + i), None, NORMALS, frame=frame
        )
    return folder


def write_relative(folder, shift):
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        value = DEPTH.from_picture(DEPTH.to_picture(some_depth(i)[None]))[0]
        write_map(folder / "depth" / f"{key}.npy", value + shift, None, DEPTH.predicted())
    return folder


def run(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_folders_give_what_the_maps_give(data, tmp_path):
    truth = open_truth(data, NORMALS)
    methods = {"ours": open_predictions(write_normals(tmp_path / "ours", 0.2), NORMALS)}
    match = match_keys(truth, methods)
    assert match.keys == KEYS
    assert not match.missing
    found = evaluate_folders(methods, truth, match.keys)["normals-pooled"]["ours"]
    valid = torch.ones(1, *SIZE, dtype=torch.bool)
    valid[:, 0] = False
    pairs = [(f"{i}", noisy(some_normals(i), 0.2, 9 + i), some_normals(i), valid) for i in (3, 0, 1, 2)]
    wanted = evaluate(pairs, NORMALS)
    assert found.figures["mean_deg"].value == pytest.approx(wanted.figures["mean_deg"].value, abs=1e-4)
    assert [row["pixels"] for row in found.pictures.values()] == [11 * 16] * 4  # masks were applied


def test_the_command_shows_tables_json_and_a_report(data, tmp_path, capsys):
    ours, worse = write_normals(tmp_path / "ours", 0.1), write_normals(tmp_path / "worse", 0.5, suffix="exr")
    report = tmp_path / "out" / "report.html"
    arguments = (ours, f"second={worse}", "--truth", data, "-i", "normals", "--protocol", "all")
    code, out, err = run(capsys, *arguments, "--report", report)
    assert code == 0
    for text in ("normals-pooled", "normals-per-image", "mean error", "ours against second", "better", "4 pictures"):
        assert text in out
    assert str(report) in err
    html = report.read_text()
    for text in ("Results by normals-per-image", "kitchen/3", ">input<", ">second<", ">truth<", str(worse)):
        assert text in html
    assert html.count("<img") == 4 * 4
    code, out, _ = run(capsys, *arguments, "--json")
    result = json.loads(out)
    pooled = result["results"]["normals-pooled"]
    assert pooled["ours"]["figures"]["mean_deg"]["value"] < pooled["second"]["figures"]["mean_deg"]["value"]
    assert set(pooled["ours"]["pictures"]) == set(KEYS)
    assert result["comparisons"]["ours against second (normals-pooled)"]["better"] == "a"
    assert (result["intrinsic"], result["pictures"], result["missing"]) == ("normals", 4, {})


def test_relative_depth_keeps_the_nearest_pixel(data, tmp_path, capsys):
    """The nearest pixel of a relative map is exactly 0, which in metres would mean "no measurement"."""
    folder = write_relative(tmp_path / "ours", 0.0)
    code, out, _ = run(capsys, folder, "--truth", data, "-i", "depth", "--json")
    assert code == 0
    evaluation = json.loads(out)["results"]["relative01"]["ours"]
    assert evaluation["figures"]["rms01"]["value"] < 0.02  # the masked row moves the limits a little
    assert [row["pixels"] for row in evaluation["pictures"].values()] == [11 * 16] * 4


def test_one_prediction_can_go_through_several_depth_protocols(data, tmp_path, capsys):
    folder = write_relative(tmp_path / "ours", 0.05)
    code, out, _ = run(
        capsys, folder, "--truth", data, "-i", "depth", "--protocol", "relative01,marigold-lsq@0.5-80", "--json"
    )
    assert code == 0
    results = json.loads(out)["results"]
    assert results["relative01"]["ours"]["figures"]["rms01"]["value"] == pytest.approx(0.05, abs=0.02)
    assert results["marigold-lsq@0.5-80"]["ours"]["figures"]["abs_rel"]["value"] < 0.01


def test_disparity_is_declared_and_goes_where_it_makes_sense(data, tmp_path, capsys):
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        picture = (1 / some_depth(i)).expand(3, -1, -1)  # near = bright, 16 bits
        write_picture(tmp_path / "maps" / key, picture, format="png16")
    arguments = (tmp_path / "maps", "--truth", data, "-i", "depth", "--predicts", "disparity", "--protocol")
    code, out, _ = run(capsys, *arguments, "disparity-lsq,paper", "--json")
    assert code == 0
    found = json.loads(out)["results"]["disparity-lsq"]["maps"]
    assert found["figures"]["abs_rel"]["value"] < 1e-3
    assert (found["predicts"], found["read_as"]) == ("disparity", "scale and shift of disparity")
    for refused in ("metric", "median", "marigold-lsq"):
        code, _, err = run(capsys, *arguments, f"disparity-lsq,{refused}")
        assert code == 2
        assert f"{refused} has no use for predictions of disparity" in err
        assert "disparity-lsq" in err
    code, out, _ = run(capsys, *arguments, "all", "--json")
    assert list(json.loads(out)["results"]) == ["relative01", "paper", "disparity-lsq"]


def test_frames_and_scales_are_undone(data, tmp_path, capsys):
    flipped = write_normals(tmp_path / "gl", 0.0, frame="opengl")
    value = {}
    for frame in ("opencv", "opengl"):
        _, out, _ = run(capsys, flipped, "--truth", data, "-i", "normals", "--frame", frame, "--json")
        value[frame] = json.loads(out)["results"]["normals-pooled"]["gl"]["figures"]["mean_deg"]["value"]
    assert value["opengl"] < 0.01
    assert value["opencv"] > 50
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        path = tmp_path / "mm" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (some_depth(i)[0].numpy() * 1000).round().astype(np.uint16))
    options = (
        "--truth",
        data,
        "-i",
        "depth",
        "--protocol",
        "metric",
        "--predicts",
        "metric",
        "--scale",
        0.001,
        "--json",
    )
    _, out, _ = run(capsys, tmp_path / "mm", *options)
    assert json.loads(out)["results"]["metric"]["mm"]["figures"]["abs_rel"]["value"] < 1e-3


def test_depth_pictures_as_truth_know_no_metres(data, tmp_path, capsys):
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        write_map(tmp_path / "pictures" / f"{key}.png", some_depth(i), None, DEPTH)
    assert open_truth(tmp_path / "pictures", DEPTH).intrinsic.kind == "affine_depth"
    folder = write_relative(tmp_path / "ours", 0.0)
    code, _, err = run(capsys, folder, "--truth", tmp_path / "pictures", "-i", "depth", "--protocol", "metric")
    assert code == 2
    assert "metric for the others" in err
    code, out, _ = run(capsys, folder, "--truth", tmp_path / "pictures", "-i", "depth", "--json")
    assert code == 0
    assert json.loads(out)["results"]["relative01"]["ours"]["figures"]["rms01"]["value"] < 0.02


def test_only_common_pictures_count_and_the_others_are_named(data, tmp_path, capsys):
    ours, other = write_normals(tmp_path / "ours", 0.1), write_normals(tmp_path / "other", 0.1)
    (other / "normals" / "room.1.npy").unlink()
    code, out, err = run(capsys, ours, other, "--truth", data, "-i", "normals", "--json")
    assert code == 0
    assert "other lacks 1 (such as room.1)" in err
    result = json.loads(out)
    assert result["missing"] == {"other": ["room.1"]}
    assert result["results"]["normals-pooled"]["ours"]["n"] == 3


def test_nothing_in_common_is_an_error_with_examples(data, tmp_path, capsys):
    write_map(tmp_path / "odd" / "a.npy", some_normals(0), None, NORMALS)
    code, _, err = run(capsys, tmp_path / "odd", "--truth", data, "-i", "normals")
    assert code == 1
    assert "odd has 'a'" in err
    assert "kitchen/3" in err


def test_other_sizes_are_refused_unless_they_may_be_resized(data, tmp_path, capsys):
    for i in range(4):
        key = f"kitchen/{i}" if i == 3 else f"room.{i}"
        value = torch.tensor([0.0, 0.0, -1.0]).view(3, 1, 1).expand(3, 24, 32)
        write_map(tmp_path / "large" / f"{key}.npy", value, None, NORMALS)
    arguments = (tmp_path / "large", "--truth", data, "-i", "normals")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    for text in ("kitchen/3.npy", "32x24", "16x12", "--resize"):
        assert text in err
    report = tmp_path / "r.html"
    assert run(capsys, *arguments, "--resize", "--report", report)[0] == 0
    assert report.is_file()


def test_holes_are_refused_unless_they_may_be_skipped(data, tmp_path, capsys):
    folder = write_normals(tmp_path / "ours", 0.1)
    known = torch.ones(1, *SIZE, dtype=torch.bool)
    known[:, 5, :3] = False
    write_map(folder / "normals" / "room.0.npy", some_normals(0), known, NORMALS)
    arguments = (folder, "--truth", data, "-i", "normals", "--json")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    for text in ("'room.0'", "3 of 176", "--skip-holes"):
        assert text in err
    code, out, _ = run(capsys, *arguments, "--skip-holes")
    assert code == 0
    assert json.loads(out)["results"]["normals-pooled"]["ours"]["pictures"]["room.0"]["pixels"] == 173


def test_of_two_formats_the_exact_one_is_read(data, tmp_path):
    folder = write_normals(tmp_path / "ours", 0.1)
    write_normals(folder, 0.9, suffix="png")
    assert {path.suffix for path in open_predictions(folder, NORMALS).files.values()} == {".npy"}


def test_a_users_map_needs_no_declaration_beside_its_truth(tmp_path, capsys):
    for i in range(3):
        truth = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(i))
        write_map(tmp_path / "data" / "roughness" / f"{i}.npy", truth, None, ROUGHNESS)
        write_map(tmp_path / "maps" / "roughness" / f"{i}.npy", truth + 0.1, None, ROUGHNESS)
    code, out, err = run(capsys, tmp_path / "maps", "--truth", tmp_path / "data", "-i", "roughness", "--json")
    assert code == 0
    assert "roughness: 1 channel" in err
    figures = json.loads(out)["results"]["raw"]["maps"]["figures"]
    assert figures["rms"]["value"] == pytest.approx(0.1, abs=1e-6)
    assert figures["psnr"]["value"] == pytest.approx(20.0, abs=1e-3)
    toml = tmp_path / "wide.toml"
    toml.write_text('name = "roughness"\nrange = [-1, 1]\n')
    _, out, _ = run(capsys, tmp_path / "maps", "--truth", tmp_path / "data", "-i", toml, "--json")
    assert json.loads(out)["results"]["raw"]["maps"]["figures"]["psnr"]["value"] == pytest.approx(26.02, abs=1e-2)


def test_a_mask_folder_counts(data, tmp_path, capsys):
    half = torch.zeros(3, *SIZE)
    half[:, :, :8] = 1
    write_picture(tmp_path / "extra" / "room.0", half, format="png8")
    folder = write_normals(tmp_path / "ours", 0.1)
    _, out, _ = run(capsys, folder, "--truth", data, "-i", "normals", "--mask", tmp_path / "extra", "--json")
    rows = json.loads(out)["results"]["normals-pooled"]["ours"]["pictures"]
    assert (rows["room.0"]["pixels"], rows["room.1"]["pixels"]) == (88, 176)
    code, _, err = run(capsys, folder, "--truth", data, "-i", "normals", "--mask", tmp_path / "none")
    assert code == 1
    assert "no folder of masks" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{ours}", "--truth", "{data}", "-i", "nothing"), 2, "no intrinsic is called 'nothing'"),
        (("{ours}", "--truth", "{data}", "-i", "normals", "--protocol", "median"), 2, "choose from normals-pooled"),
        (("{ours}", "--truth", "{data}/none", "-i", "normals"), 1, "there is no folder"),
        (("{data}/normals", "--truth", "{data}", "-i", "albedo"), 1, "holds pictures but no albedo/"),
        (("a={ours}", "a={data}", "--truth", "{data}", "-i", "normals"), 2, "two methods have one name"),
        (("truth={ours}", "--truth", "{data}", "-i", "normals"), 2, "cannot be called truth"),
        (("--truth", "{data}", "-i", "normals"), 2, ""),
    ],
)
def test_wrong_use_is_one_clear_message(data, tmp_path, capsys, arguments, code, message):
    ours = write_normals(tmp_path / "ours", 0.1)
    got, out, err = run(capsys, *(a.format(ours=ours, data=data) for a in arguments))
    assert got == code
    assert message in err
    assert "Traceback" not in err + out


def test_folders_of_one_name_go_by_their_path(data, tmp_path, capsys):
    a, b = write_normals(tmp_path / "a" / "maps", 0.1), write_normals(tmp_path / "b" / "maps", 0.2)
    _, out, _ = run(capsys, a, b, "--truth", data, "-i", "normals", "--json")
    assert set(json.loads(out)["results"]["normals-pooled"]) == {str(a), str(b)}


def test_rows_of_the_report_run_from_best_to_worst():
    truth = torch.full((1, 2, 2), 0.5)
    pairs = [(f"k{i}", truth + 0.01 * ((7 * i) % 20), truth, truth > 0) for i in range(20)]
    evaluation = evaluate(pairs, ROUGHNESS)
    rows = [evaluation.pictures[key]["rms"] for key in spread_keys(evaluation, "rms", count=5)]
    assert rows == pytest.approx([0.0, 0.05, 0.10, 0.14, 0.19], abs=1e-6)
    psnr = [evaluation.pictures[key]["psnr"] for key in spread_keys(evaluation, "psnr", count=5)]
    assert psnr == sorted(psnr, reverse=True)
    assert spread_keys(evaluate(pairs[:2], ROUGHNESS), "rms") == ["k0", "k1"]


def test_relative_depth_is_drawn_without_stretching():
    value, valid = torch.full((1, 2, 3), 0.25), torch.ones(1, 2, 3, dtype=torch.bool)
    assert draw_map(DEPTH.predicted(), value, valid).unique().tolist() == [0.75]
    disparity = replace(DEPTH, kind="affine_disparity")
    assert draw_map(disparity, value, valid).unique().tolist() == [0.25]
    metres = torch.tensor([2.0, 4.0, 6.0]).view(1, 1, 3)
    drawn = draw_map(DEPTH.predicted(), metres, metres > 0)
    assert drawn[0, 0, 0] == 1.0
    assert drawn[0, 0, 2] == 0.0
    assert drawn.shape == (3, 1, 3)


def test_library_errors(data, tmp_path):
    with pytest.raises(ConfigError, match="choose from depth, disparity, metric"):
        open_predictions(data, DEPTH, predicts="metres")
    with pytest.raises(ConfigError, match="normals has only one kind"):
        open_predictions(data, NORMALS, predicts="depth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no maps"):
        open_truth(tmp_path / "empty", NORMALS)
    assert set(pictures_beside(data)) == set(KEYS)
    assert pictures_beside(tmp_path) == {}
