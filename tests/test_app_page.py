"""`ilora app` as a user meets it: a server in a process of its own, asked by plain requests and by a headless browser.

ILORA_SCREENSHOTS=DIR writes a picture of every state of the page.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_cli.web.models import Models
from ilora_core.artefact import find_artefacts
from ilora_core.config import RuntimeConfig
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.maps_io import read_map, read_picture

ROOT = Path(__file__).parents[1]
ROOM = ROOT / "cli" / "ilora_cli" / "web" / "examples" / "room-11000013.jpg"
LIMIT_MB = 1
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 120_000  # a job beside other tests on two cores; nothing waits as long as this when all is well


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    temporary: Path
    told: list[str]

    @property
    def folder(self) -> Path:
        (folder,) = self.temporary.glob("ilora-app-*")
        return folder

    def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def upload(self, content: bytes, name: str = "a.png") -> tuple[int, bytes]:
        edge = "edge-of-parts"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + content + f"\r\n--{edge}--\r\n".encode()
        kind = f"multipart/form-data; boundary={edge}"
        return self.ask("/gradio_api/upload", method="POST", body=body, Content_Type=kind)[:2]


@pytest.fixture(scope="module")
def server(app_adapters, tmp_path_factory):
    """The command in a process of its own, as a user would start it."""
    temporary = tmp_path_factory.mktemp("tmp")
    command = [sys.executable, "-m", "ilora_cli.main", "app", "--port", "0", "--device", "cpu", "--no-open"]
    command += ["--max-upload-mb", str(LIMIT_MB)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, cwd=app_adapters, env=environment, stderr=subprocess.PIPE, text=True)
    told = []
    for line in process.stderr:
        told.append(line)
        if "http://127.0.0.1:" in line:
            break
    assert process.poll() is None, told
    port = int(told[-1].split("127.0.0.1:")[1].split()[0])
    reader = threading.Thread(target=lambda: told.extend(process.stderr))
    reader.start()
    yield Server(process, port, temporary, told)
    process.kill()
    process.wait()
    reader.join()
    process.stderr.close()


def test_only_this_machine_is_listened_to(server):
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        socket.create_connection(("127.0.0.2", server.port), timeout=5).close()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/etc/../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        f"/gradio_api/file={ROOT}/README.md",
        "/gradio_api/file=README.md",
        "/gradio_api/file=ldm/run.json",
        "/gradio_api/file=FOLDER/../../../../../../../../etc/passwd",
        "/gradio_api/file=https://127.0.0.1/x.png",
        "/gradio_api/proxy=https://127.0.0.1/x.png",
        "/file=/etc/passwd",
        "/static/../../../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/results/../../../etc/passwd",
        "/results/no-such-token/normals.npy",
        "/results/no-such-token/normals/tile?column=0&row=0",
        "/docs",
        "/openapi.json",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/run-history/buckets",
        "/monitoring/summary",
    ],
)
def test_no_other_path_is_served(server, path):
    status, body, _ = server.ask(path.replace("FOLDER", str(server.folder)))
    assert status in (403, 404)
    assert len(body) < 200
    assert b"root:" not in body


def test_a_link_out_of_the_folder_is_not_followed(server):
    (server.folder / "link.png").symlink_to("/etc/passwd")
    assert server.ask(f"/gradio_api/file={server.folder}/link.png")[0] == 403


def test_a_foreign_name_or_page_is_refused(server):
    assert server.ask("/", Host=f"localhost:{server.port}")[0] == 200
    for host in ("attacker.example", f"attacker.example:{server.port}", "127.0.0.1.attacker.example", "", "["):
        assert server.ask("/", Host=host)[0] == 403
    for origin in ("https://attacker.example", "null"):
        status, *_ = server.ask("/gradio_api/upload", method="POST", body=b"", Origin=origin)
        assert status == 403


def test_the_browser_is_told_to_load_nothing_from_elsewhere(server):
    _, body, headers = server.ask("/")
    headers = {name.lower(): value for name, value in headers.items()}
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert b"fonts.googleapis" not in body
    assert json.loads(server.ask("/config")[1])["analytics_enabled"] is False


def test_an_upload_has_a_limit_and_stays_in_the_folder(server):
    status, answer = server.upload(ROOM.read_bytes(), "../../a.jpg")
    assert status == 200
    (path,) = json.loads(answer)
    assert Path(path).is_relative_to(server.folder)
    assert Path(path).read_bytes() == ROOM.read_bytes()
    assert server.upload(b"\0" * (LIMIT_MB * 10**6 + 1))[0] == 413


# --- the page


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server):
    """The page, opened. Afterwards: nothing was asked of anyone else, and no script failed."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.get_by_role("button", name="Draw maps")).to_be_enabled()
    yield page
    page.close()
    own = f"http://127.0.0.1:{server.port}/"
    assert [url for url in asked if not url.startswith((own, f"blob:{own}", "data:"))] == []
    assert len(asked) > 10
    assert failed == []


def shoot(page, name: str) -> None:
    if folder := os.environ.get("ILORA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def choose(page, generator: str) -> None:
    from playwright.sync_api import expect

    page.get_by_label("Generator").click()
    page.get_by_role("option", name=generator, exact=True).click()
    folder = "gan" if "gan" in generator else "ldm"
    expect(page.get_by_label(f"normals ({folder}/normals)")).to_be_checked()


def upload(page, file) -> None:
    page.locator("input[type=file]").first.set_input_files(file)


def drawn(page, name: str):
    """The tab of a map, once it is there and its picture is loaded."""
    from playwright.sync_api import expect

    page.get_by_role("tab", name=name, exact=True).click()
    values = page.locator(".ilora-values:visible")
    expect(values.locator("img")).to_have_attribute("alt", name.lower())
    expect(values.locator("img")).to_have_js_property("complete", True)
    return values


def downloaded(page, text: str, to: Path) -> Path:
    with page.expect_download() as download:
        page.locator(".ilora-downloads:visible").get_by_role("link", name=text).click()
    path = to / download.value.suggested_filename
    download.value.save_as(path)
    return path


def value_at(page, values, x: int, y: int) -> list[float]:
    """What the page tells of a pixel that the pointer is moved to."""
    from playwright.sync_api import expect

    picture = values.locator("img")
    width = int(values.get_attribute("data-width"))
    scale = picture.bounding_box()["width"] / width
    picture.hover(position={"x": (x + 0.5) * scale, "y": (y + 0.5) * scale})
    expect(values).to_have_attribute("data-pixel", json.dumps([x, y], separators=(",", ":")))
    expect(values.locator("output")).to_contain_text(f"x {x}  y {y}")
    return json.loads(values.get_attribute("data-values"))


def test_a_picture_becomes_maps(page, server, app_adapters, tmp_path):
    from playwright.sync_api import expect

    shoot(page, "1-start")
    choose(page, "rooms")
    upload(page, ROOM)
    expect(page.locator("[data-testid=image] img, .image-frame img").first).to_be_visible()
    shoot(page, "2-uploaded")
    page.get_by_role("button", name="Draw maps").click()
    expect(page.get_by_role("status").filter(has_text="normals at 256×256, native")).to_be_visible()
    wanted = Models(RuntimeConfig(device="cpu")).maps_of(
        read_picture(ROOM), find_artefacts(app_adapters / "ldm"), process="native", say=lambda step: None
    )
    for name, intrinsic in (("Normals", NORMALS), ("Depth", DEPTH)):
        values = drawn(page, name)
        file = downloaded(page, "npy", tmp_path)
        assert file.name == f"room-11000013-{name.lower()}.npy"
        array = np.load(file)
        torch.testing.assert_close(read_map(file, intrinsic)[0], wanted.maps[name.lower()], rtol=1e-4, atol=1e-5)
        for x, y in ((3, 250), (200, 17)):
            told = value_at(page, values, x, y)
            assert np.array_equal(np.float32(told), np.atleast_1d(array[y, x]))
            assert f"{told[0]:.4f}" in values.locator("output").inner_text()
        exr, png = downloaded(page, "exr", tmp_path), downloaded(page, "png", tmp_path)
        torch.testing.assert_close(read_map(exr, intrinsic)[0], read_map(file, intrinsic)[0], rtol=0, atol=0)
        assert read_map(png, intrinsic)[0].shape == wanted.maps[name.lower()].shape
        shoot(page, f"3-{name.lower()}")
    values.locator(".map").press("ArrowRight")
    expect(values).to_have_attribute("data-pixel", "[201,17]")


def test_the_slider_moves_and_the_scene_is_shut_in(page):
    from playwright.sync_api import expect

    choose(page, "rooms")
    page.locator(".gallery-item").nth(1).click()
    expect(page.locator("img[src*='room-11000009']")).to_have_count(2)
    page.get_by_role("button", name="Draw maps").click()
    drawn(page, "Normals")
    over = page.locator("[data-testid=imageslider-image]:visible").nth(1)
    expect(over).to_have_css("clip-path", "inset(0px 0px 0px 50%)")
    handle, picture = page.locator("[data-testid=slider]:visible .icon-wrap"), over.bounding_box()
    handle.hover()
    page.mouse.down()
    page.mouse.move(picture["x"] + picture["width"] / 4, picture["y"] + 50, steps=5)
    page.mouse.up()
    left = over.evaluate("image => parseFloat(getComputedStyle(image).clipPath.split(' ').at(-1))")
    assert left == pytest.approx(25, abs=3)
    shoot(page, "4-slider")
    page.get_by_role("tab", name="3-D").click()
    expect(page.locator("iframe.ilora-scene")).to_have_attribute("sandbox", "allow-scripts")
    scene = page.frame_locator("iframe.ilora-scene")
    expect(scene.locator("html")).to_have_attribute("data-viewer", "ready")
    expect(scene.locator("canvas").first).to_be_visible()
    shoot(page, "5-scene")


def test_a_gan_draws_from_a_seed(page, app_adapters, tmp_path):
    from playwright.sync_api import expect

    choose(page, "rooms-stylegan2")
    upload(page, ROOM)
    page.get_by_role("button", name="Draw maps").click()
    expect(page.get_by_role("alert")).to_contain_text("From a seed")
    shoot(page, "6-no-encoder")
    page.get_by_role("tab", name="From a seed").click()
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Draw a sample").click()
    expect(page.get_by_role("status").filter(has_text="at 64×64, seed 7")).to_be_visible()
    values = drawn(page, "Depth")
    array = np.load(downloaded(page, "npy", tmp_path))
    wanted = Models(RuntimeConfig(device="cpu")).maps_of_sample(
        7, find_artefacts(app_adapters / "gan"), say=lambda step: None
    )
    np.testing.assert_allclose(array, wanted.maps["depth"][0].numpy(), rtol=1e-4, atol=1e-5)
    assert value_at(page, values, 5, 60) == [array[60, 5]]
    shoot(page, "7-seed")


def test_a_bad_file_is_a_message(page):
    from playwright.sync_api import expect

    for name, content in (("broken.png", ROOM.read_bytes()[:4000]), ("words.jpg", b"<h1>hello</h1>")):
        upload(page, {"name": name, "mimeType": "image/png", "buffer": content})
        expect(page.get_by_role("alert")).to_contain_text(name)
        expect(page.get_by_role("button", name="Drop an image file here to upload")).to_be_visible()
    shoot(page, "8-bad-file")
    upload(page, {"name": "large.png", "mimeType": "image/png", "buffer": b"\0" * (LIMIT_MB * 10**6 + 1)})
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("exceed the maximum")
    expect(toast).to_be_visible()
    shoot(page, "9-large-file")
    page.get_by_role("button", name="Draw maps").click()
    expect(page.get_by_role("alert")).to_contain_text("choose a picture first")


def test_ctrl_c_ends_it(server):
    """Last: the server is gone afterwards."""
    folder = server.folder
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0
    assert not folder.exists()
    assert "Traceback" not in "".join(server.told)
