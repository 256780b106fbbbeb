"""The viewer without a browser: unprojection, agreement of normals with depth, encoding, and the page's text."""

import base64
import itertools
import json
import re
import zlib

import numpy as np
import pytest
import torch

from ilora_cli.main import main
from ilora_core.errors import DataError
from ilora_core.fit_report import write_fit_report
from ilora_core.intrinsics import DEPTH, NORMALS, linear_to_srgb
from ilora_core.maps_io import write_map, write_picture
from ilora_core.report import Report, render_report
from ilora_core.testing.scenes import make_scenes
from ilora_core.validation import Validated
from ilora_core.viewer import agreement, scene_data, scene_html, viewer_frame
from ilora_core.viewer.document import page_html
from ilora_core.viewer.geometry import at_edges, focal_px, limits_of, normals_of, unproject, z_of
from ilora_core.viewer.sections import scene_view, views_section

FOV = 53.13010235415598  # of the analytic scenes: focal length = longer side
NAMES = ("sphere before one plane", "sphere before the other")


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(72, 96)


def maps(scenes, row=0):
    return scenes.maps["depth"][row], scenes.maps["normals"][row]


def signed(normals, *signs):
    return normals * torch.tensor(signs, dtype=normals.dtype).view(3, 1, 1)


def scene(scenes, **changes):
    depth, normals = maps(scenes)
    given = {"picture": scenes.pictures[0], "depth": depth, "depth_kind": "metric", "normals": normals, "fov_deg": FOV}
    return {**given, **changes}


def unpacked(text, dtype=np.uint8):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


# Geometry


def test_unprojects_onto_the_scene_s_own_plane_and_sphere(scenes):
    assert focal_px(72, 96, FOV) == pytest.approx(96)
    points = unproject(scenes.maps["depth"][0][0].double(), FOV)
    normal = torch.tensor([0.45, -0.30, -0.84]).double()
    on_plane = ((normal / normal.norm()).view(3, 1, 1) * points).sum(0) + 4.2
    on_sphere = (points - torch.tensor([0.25, -0.15, 3.0]).view(3, 1, 1)).norm(dim=0) - 0.8
    assert torch.minimum(on_plane.abs(), on_sphere.abs()).max() < 1e-4
    assert (on_sphere.abs() < 1e-4).float().mean() > 0.1


def test_axes_are_right_down_forward():
    right, down, forward = unproject(torch.full((4, 6), 2.0), 60)
    assert (right.diff(dim=1) > 0).all()
    assert (down.diff(dim=0) > 0).all()
    assert (forward == 2).all()
    assert right.mean().abs() < 1e-6


@pytest.mark.parametrize("row", [0, 1])
def test_derived_normals_are_the_analytic_ones(scenes, row):
    depth, normals = maps(scenes, row)
    z = depth[0].double()
    found = normals_of(unproject(torch.where(at_edges(z, FOV), torch.nan, z), FOV))
    known = found.isfinite().all(0)
    assert known.float().mean() > 0.8
    assert (found * normals[:, 1:-1, 1:-1]).sum(0)[known].min() > 0.98


def test_edges_are_the_sphere_s_outline_and_nothing_else(scenes):
    edges = at_edges(scenes.maps["depth"][0][0], FOV)
    assert 0.01 < edges.float().mean() < 0.1
    assert not at_edges(torch.full((5, 5), 2.0), 60).any()
    step = torch.tensor([[1.0, 1, 9, 9]]).expand(3, -1)
    assert at_edges(step, 90).tolist() == [[False, True, True, False]] * 3


@pytest.mark.parametrize("kind", ["affine_depth", "affine_disparity"])
def test_relative_depth_gets_its_range_back(kind):
    z = torch.linspace(1.0, 5.0, 1001)[None]
    stored = 0.3 + 2 * (1 / z if kind == "affine_disparity" else z)
    low, high = limits_of(stored)
    ends = z_of(torch.tensor([[low, high]]), kind, 5.0, (low, high))[0].tolist()
    assert sorted(ends) == pytest.approx([1.0, 5.0])
    assert (ends[0] < ends[1]) == (kind == "affine_depth")


def test_metres_stay_metres_and_no_return_is_not_valid():
    z = z_of(torch.tensor([[2.5, 0.0, -1.0, torch.inf, torch.nan]]), "metric", 4.0, (0.0, 1.0))
    assert z[0, 0] == 2.5
    assert z[0, 1:].isnan().all()


# Agreement


@pytest.mark.parametrize("row", [0, 1], ids=NAMES)
@pytest.mark.parametrize("kind", ["metric", "affine_depth", "affine_disparity"])
def test_true_normals_agree_with_true_depth(scenes, row, kind):
    depth, normals = maps(scenes, row)
    stored = {"metric": depth, "affine_depth": 0.2 + 3 * depth, "affine_disparity": 5 / depth - 1}[kind]
    found = agreement(stored, normals, FOV, kind=kind)
    assert found.mean_cosine > 0.99
    assert found.suspect == ""
    assert found.sentence == "Normals and depth agree."
    assert all(value > 0.95 for value in found.per_axis.values())
    assert (found.far_over_near is None) == (kind == "metric")
    if kind != "metric":
        low, high = (float(depth.quantile(q)) for q in (0.005, 0.995))
        assert found.far_over_near == pytest.approx(high / low, rel=0.2)


@pytest.mark.parametrize("row", [0, 1], ids=NAMES)
@pytest.mark.parametrize("kind", ["metric", "affine_depth", "affine_disparity"])
@pytest.mark.parametrize("signs", [s for s in itertools.product((1, -1), repeat=3) if s != (1, 1, 1)], ids=str)
def test_flipped_axes_are_named(scenes, row, kind, signs):
    depth, normals = maps(scenes, row)
    stored = 1 / depth if kind == "affine_disparity" else depth
    found = agreement(stored, signed(normals, *signs), FOV, kind=kind)
    names = ",".join(axis for axis, sign in zip("xyz", signs, strict=True) if sign < 0)
    assert found.suspect == names
    assert found.corrected > 0.99
    assert found.mean_cosine < 0.9
    assert "into the surface" in found.sentence or f"{' and '.join(names.split(','))} a" in found.sentence
    for axis, sign in zip("xyz", signs, strict=True):
        assert found.per_axis[axis] * sign > 0.9


def test_known_frames_are_named(scenes):
    depth, normals = maps(scenes)
    assert "OpenGL" in agreement(depth, signed(normals, 1, -1, -1), FOV).sentence
    assert "DirectX" in agreement(depth, signed(normals, 1, 1, -1), FOV).sentence
    assert "into the surface" in agreement(depth, -normals, FOV).sentence


@pytest.mark.parametrize("row", [0, 1], ids=NAMES)
@pytest.mark.parametrize(
    ("stored", "kind"), [("depth", "affine_disparity"), ("disparity", "affine_depth"), ("disparity", "metric")]
)
def test_inverted_depth_is_named_with_its_twin(scenes, row, stored, kind):
    depth, normals = maps(scenes, row)
    found = agreement(depth if stored == "depth" else 1 / depth, normals, FOV, kind=kind)
    assert found.suspect == "depth"
    assert "inverted" in found.sentence
    assert "x and y of the normals" in found.sentence
    assert found.corrected > 0.99


def test_exchanged_axes_are_named(scenes):
    depth, normals = maps(scenes)
    found = agreement(depth, normals[[1, 0, 2]], FOV)
    assert found.suspect == "x<->y"
    assert found.sentence == "The axes x and y look exchanged."


def test_a_plane_without_slope_along_x_says_nothing_of_x():
    rows = ((torch.arange(40) + 0.5 - 20) / focal_px(40, 40, 60)).double()
    normal = torch.tensor([0.0, -0.6, -0.8], dtype=torch.float64)
    depth = (-4 / (normal[1] * rows[:, None] + normal[2])).expand(40, 40)[None]
    normals = normal.view(3, 1, 1).expand(-1, 40, 40)
    found = agreement(depth, signed(normals, -1, 1, 1), 60)
    assert found.suspect == ""
    assert found.per_axis["x"] is None
    assert agreement(depth, signed(normals, 1, -1, 1), 60).suspect == "y"


def test_noise_is_not_explained_and_accuses_no_axis(scenes):
    depth, normals = maps(scenes)
    found = agreement(depth, torch.randn(normals.shape, generator=torch.Generator().manual_seed(0)), FOV)
    assert found.suspect == "unexplained"
    assert abs(found.mean_cosine) < 0.1


def test_pixels_that_are_not_valid_have_no_say(scenes):
    depth, normals = maps(scenes)
    wrong = signed(normals, 1, -1, 1).clone()
    wrong[:, :, 20:] = torch.nan
    wrong[:, :, :20] = normals[:, :, :20]
    assert agreement(depth, wrong, FOV).mean_cosine > 0.99
    none = agreement(depth * torch.nan, normals, FOV)
    assert none.mean_cosine is None
    assert none.pixels == 0
    assert "Too few" in none.sentence


def test_shapes_and_kinds_are_checked(scenes):
    depth, normals = maps(scenes)
    with pytest.raises(DataError, match="depth kind"):
        agreement(depth, normals, kind="metres")
    with pytest.raises(DataError, match=r"\(1,H,W\)"):
        agreement(normals, normals)


# Encoding


def test_data_come_back_as_they_went_in(scenes):
    data = json.loads(json.dumps(scene_data(**scene(scenes, albedo=scenes.maps["albedo"][0]))))
    shape = (data["height"], data["width"])
    assert shape == (72, 96)
    depth, normals = maps(scenes)
    stored = unpacked(data["depth"]["data"], "<u2").reshape(shape).astype(np.float64)
    low, high = data["depth"]["low"], data["depth"]["high"]
    assert np.abs(low + (stored - 1) / 65534 * (high - low) - depth[0].numpy()).max() < (high - low) / 60000
    n = unpacked(data["normals"]).reshape(*shape, 3).astype(np.float64) - 128
    cosine = (n / np.linalg.norm(n, axis=2, keepdims=True) * normals.permute(1, 2, 0).numpy()).sum(2)
    assert np.degrees(np.arccos(cosine.min())) < 0.6
    for name, wanted in (("picture", scenes.pictures[0]), ("albedo", linear_to_srgb(scenes.maps["albedo"][0]))):
        seen = unpacked(data[name]).reshape(*shape, 3) / 255
        assert np.abs(seen - wanted.permute(1, 2, 0).numpy()).max() < 0.51 / 255


def test_pixels_that_are_not_valid_are_zero(scenes):
    depth, normals = (m.clone() for m in maps(scenes))
    depth[:, 3, 5], normals[:, 3, 6] = torch.inf, torch.nan
    normals[:, 3, 7] = 0
    data = scene_data(**scene(scenes, depth=depth, normals=normals))
    assert (unpacked(data["depth"]["data"], "<u2") == 0).nonzero()[0].tolist() == [3 * 96 + 5]
    assert (unpacked(data["normals"]).reshape(-1, 3) == 0).all(1).nonzero()[0].tolist() == [3 * 96 + 6, 3 * 96 + 7]


def test_large_pictures_are_made_smaller_and_depth_is_not_blended():
    step = torch.ones(1, 300, 600)
    step[:, :, 301:] = 5.0
    data = scene_data(picture=torch.rand(3, 300, 600), depth=step, depth_kind="metric", normals=None, side=100)
    assert (data["width"], data["height"]) == (100, 50)
    assert set(unpacked(data["depth"]["data"], "<u2").tolist()) == {1, 65535}


def test_a_coarse_map_is_not_enlarged(scenes):
    large = torch.nn.functional.interpolate(scenes.pictures, scale_factor=3)[0]
    data = scene_data(**scene(scenes, picture=large))
    assert (data["width"], data["height"]) == (96, 72)
    assert data["agreement"]["mean_cosine"] > 0.99


def test_relative_depth_starts_where_it_agrees_best(scenes):
    depth, _ = maps(scenes)
    fitted = scene_data(**scene(scenes, depth_kind="affine_depth"))["depth"]
    assert fitted["fitted"]
    assert fitted["ratio"] == pytest.approx(float(depth.quantile(0.995) / depth.quantile(0.005)), rel=0.2)
    for changes in ({"normals": None}, {"depth_kind": "affine_disparity"}):
        given = {"depth_kind": "affine_depth", **changes}
        assert "fitted" not in scene_data(**scene(scenes, **given))["depth"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"depth": None, "normals": None}, "neither"),
        ({"depth": torch.ones(1, 96, 72)}, "not of one view"),
        ({"normals": torch.ones(1, 72, 96)}, r"normals is \(3,H,W\)"),
        ({"picture": torch.ones(1, 72, 96)}, "picture is"),
        ({"depth_kind": "far"}, "depth kind"),
        ({"depth": torch.full((1, 72, 96), torch.nan)}, "no finite pixel"),
        ({"fov_deg": 0.0}, "field of view"),
    ],
)
def test_what_does_not_fit_is_refused(scenes, changes, match):
    with pytest.raises(DataError, match=match):
        scene_data(**scene(scenes, **changes))


# The page


def test_page_is_one_file_without_requests(scenes):
    page = scene_html(**scene(scenes, title='<b>"A & B"</b></script>'))
    assert not re.search(r"""(?:src|href|url|srcset)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|WebSocket|localStorage|sendBeacon", page)
    addresses = set(re.findall(r"https?://[\w./-]+", page))
    assert addresses <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}  # names, not addresses
    assert page.count("</script>") == 3
    assert "@@" not in page
    assert page.startswith("<!doctype html>")


def test_page_size(scenes):
    """Most of a page is three.js; a scene of 192 pixels a side takes at most its bytes, in base64."""
    page = scene_html(**scene(make_scenes(192, 192), albedo=make_scenes(192, 192).maps["albedo"][0]))
    empty = len(scene_html(**scene(scenes, depth=None, picture=torch.zeros(3, 72, 96))))
    assert 400_000 < empty < 700_000
    assert len(page) - empty < 192 * 192 * (3 + 3 + 3 + 2) * 4 / 3 + 2000


def test_frame_may_run_scripts_and_holds_the_page(scenes):
    from html.parser import HTMLParser

    page = scene_html(**scene(scenes, title='A "quoted" <title> & more'))
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, dict(attributes)))
    parser.feed(viewer_frame(page, height=500, title='a "b"'))
    [(tag, attributes)] = seen
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == page
    assert attributes["title"] == 'a "b"'
    assert "height:500px" in attributes["style"]


# The command


@pytest.fixture
def files(scenes, tmp_path):
    depth, normals = maps(scenes)
    picture = write_picture(tmp_path / "scene", scenes.pictures[0], format="png8")
    write_map(tmp_path / "depth.npy", depth, None, DEPTH)
    write_map(tmp_path / "depth.png", depth, None, DEPTH)
    write_map(tmp_path / "normals.exr", normals, None, NORMALS, frame="opengl")
    return tmp_path, picture


def view(capsys, folder, picture, *arguments):
    code = main(["view", str(picture), "-o", str(folder / "scene.html"), "--fov", str(FOV), *arguments])
    return code, capsys.readouterr()


def test_command_writes_the_page_and_says_what_is_wrong(files, capsys):
    folder, picture = files
    given = (
        "--depth",
        str(folder / "depth.npy"),
        "--kind",
        "metric",
        "--normals",
        str(folder / "normals.exr"),
        "--json",
    )
    code, said = view(capsys, folder, picture, *given, "--frame", "opengl")
    assert code == 0
    assert json.loads(said.out)["agreement"]["suspect"] == ""
    assert "iloraViewer" in (folder / "scene.html").read_text()
    code, said = view(capsys, folder, picture, *given)
    assert json.loads(said.out)["agreement"]["suspect"] == "y,z"
    code, said = view(capsys, folder, picture, *given[:-1])
    assert code == 0
    assert "OpenGL" in said.err


def test_command_reads_a_depth_picture_as_relative(files, capsys):
    folder, picture = files
    depth = ("--depth", str(folder / "depth.png"))
    code, said = view(
        capsys, folder, picture, *depth, "--normals", str(folder / "normals.exr"), "--frame", "opengl", "--json"
    )
    assert json.loads(said.out)["agreement"]["mean_cosine"] > 0.95
    code, said = view(capsys, folder, picture, *depth, "--kind", "metric")
    assert code != 0
    assert "--scale" in said.err


def test_command_says_what_it_lacks(files, capsys):
    folder, picture = files
    code, said = view(capsys, folder, picture)
    assert code != 0
    assert "--depth" in said.err
    code, said = view(capsys, folder, picture, "--depth", str(folder / "depth.npy"), "--kind", "near")
    assert code != 0
    assert "--kind" in said.err


# Reports


def test_report_holds_the_viewer_once_and_only_with_views(scenes):
    given = {
        "picture": scenes.pictures[0],
        "depth": maps(scenes)[0],
        "depth_kind": "metric",
        "normals": maps(scenes)[1],
    }
    views = [scene_view(f"{i} </script> & more", **given) for i in range(6)]
    html = render_report(Report("3-D", [views_section(views)]))
    assert html.count('<script type="application/json"') == 4
    assert html.count('id="viewer-page"') == 1
    assert html.count("</script>") == 6
    [packed] = re.findall(r'<script id="viewer-page" type="text/plain">([^<]+)</script>', html)
    assert zlib.decompress(base64.b64decode(packed)).decode() == page_html()
    assert len(packed) < 300_000
    [first] = re.findall(r'id="scene-1-1">(.*?)</script>', html)
    assert json.loads(first) == views[0].data
    assert "<script" not in render_report(Report("flat", []))


@pytest.mark.parametrize("same", [True, False])
def test_fit_report_has_views_of_normals_and_depth_of_the_same_pictures(scenes, tmp_path, same):
    record = {
        "config": {"intrinsics": [NORMALS.to_json(), DEPTH.to_json()]},
        "generator": {"name": "tiny"},
        "licences": {},
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    shown = {}
    for intrinsic, shift in ((NORMALS, 0.0), (DEPTH, 0.0 if same else 0.1)):
        drawn = intrinsic.to_picture(scenes.maps[intrinsic.name])
        rows = tuple(zip(scenes.pictures + shift, drawn, drawn, strict=True))
        shown[intrinsic.name] = Validated(intrinsic.name, 3, "metric", 0.5, False, rows)
    html = write_fit_report(tmp_path, shown).read_text()
    found = [json.loads(text) for text in re.findall(r'id="scene-\d+-\d+">(.*?)</script>', html)]
    assert [scene["title"] for scene in found] == (
        ["0: prediction", "0: target", "1: prediction", "1: target"] if same else []
    )
    assert all(scene["depth"]["kind"] == "affine_depth" for scene in found)
    assert all(scene["agreement"]["suspect"] == "" and scene["agreement"]["mean_cosine"] > 0.95 for scene in found)
