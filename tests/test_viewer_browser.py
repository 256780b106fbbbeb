"""The viewer in a headless Chromium, drawn by software: what stands where on the screen, how bright, and no request.

Skipped where neither the system nor playwright has a Chromium.
"""

import os
import shutil

import pytest
import torch

from ilora_core.intrinsics import linear_to_srgb
from ilora_core.report import Report, write_report
from ilora_core.testing.scenes import make_scenes
from ilora_core.viewer import scene_html, viewer_frame
from ilora_core.viewer.geometry import unproject
from ilora_core.viewer.sections import scene_view, views_section

FOV = 53.13010235415598
HEIGHT, WIDTH = 60, 80
READY = "window.iloraViewer && (window.iloraViewer.ready || window.iloraViewer.error)"
_READBACK = "GPU stall due to ReadPixels"
"""Chromium's remark on a page whose pixels are read, as the tests here do; it comes at times."""
LIGHTS = {"left": (-60, 0), "right": (60, 0), "above": (0, 60), "below": (0, -60)}


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with api.sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = next(filter(None, map(shutil.which, names)), own if os.path.exists(own) else None)
        if found is None:
            pytest.skip("no Chromium: neither on the path nor installed by playwright")
        switches = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        started = driver.chromium.launch(executable_path=found, args=switches)
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens HTML as a file; fails at the end on any message of the console, error, or request but for that file."""
    trouble, pages = [], []

    def open_page(html, *, width=480, height=560):
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        page.on("console", lambda message: _READBACK in message.text or trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: request.url != path.as_uri() and trouble.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert trouble == []


def ready(page):
    page.wait_for_function(READY)
    assert page.evaluate("iloraViewer.error") == ""
    return page


def framed_ready(page, index):
    """The viewer in a frame. A sandboxed frame gets a process of its own while it loads, so it is looked up by locator."""
    frame = page.frame_locator("iframe").nth(index)
    frame.locator("html[data-viewer=ready]").wait_for(state="attached")
    return frame


def html(scenes, **changes):
    given = {"picture": scenes.pictures[0], "depth": scenes.maps["depth"][0], "depth_kind": "metric"}
    return scene_html(**{**given, "normals": scenes.maps["normals"][0], "fov_deg": FOV, **changes})


def change(page, **settings):
    for name, value in settings.items():
        page.evaluate("([name, value]) => iloraViewer.change(name, value)", [name, value])


def shade(page, column, row):
    return page.evaluate("([column, row]) => iloraViewer.shade(column, row)", [column, row])


def project(page, point):
    return page.evaluate("point => iloraViewer.project(point)", point)


def test_points_lie_where_the_camera_saw_them(opened, scenes):
    page = ready(opened(html(scenes, title="Sphere and plane")))
    assert page.locator("h1").inner_text() == "Sphere and plane"
    assert "agree" in page.locator("#badge.good").inner_text()
    assert sorted(page.locator("#axes text").all_text_contents()) == ["x right", "y down", "z forward"]
    assert page.locator("#scale").inner_text().startswith("grid 1 m")
    points = unproject(scenes.maps["depth"][0][0], FOV)
    page.evaluate("iloraViewer.look('front')")
    canvas = page.locator("#canvas").bounding_box()
    scale = min(canvas["width"] / WIDTH, canvas["height"] / HEIGHT)
    checked = 0
    for column, row in [(5, 4), (70, 8), (40, 28), (12, 52), (66, 50), (30, 20)]:
        point = page.evaluate("([u, v]) => iloraViewer.point(u, v)", [column, row])
        assert point == pytest.approx(points[:, row, column].tolist(), rel=1e-3, abs=1e-3)
        x, y = project(page, point)
        assert x == pytest.approx(canvas["width"] / 2 + (column + 0.5 - WIDTH / 2) * scale, abs=0.5)
        assert y == pytest.approx(canvas["height"] / 2 + (row + 0.5 - HEIGHT / 2) * scale, abs=0.5)
        around = scenes.pictures[0][:, row - 1 : row + 2, column - 1 : column + 2]
        if (around - around[:, 1:2, 1:2]).abs().max() < 0.03:  # away from the checks' edges
            seen = page.evaluate("([x, y]) => iloraViewer.pixel(x, y)", [x, y])[:3]
            assert seen == pytest.approx((scenes.pictures[0][:, row, column] * 255).tolist(), abs=8)
            checked += 1
    assert checked >= 3
    assert any(page.evaluate("([u, v]) => iloraViewer.point(u, v)", [u, 28]) is None for u in range(WIDTH))  # edges


def test_right_is_right_up_is_up_and_forward_is_away(opened, scenes):
    page = ready(opened(html(scenes)))
    home, right, down, forward = [0, 0, 4], [1, 0, 4], [0, 1, 4], [0, 0, 5]
    for view in ("front", "top", "oblique"):
        page.evaluate("view => iloraViewer.look(view)", view)
        assert project(page, right)[0] > project(page, home)[0] + 10
    for view in ("front", "side", "oblique"):
        page.evaluate("view => iloraViewer.look(view)", view)
        assert project(page, down)[1] > project(page, home)[1] + 10
    page.evaluate("iloraViewer.look('side')")  # from the right
    assert project(page, forward)[0] > project(page, home)[0] + 10
    page.evaluate("iloraViewer.look('top')")
    assert project(page, forward)[1] < project(page, home)[1] - 10


def test_light_brightens_what_faces_it(opened, scenes):
    page = ready(opened(html(scenes)))
    change(page, material="clay", ambient=0)
    normals = scenes.maps["normals"][0]
    centre, reach = (WIDTH / 2 + 0.25 / 3 * WIDTH, HEIGHT / 2 - 0.15 / 3 * WIDTH), 0.8 / 3 * WIDTH * 0.7
    steps = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
    at = {side: (int(centre[0] + dx * reach), int(centre[1] + dy * reach)) for side, (dx, dy) in steps.items()}
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    towards = {"left": (-1, 0, 0), "right": (1, 0, 0), "above": (0, -1, 0), "below": (0, 1, 0)}
    for side, (azimuth, elevation) in LIGHTS.items():
        change(page, azimuth=azimuth, elevation=elevation)
        lit, dark = (shade(page, *at[where])[0] for where in (side, opposite[side]))
        assert lit > dark + 80
        light = torch.tensor(towards[side]) * 0.75**0.5 + torch.tensor([0, 0, -0.5])
        for column, row in at.values():
            lambert = (normals[:, row, column] @ light).clamp(min=0)
            assert shade(page, column, row)[0] == pytest.approx(float(linear_to_srgb(0.8 * lambert)) * 255, abs=5)


def test_relit_takes_albedo_in_linear_light(opened, scenes):
    albedo = scenes.maps["albedo"][0]
    page = ready(opened(html(scenes, albedo=albedo)))
    change(page, ambient=1)
    assert shade(page, 40, 28)[:3] == pytest.approx((linear_to_srgb(albedo[:, 28, 40]) * 255).tolist(), abs=2)
    change(page, ambient=0.25)
    assert shade(page, 40, 28)[0] < linear_to_srgb(albedo[0, 28, 40]) * 255
    change(page, material="picture", ambient=1)
    assert shade(page, 40, 28)[:3] == pytest.approx((scenes.pictures[0][:, 28, 40] * 255).tolist(), abs=2)


def test_needles_of_a_flipped_axis_point_into_the_surface(opened, scenes):
    flipped = scenes.maps["normals"][0] * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)
    counts = []
    for normals in (scenes.maps["normals"][0], flipped, -scenes.maps["normals"][0]):
        page = ready(opened(html(scenes, normals=normals)))
        change(page, needles=True)
        counts.append(page.evaluate("iloraViewer.needles"))
    sound, mirrored, negated = counts
    assert sound["out"] > 200
    assert (sound["leaning"], sound["into"]) == (0, 0)
    assert mirrored["leaning"] > 10
    assert mirrored["into"] > 0
    assert negated == {"out": 0, "leaning": 0, "into": sound["out"]}
    assert "The normals point into the surface" in page.locator("#badge.bad").inner_text()


def test_keys_sliders_and_a_narrow_window(opened, scenes):
    page = ready(opened(html(scenes, depth_kind="affine_depth"), width=400, height=700))
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#canvas").bounding_box()["height"] >= 250
    setting = lambda name: page.evaluate("name => iloraViewer.settings[name]", name)  # noqa: E731
    page.keyboard.press("n")
    assert setting("needles") is True
    near = page.evaluate("iloraViewer.point(70, 8)")[2]
    page.locator("#ratio").focus()
    page.keyboard.press("End")
    assert setting("ratio") == pytest.approx(50)
    assert page.evaluate("iloraViewer.point(70, 8)")[2] > near
    page.keyboard.press("2")
    assert setting("mode") == "relit"
    page.locator("#canvas").focus()
    before = setting("azimuth")
    page.keyboard.press("ArrowRight")
    assert setting("azimuth") == before + 5
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    assert setting("azimuth") == pytest.approx(-89, abs=1)
    assert setting("elevation") == pytest.approx(0, abs=3)
    page.keyboard.press("1")
    assert setting("mode") == "cloud"


def test_missing_maps_close_their_controls(opened, scenes):
    page = ready(opened(html(scenes, depth=None)))
    assert page.evaluate("iloraViewer.settings.mode") == "relit"
    assert page.locator("[data-mode=cloud]").is_disabled()
    page = ready(opened(html(scenes, normals=None)))
    assert page.locator("[data-mode=relit]").is_disabled()
    assert page.locator("#needles").is_disabled()


def test_works_inside_a_frame(opened, scenes):
    page = opened(f"<!doctype html><body>{viewer_frame(html(scenes))}</body>")
    framed_ready(page, 0)


def test_report_opens_a_view_on_a_click_only(opened, scenes, tmp_path):
    given = {"depth": scenes.maps["depth"][0], "depth_kind": "metric", "normals": scenes.maps["normals"][0]}
    views = [scene_view(label, picture=scenes.pictures[0], **given) for label in ("first </script>", "second")]
    write_report(tmp_path / "report.html", Report("With views", [views_section(views)]))
    page = opened((tmp_path / "report.html").read_text())
    assert len(page.frames) == 1
    buttons = page.locator("[data-scene]")
    assert buttons.count() == 2
    for index, title in ((0, "first </script>"), (1, "second")):
        buttons.nth(index).click()
        page.wait_for_function(f"document.querySelectorAll('iframe').length == {index + 1}")
        assert framed_ready(page, index).locator("h1").inner_text() == title
    buttons.nth(0).click()
    page.wait_for_function("document.querySelectorAll('iframe').length == 1")
    assert buttons.nth(0).get_attribute("aria-expanded") == "false"
