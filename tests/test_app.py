"""`ilora app`: what may be uploaded, what is offered, who draws, and what is kept. The page: test_app_page.py."""

from __future__ import annotations

import gc
import shutil
import socket
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ilora_cli.main import main
from ilora_cli.web.files import Results, accepted_picture
from ilora_cli.web.gate import is_loopback
from ilora_cli.web.models import Drawn, Models
from ilora_cli.web.offers import find_groups
from ilora_cli.web.values import SIDE, reading, tile
from ilora_core.artefact import find_artefacts
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ArtefactError, DataError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS
from ilora_core.maps_io import read_map, read_picture
from ilora_core.predict import Predictor

ROOM = Path(__file__).parents[1] / "cli" / "ilora_cli" / "web" / "examples" / "room-11000013.jpg"
CPU = RuntimeConfig(device="cpu")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


@pytest.fixture(scope="module")
def ldm(app_adapters):
    return find_artefacts(app_adapters / "ldm")


# --- what may be uploaded


def png(path: Path, size=(40, 30)) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def test_a_picture_is_taken_whatever_it_is_called(tmp_path):
    path = png(tmp_path / "photo.JPG")
    with Image.open(path) as image:
        wanted = np.asarray(image) / 255
    got = accepted_picture(path, max_bytes=10**6).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.JPG"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("drawing.svg", SVG),
        ("drawing.png", SVG),
        ("page.html", b"<!doctype html><script>alert(1)</script>"),
        ("notes.jpg", b"hello"),
        ("empty.png", b""),
        ("paper.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("array.npy", b"\x93NUMPY\x01\x00"),
    ],
)
def test_other_files_are_refused_by_their_content(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="not a picture") as error:
        accepted_picture(tmp_path / name, max_bytes=10**6)
    assert str(error.value).startswith(name)  # and not where it lies


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif")])
def test_a_truncated_picture_is_refused(kind, suffix, tmp_path):
    path = tmp_path / f"half{suffix}"
    with Image.open(png(tmp_path / "whole.png", (200, 200))) as image:
        image.save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"half{suffix}"):
        accepted_picture(path, max_bytes=10**6)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "whole.png"])


def test_too_many_bytes_or_pixels_are_refused(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (9000, 6000)).save(bomb)
    assert bomb.stat().st_size < 20_000
    with pytest.raises(DataError, match="50 million pixels"):
        accepted_picture(bomb, max_bytes=10**6)
    with pytest.raises(DataError, match="larger than"):
        accepted_picture(png(tmp_path / "a.png"), max_bytes=100)


# --- which adapters are offered


def test_adapters_are_found_below_the_current_folder(app_adapters, tmp_path, monkeypatch, caplog):
    place = tmp_path / "work"
    shutil.copytree(app_adapters / "ldm", place / "a" / "b" / "ldm")
    shutil.copytree(app_adapters / "gan", place / "gan")
    shutil.copytree(app_adapters / "gan", place / ".hidden" / "gan")
    shutil.copytree(app_adapters / "gan", place / "1" / "2" / "3" / "4" / "5" / "too_deep")
    (place / "gan" / "depth" / "run.json").write_text("{}")
    monkeypatch.chdir(place)
    groups = find_groups([])
    found = {group.label: list(group.adapters) for group in groups}
    ldm = {f"{name} ({Path('a', 'b', 'ldm', name)})" for name in ("depth", "normals")}
    assert {label.split(" ")[0]: set(labels) for label, labels in found.items()} == {
        "rooms": ldm,
        "rooms-stylegan2": {f"normals ({Path('gan', 'normals')})"},
    }
    assert "does not describe an adapter" in caplog.text


def test_one_adapter_of_each_map_is_chosen(app_adapters, tmp_path, monkeypatch):
    for name in ("first", "second"):
        shutil.copytree(app_adapters / "ldm", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (group,) = find_groups([])
    assert len(group.adapters) == 4
    assert [label.split(" ")[1] for label in group.first_of_each_map()] == ["(first/depth)", "(first/normals)"]


def test_nothing_to_offer_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtefactError, match="ilora quickstart"):
        find_groups([])


# --- the command


def test_without_gradio_the_install_line_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert capsys.readouterr().err.count("pip install 'ilora[app]'") == 1


def test_a_port_in_use_is_one_message(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: port {port} is in use on 127.0.0.1.")
    assert len(error.splitlines()) == 1


def test_wrong_settings_are_refused(capsys):
    assert main(["app", "--set", "train.lr=1"]) == 2
    assert "--set generator.name=value" in capsys.readouterr().err
    assert main(["app", "--host", "no.such.host.invalid"]) == 2
    assert "--host no.such.host.invalid" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_a_host_that_others_reach_is_warned_of(host, warned, app_adapters, monkeypatch, capsys):
    listened = []
    monkeypatch.setattr(
        "ilora_cli.web.server.serve", lambda listening, *_, **__: listened.append(listening.getsockname())
    )
    assert main(["app", "--host", host, "--port", "0", "--adapter", str(app_adapters / "ldm")]) == 0
    assert ("warning: --host" in capsys.readouterr().err) == warned
    assert is_loopback(listened[0][0]) != warned


# --- models


def test_maps_are_those_of_predict_and_steps_are_told(ldm):
    models, steps = Models(CPU), []
    picture = read_picture(ROOM)
    drawn = models.maps_of(picture, ldm, process="native", say=steps.append)
    wanted = Predictor(ldm, runtime=CPU)(picture[None])
    assert list(drawn.maps) == list(wanted)
    for name, value in drawn.maps.items():
        torch.testing.assert_close(value, wanted[name][0], rtol=0, atol=0)
    assert steps[:2] == ["load generator and adapters", "encode"]
    assert all(any(name in step for step in steps[2:]) for name in wanted)
    steps.clear()
    models.maps_of(picture, ldm, process="native", say=steps.append)
    assert steps[0] == "encode"


def test_one_generator_is_in_memory(ldm):
    models = Models(CPU)
    models.maps_of_sample(1, ldm, say=lambda step: None)
    first = weakref.ref(models._loaded[1].generator.net)
    seen = []

    def say(step):
        if step.startswith("load"):
            gc.collect()
            seen.append(first())

    models.maps_of_sample(1, ldm[:1], say=say)
    assert seen == [None]


def test_a_job_ends_at_its_next_step_when_the_server_does(ldm):
    models = Models(CPU)
    models.stop()
    with pytest.raises(Exception, match="the server is ending"):
        models.maps_of_sample(1, ldm, say=lambda step: None)


def test_an_error_is_a_message_and_the_next_job_runs(ldm, app_adapters, tmp_path, monkeypatch):
    from ilora_cli.web.page import _Work

    (group,) = find_groups([str(app_adapters / "ldm")])
    work = _Work({group.label: group}, Models(CPU), Results(tmp_path), ROOM.parent, 10**6)

    def draw():
        return work.from_picture(str(ROOM), group.label, list(group.adapters), "native", lambda share, desc: None)

    def fail(self, codes, intrinsic=None):
        raise torch.OutOfMemoryError("CUDA out of memory. <b>Tried</b> to allocate 3 GiB")

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "from_codes", fail)
        token, message = draw()
    assert not isinstance(token, str)
    assert "ran out of memory" in message
    assert "Choose fewer maps" in message
    assert "<b>" not in message
    assert work._models._loaded is None
    token, message = draw()
    assert work._results.get(token) is not None
    _, message = work.from_picture("/etc/passwd", group.label, list(group.adapters), "native", lambda share, desc: None)
    assert "only an uploaded picture" in message
    _, message = work.from_picture(str(ROOM), group.label, [], "native", lambda share, desc: None)
    assert "choose at least one adapter" in message


# --- results and their numbers


def result_of(tmp_path, height=300, width=270):
    random = torch.Generator().manual_seed(0)
    maps = {
        "normals": torch.nn.functional.normalize(torch.randn(3, height, width, generator=random), dim=0),
        "depth": torch.rand(1, height, width, generator=random),
    }
    drawn = Drawn(torch.rand(3, height, width, generator=random), maps, {"normals": NORMALS, "depth": DEPTH})
    results = Results(tmp_path)
    return results, results.add(drawn, key="../My photo (1).jpg", note=""), maps


@pytest.mark.parametrize("name", ["normals", "depth"])
def test_tiles_hold_every_number(name, tmp_path):
    _, result, maps = result_of(tmp_path)
    height, width = result.size
    seen = np.full((height, width, maps[name].shape[0]), np.nan, np.float32)
    for row in range(2):
        for column in range(2):
            y, x = row * SIDE, column * SIDE
            part = np.frombuffer(tile(result, name, column, row), "<f4")
            into = seen[y : y + SIDE, x : x + SIDE]
            into[:] = part.reshape(into.shape)
    np.testing.assert_array_equal(seen, maps[name].permute(1, 2, 0).numpy())
    for column, row in ((2, 0), (0, 2), (-1, 0)):
        assert tile(result, name, column, row) is None
    assert tile(result, "pictures", 0, 0) is None


def test_files_are_the_maps_and_nothing_else_is_found(tmp_path):
    results, result, maps = result_of(tmp_path)
    assert result.key == "My-photo-1-jpg"
    for name, intrinsic in result.intrinsics.items():
        for suffix in (".npy", ".exr"):
            value, _ = read_map(results.file(result, name, suffix), intrinsic)
            torch.testing.assert_close(value, maps[name], rtol=0, atol=0)
        with Image.open(result.preview(name)) as image:
            assert image.size == result.size[::-1]
    assert "<html" in results.scene(result).read_text().lower()
    for name, suffix in (("albedo", ".npy"), ("..", ".npy"), ("normals", ".py"), ("normals", "")):
        assert results.file(result, name, suffix) is None
    assert results.get("..") is None


def test_old_results_go(tmp_path):
    results = Results(tmp_path)
    drawn = Drawn(torch.rand(3, 8, 8), {"albedo": torch.rand(3, 8, 8)}, {"albedo": ALBEDO})
    tokens = [results.add(drawn, key="a", note="").token for _ in range(10)]
    assert [results.get(token) is not None for token in tokens] == [False] * 2 + [True] * 8
    assert len(list(tmp_path.iterdir())) == 8


def test_numbers_have_their_unit():
    assert reading(NORMALS)["unit"].startswith("unit vector")
    assert reading(DEPTH)["unit"] == "relative, far = large"  # an adapter's depth has no metres
    assert reading(ALBEDO) == {"names": ["R", "G", "B"], "unit": "linear RGB"}
