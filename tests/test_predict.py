"""`ilora predict` on files as people have them: any size, any mode, some of them broken."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ilora_cli.main import main
from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.pixels import read_pixels
from ilora_core.predict import Predictor
from ilora_core.tiling import low_pass, tile_maps


@pytest.fixture(scope="module")
def fitted(tiny_model, tiny_pairs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "out"
    settings = {
        "generator": {"weights": str(tiny_model), "resolution": 32},
        "train": {"steps": 3, "batch": 2, "lr": 1e-2},
        "runtime": {"device": "cpu"},
    }
    config = FitConfig("sd", (NORMALS, DEPTH), pairs=str(tiny_pairs), validation=2, settings=settings)
    list(fit(config, out))
    return out


@pytest.fixture(scope="module")
def drawer(fitted) -> Predictor:
    return Predictor(find_artefacts(fitted))


def size_of(path):
    with Image.open(path) as image:
        return image.size


def ilora(*arguments):
    command = [sys.executable, "-m", "ilora_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("process", ["native", "full", "tile"])
@pytest.mark.parametrize("size", [(32, 32), (33, 57), (7, 90), (64, 40)])
def test_maps_have_the_pictures_size(drawer, process, size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    maps = drawer(picture, process=process)
    assert {name: value.shape for name, value in maps.items()} == {
        "normals": (1, 3, *size),
        "depth": (1, 1, *size),
    }
    torch.testing.assert_close(maps["normals"].norm(dim=1), torch.ones(1, *size))


def test_padding_does_not_reach_a_picture_that_fits(drawer):
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one = drawer(picture, process="full")
    for process in ("native", "tile"):
        other = drawer(picture, process=process)
        for name in one:
            torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-5)


def test_pictures_together_are_as_alone(drawer):
    pictures = torch.rand(3, 3, 50, 70, generator=torch.Generator().manual_seed(2))
    for process in ("native", "tile"):
        together = drawer(pictures, process=process, batch=4)
        for row in range(3):
            alone = drawer(pictures[row : row + 1], process=process)
            for name, value in together.items():
                torch.testing.assert_close(value[row : row + 1], alone[name], atol=5e-3, rtol=0)


def test_tiles_keep_to_the_native_map(drawer):
    """Seen from afar the map is the native one, which tiles by themselves are not."""
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    native, tiles = drawer(picture), drawer(picture, process="tile", overlap=0.5, batch=8)

    @torch.inference_mode()
    def draw(crops):
        return drawer.from_codes(drawer.generator.encode(crops))

    bare = tile_maps(draw, picture, {}, drawer.intrinsics, side=32, pixel=3.0, overlap=0.5)
    for name, value in tiles.items():
        own, without = (low_pass(found - native[name], 6.0).abs().mean() for found in (value, bare[name]))
        assert own < without / 3
        assert (value - native[name]).abs().max() > 1e-3


def test_what_does_not_fit_into_memory_at_its_own_size_is_drawn_by_tiles(drawer, monkeypatch, caplog):
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    tiles, encode = drawer(picture, process="tile", overlap=0.5, batch=8), drawer.generator.encode

    def short_of_memory(pictures):
        if pictures.shape[-1] > 64:
            raise torch.OutOfMemoryError("out of memory")
        return encode(pictures)

    monkeypatch.setattr(drawer.generator, "encode", short_of_memory)
    with caplog.at_level(logging.WARNING, logger="ilora"):
        found = drawer(picture, process="full", overlap=0.5, batch=8)
    assert "96×64 does not fit into memory" in caplog.text
    for name, value in tiles.items():
        assert torch.equal(found[name], value)


def test_the_command_overlaps_tiles_as_the_core_does():
    from inspect import signature

    from ilora_cli.predict import predict
    from ilora_core.tiling import OVERLAP

    assert signature(predict).parameters["overlap"].default == OVERLAP  # repeated there, since the core's brings torch


def test_small_pictures_have_no_tiles(drawer):
    picture = torch.rand(1, 3, 24, 60, generator=torch.Generator().manual_seed(4))
    native, tiles = drawer(picture), drawer(picture, process="tile")
    for name, value in native.items():
        assert torch.equal(value, tiles[name])


def test_a_network_is_compiled_on_request(fitted, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled.append(net))
    artefacts = find_artefacts(fitted)
    Predictor(artefacts, runtime=RuntimeConfig(device="cpu"))
    assert not compiled
    drawer = Predictor(artefacts, runtime=RuntimeConfig(device="cpu", compile=True))
    assert compiled == [drawer.generator.net]


def test_several_adapters_do_not_mix(fitted, drawer):
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    alone = Predictor(find_artefacts(fitted / "depth"))(picture)["depth"]
    torch.testing.assert_close(drawer(picture)["depth"], alone)


def test_the_photographs_of_scikit_image(fitted, tmp_path):
    """Grey, RGBA, odd sizes, a palette: every map is written, at the photograph's size."""
    import skimage.data

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("camera", "horse", "coffee", "astronaut", "chelsea", "coins", "page", "logo", "rocket"):
        try:
            image = getattr(skimage.data, name)()
        except (FileNotFoundError, ModuleNotFoundError, ConnectionError):
            continue  # not among the files in the wheel
        Image.fromarray(image).save(folder / f"{name}.png")
    with Image.open(folder / "camera.png") as grey:
        grey.convert("P").save(folder / "palette.gif")
    (folder / "broken.jpg").write_bytes((folder / "camera.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("not a picture")
    pictures = {path.stem: size_of(path) for path in folder.iterdir() if path.suffix in (".png", ".gif")}
    assert len(pictures) >= 4
    done = ilora(
        "predict", folder, "--adapter", fitted, "--out", tmp_path / "maps", "--format", "npy,png", "--device", "cpu"
    )
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr
    assert "notes.txt" in done.stderr
    assert "Traceback" not in done.stderr
    for stem, (width, height) in pictures.items():
        normals = np.load(tmp_path / "maps" / "normals" / f"{stem}.npy")
        assert normals.shape == (height, width, 3)
        assert normals.dtype == np.float32
        assert np.load(tmp_path / "maps" / "depth" / f"{stem}.npy").shape == (height, width)
        assert size_of(tmp_path / "maps" / "normals_preview" / f"{stem}.png") == (width, height)
        assert (tmp_path / "maps" / "depth" / f"{stem}.png").is_file()


def test_what_exists_is_kept_unless_overwritten(fitted, tmp_path):
    picture = tmp_path / "a.b.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(picture)
    arguments = (
        "predict",
        picture,
        "--adapter",
        fitted / "normals",
        "--out",
        tmp_path / "maps",
        "--device",
        "cpu",
        "--json",
    )
    first = json.loads(ilora(*arguments).stdout)
    assert (first["written"], first["skipped"]) == (1, 0)
    target = tmp_path / "maps" / "normals" / "a.b.npy"
    target.write_bytes(b"mine")
    second = json.loads(ilora(*arguments).stdout)
    assert (second["written"], second["skipped"]) == (0, 1)
    assert target.read_bytes() == b"mine"
    third = json.loads(ilora(*arguments, "--overwrite").stdout)
    assert (third["written"], third["skipped"]) == (1, 0)
    assert np.load(target).shape == (30, 40, 3)


def test_frames_on_one_scale(fitted, tmp_path, capsys):
    """Two folders of frames in tiles: npy and png of all frames of a folder are on one scale, and one more frame redoes it."""
    rng = np.random.default_rng(0)
    for folder, frames in (("a", 3), ("b", 2)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        base = rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
        for number in range(frames):
            Image.fromarray(base + np.uint8(20 * number)).save(tmp_path / "in" / folder / f"{number}.png")
    (tmp_path / "in" / "a" / "broken.png").write_bytes(b"no picture")
    arguments = ["predict", str(tmp_path / "in"), "-a", str(fitted), "-o", str(tmp_path / "maps"), "--device", "cpu"]
    arguments += [
        "--shared-scale",
        "--format",
        "npy,png",
        "--process",
        "tile",
        "--overlap",
        "0.3",
        "--batch",
        "2",
        "--json",
    ]
    assert main(arguments) == 1
    first = json.loads(capsys.readouterr().out)
    assert (first["written"], list(first["failed"])) == (5, [str(tmp_path / "in" / "a" / "broken.png")])

    lines = {}
    for folder, frames in (("a", 3), ("b", 2)):
        for number in range(frames):
            drawn = np.load(tmp_path / "maps" / "depth" / folder / f"{number}.npy")
            assert drawn.shape == (48, 64)
            shown = read_pixels(tmp_path / "maps" / "depth" / folder / f"{number}.png").stored[..., 0] / 65535
            inside = (shown > 0) & (shown < 1)
            lines[folder, number] = np.polyfit(drawn[inside], shown[inside], 1)
            assert lines[folder, number][0] < 0  # near is bright
            np.testing.assert_allclose(lines[folder, number], lines[folder, 0], rtol=1e-2)
    assert abs(lines["a", 0][0] - lines["b", 0][0]) > 1e-3
    assert not list((tmp_path / "maps").glob(".frames-*"))

    (tmp_path / "in" / "a" / "broken.png").unlink()
    (tmp_path / "maps" / "depth" / "b" / "1.npy").unlink()
    assert main(arguments) == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["written"], second["skipped"]) == (2, 3)


def test_normal_frames_differ_by_their_signs(fitted, tmp_path):
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(picture)
    found = {}
    for frame in ("opencv", "opengl", "directx"):
        out = tmp_path / frame
        given = ("predict", picture, "-a", fitted / "normals", "-o", out, "--normals", frame, "--device", "cpu")
        assert main([str(argument) for argument in given]) == 0
        found[frame] = np.load(out / "normals" / "p.npy")
    np.testing.assert_allclose(found["opengl"], found["opencv"] * [1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(found["directx"], found["opencv"] * [1, 1, -1], atol=1e-6)


def test_a_generators_own_samples(fitted, tmp_path):
    arguments = ("predict", "--samples", "2", "-a", fitted, "-o", tmp_path / "maps", "--device", "cpu", "--json")
    done = ilora(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 2
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == [
        "depth",
        "depth_preview",
        "normals",
        "normals_preview",
        "pictures",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "x.png"), "--adapter"),
        (("predict", "--adapter", "x"), "--samples"),
        (("predict", "x.png", "--adapter", "nowhere"), "no folder nowhere"),
        (("predict", "x.png", "--adapter", "x", "--format", "jpg"), "npy, png, exr"),
        (("predict", "--samples", "2", "--adapter", "x", "--shared-scale"), "--shared-scale"),
        (("predict", "x.png", "--adapter", "x", "--overlap", "1"), "--overlap"),
    ],
)
def test_bad_requests(arguments, words):
    done = ilora(*arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_artefacts_are_refused(fitted, tmp_path):
    import shutil

    copy = tmp_path / "normals"
    shutil.copytree(fitted / "normals", copy)
    weights = copy / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match="damaged"):
        Predictor(find_artefacts(copy))
    weights.write_bytes(whole)
    (copy / "run.json").unlink()
    with pytest.raises(ArtefactError, match=r"no run\.json"):
        find_artefacts(copy)


def test_an_adapter_of_another_generator_is_refused(fitted):
    with pytest.raises(
        (ArtefactError, ConfigError), match=r"another generator|no rooms model|fit this network|no setting"
    ):
        Predictor(find_artefacts(fitted / "normals"), generator="rooms", settings={"weights": ""})
