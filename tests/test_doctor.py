"""A folder with every fault there is, and sound folders in which nothing is found.

The scenes are analytic: a box room with a ball on its floor, seen by a perspective camera.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from ilora_cli.doctor import doctor
from ilora_core.doctor import inspect_pairs
from ilora_core.errors import ConfigError
from ilora_core.exports import export_pairs
from ilora_core.findings import CODES, Report
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, Intrinsic, linear_to_srgb, srgb_to_linear, unit_vectors
from ilora_core.maps_io import write_map, write_picture
from ilora_core.sources import TensorSource

SIZE = 48


@cache
def room(yaw: float, pitch: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Depth (1,H,W), normals (3,H,W) and the index (H,W) of what is seen (six walls and a ball)."""
    v, u = np.mgrid[0:SIZE, 0:SIZE]
    rays = np.stack([(u + 0.5) / SIZE * 2 - 1, (v + 0.5) / SIZE * 2 - 1, np.full(u.shape, 1.2)], -1) * 0.8
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    world = rays @ turn.T
    half = np.array([2.5, 1.3, 3.0])
    with np.errstate(divide="ignore"):
        far = np.where(world != 0, half / np.abs(world), np.inf)
    wall = far.argmin(-1)
    distance = far.min(-1)
    normal = np.zeros_like(world)
    np.put_along_axis(normal, wall[..., None], -np.sign(np.take_along_axis(world, wall[..., None], -1)), -1)
    seen = wall * 2 + (np.take_along_axis(world, wall[..., None], -1)[..., 0] > 0)
    centre, radius = turn @ np.array([0.4, 0.4, 1.8]), 0.6
    b, a = world @ centre, (world**2).sum(-1)
    root = b**2 - a * (centre @ centre - radius**2)
    near = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    ball = near < distance
    distance = np.where(ball, near, distance)
    normal = np.where(ball[..., None], (world * distance[..., None] - centre) / radius, normal)
    seen = np.where(ball, 6, seen)
    depth = torch.from_numpy(distance * rays[..., 2]).float()[None]
    return (
        depth,
        unit_vectors(torch.from_numpy(normal @ turn).float().permute(2, 0, 1)[None])[0],
        torch.from_numpy(seen),
    )


def rooms(n: int = 4) -> TensorSource:
    """Pictures = albedo × shading, with normals, depth and albedo."""
    views = [room(0.3 + 0.7 * i) for i in range(n)]
    depth, normals = (torch.stack([view[k] for view in views]) for k in (0, 1))
    paint = torch.rand(n, 7, 3, generator=torch.Generator().manual_seed(0)) * 0.7 + 0.05
    albedo = torch.stack([paint[i][view[2]].permute(2, 0, 1) for i, view in enumerate(views)])
    tiles = (torch.arange(SIZE)[:, None] // 5 + torch.arange(SIZE) // 4) % 2
    albedo = albedo * (1 - 0.6 * tiles)  # a pattern, because shading changes where surfaces meet
    shading = 0.7 - 0.2 * normals[:, 1:2]
    pictures = (linear_to_srgb(albedo * shading) * 255).round() / 255
    valid = torch.ones_like(depth, dtype=torch.bool)
    maps = {"normals": (normals, valid), "depth": (depth, valid), "albedo": (albedo, valid)}
    return TensorSource(pictures, maps, intrinsics=(NORMALS, DEPTH, ALBEDO), keys=[f"r{i}" for i in range(n)])


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    export_pairs(rooms(), tmp_path / "pairs")
    return tmp_path / "pairs"


def codes(report: Report, severity: str | None = None) -> set[str]:
    return {f.code for f in report.findings if severity in (None, f.severity)}


def change(folder: Path, intrinsic: Intrinsic, how: Callable[[Tensor], Tensor]) -> None:
    """Rewrite all maps of one kind as floats."""
    for path in sorted(folder.glob("*.exr")):
        from ilora_core.maps_io import read_map

        value, valid = read_map(path, intrinsic)
        np.save(
            path.with_suffix(".npy"), torch.where(valid, how(value), torch.nan).permute(1, 2, 0).squeeze(-1).numpy()
        )
        path.unlink()


def test_a_sound_folder_is_clean(sound: Path) -> None:
    report = inspect_pairs(sound)
    assert report.findings == ()
    assert report.pictures == 4
    assert report.maps == {"albedo": 4, "depth": 4, "normals": 4}


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_a_sound_folder_in_other_formats_is_clean(tmp_path: Path, suffix: str) -> None:
    export_pairs(rooms(), tmp_path, formats=dict.fromkeys(("normals", "depth", "albedo"), suffix))
    assert inspect_pairs(tmp_path).findings == ()


def test_masked_pixels_are_no_fault(tmp_path: Path) -> None:
    source = rooms()
    valid = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) > 0.02
    source.maps = {name: (value, valid) for name, (value, _) in source.maps.items()}
    export_pairs(source, tmp_path)
    report = inspect_pairs(tmp_path)
    assert report.errors == ()
    assert codes(report) == {"invalid-pixels"}


@pytest.mark.parametrize("with_depth", [True, False])
@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((-1, 1, 1), {"flipped-normals-x"}),
        ((1, -1, 1), {"flipped-normals-y"}),
        ((1, 1, -1), {"flipped-normals-z"}),
        ((1, -1, -1), {"flipped-normals-y", "flipped-normals-z"}),
        ((-1, -1, -1), {"flipped-normals"}),
    ],
)
def test_flipped_normals(sound: Path, signs: tuple[int, ...], expected: set[str], with_depth: bool) -> None:
    change(sound / "normals", NORMALS, lambda n: n * torch.tensor(signs).view(3, 1, 1))
    if not with_depth:
        shutil.rmtree(sound / "depth")
    report = inspect_pairs(sound)
    assert codes(report) == codes(report, "error") == expected
    if signs == (1, -1, -1):
        assert inspect_pairs(sound, frame="opengl").findings == ()


def test_a_floor_alone_tells_up_from_down(tmp_path: Path) -> None:
    floor = torch.tensor([0.0, 0.8, -0.6]).view(3, 1, 1).expand(3, 20, 20) + 0.01 * torch.rand(3, 20, 20)
    write_picture(tmp_path / "rgb/a", torch.rand(3, 20, 20))
    write_map(tmp_path / "normals/a.exr", unit_vectors(floor[None])[0], None, NORMALS)
    report = inspect_pairs(tmp_path)
    assert codes(report, "error") == {"flipped-normals-y"}
    assert report.without({"flipped-normals-y"}).errors == ()


def test_balls_without_a_floor_are_sound(tmp_path: Path) -> None:
    """Their lower half looks down, as flipped floors would: the surface itself tells that nothing is mirrored."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    valid = (x**2 + y**2 < 0.9)[None]
    ball = torch.stack([x, y, -(1 - x**2 - y**2).clamp(min=0.05).sqrt()])
    write_picture(tmp_path / "rgb/a", torch.rand(3, 40, 40))
    write_map(tmp_path / "normals/a.exr", unit_vectors(ball[None])[0], valid, NORMALS)
    assert inspect_pairs(tmp_path).errors == ()
    mirrored = ball * torch.tensor([1, -1, 1]).view(3, 1, 1)
    write_map(tmp_path / "normals/a.exr", unit_vectors(mirrored[None])[0], valid, NORMALS)
    assert len(codes(inspect_pairs(tmp_path), "error") & {"flipped-normals-x", "flipped-normals-y"}) == 1


@pytest.mark.parametrize("with_normals", [True, False])
@pytest.mark.parametrize("how", ["disparity", "png"])
def test_inverted_depth(sound: Path, how: str, with_normals: bool) -> None:
    if how == "disparity":
        change(sound / "depth", DEPTH, lambda d: 1 / d)
    else:
        for i, path in enumerate(sorted((sound / "depth").glob("*.exr"))):
            depth = rooms().maps["depth"][0][i, 0].numpy()
            Image.fromarray((depth / depth.max() * 65535).astype(np.uint16)).save(path.with_suffix(".png"))
            path.unlink()
    if not with_normals:
        shutil.rmtree(sound / "normals")
    assert codes(inspect_pairs(sound), "error") == {"inverted-depth"}
    if how == "disparity":
        disparity = Intrinsic("depth", 1, "", "relative_depth", kind="affine_disparity")
        assert inspect_pairs(sound, [disparity]).errors == ()
    else:
        assert inspect_pairs(sound, scales={"depth": 0.0001}).errors == ()


def test_colour_spaces(sound: Path) -> None:
    change(sound / "albedo", ALBEDO, linear_to_srgb)
    assert codes(inspect_pairs(sound)) == {"colour-space"}
    for i, path in enumerate(sorted((sound / "albedo").glob("*.npy"))):
        path.unlink()
        linear = rooms().maps["albedo"][0][i]
        Image.fromarray((linear.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path.with_suffix(".png"))
    assert codes(inspect_pairs(sound)) == {"colour-space"}
    assert torch.allclose(srgb_to_linear(linear_to_srgb(linear)), linear, atol=1e-5)


def plant_everything(folder: Path) -> dict[str, str]:
    """Break a folder in every way that concerns single files; code -> the file that should be named."""
    normals, depth, pictures = folder / "normals", folder / "depth", folder / "pictures"
    n, d = rooms().maps["normals"][0][0], rooms().maps["depth"][0][0]
    planted = {}

    def pair(key: str, code: str, file: Path) -> None:
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(len(planted)))
        write_picture(pictures / key, noise, format="png8")
        for path, kind, value in ((normals / f"{key}.exr", NORMALS, n), (depth / f"{key}.exr", DEPTH, d)):
            write_map(path, value + 1e-5 * len(planted), None, kind)
        planted[code] = str(file)

    pair("lacks", "missing-map", pictures / "lacks.png")
    (depth / "lacks.exr").unlink()
    pair("lonely-one", "missing-picture", normals / "lonely-one.exr")
    (pictures / "lonely-one.png").unlink()
    pair("twice-there", "duplicate-stem", pictures / "twice-there.png")
    Image.new("RGB", (4, 4)).save(pictures / "twice-there.bmp")
    pair("cut", "unreadable", pictures / "cut.png")
    (pictures / "cut.png").write_bytes((pictures / "cut.png").read_bytes()[:-1000])
    pair("shape", "size-mismatch", depth / "shape.exr")
    write_map(depth / "shape.exr", d[:, :, : SIZE // 2], None, DEPTH)
    pair("constant", "constant-map", depth / "constant.exr")
    write_map(depth / "constant.exr", torch.full_like(d, 2.0), None, DEPTH)
    pair("nothing", "no-valid-pixel", normals / "nothing.exr")
    write_map(normals / "nothing.exr", torch.full_like(n, torch.nan), None, NORMALS)
    pair("infinite", "invalid-pixels", depth)
    write_map(depth / "infinite.exr", torch.where(d > d.median(), torch.inf, d), None, DEPTH)
    pair("halves", "not-unit-length", normals / "halves.exr")
    write_map(normals / "halves.exr", n / 2, None, NORMALS)
    pair("negative", "negative-depth", depth / "negative.exr")
    write_map(depth / "negative.exr", d - d.median(), None, DEPTH)
    pair("millimetre", "unlikely-unit", depth / "millimetre.exr")
    write_map(depth / "millimetre.exr", d * 1000, None, DEPTH)
    pair("bright", "out-of-range", folder / "albedo/bright.exr")
    write_map(folder / "albedo/bright.exr", torch.full((3, SIZE, SIZE), 0.5) + n, None, ALBEDO)
    pair("grey-picture", "constant-picture", pictures / "grey-picture.png")
    write_picture(pictures / "grey-picture", torch.full((3, SIZE, SIZE), 0.2))
    pair("the-same", "duplicate-picture", pictures / "the-same.png")
    shutil.copy(pictures / "r1.png", pictures / "the-same.png")
    pair("the-same-map", "duplicate-map", normals / "the-same-map.exr")
    shutil.copy(normals / "r1.exr", normals / "the-same-map.exr")
    pair("bigger-map", "resized", normals)
    big = torch.nn.functional.interpolate(n[None], scale_factor=2, mode="nearest")[0]
    write_map(normals / "bigger-map.exr", big, None, NORMALS)
    write_map(folder / "shine/r0.npy", torch.rand(1, SIZE, SIZE), None, Intrinsic("shine", 1, "", "linear"))
    planted["assumed-intrinsic"] = str(folder / "shine")
    return planted


def plant_leaks(folder: Path, pairs: Path) -> dict[str, str]:
    (folder / "pictures").mkdir(parents=True)
    shutil.copy(pairs / "pictures/r2.png", folder / "pictures/innocent.png")
    write_picture(folder / "pictures/r3", torch.rand(3, SIZE, SIZE), format="png8")
    return {"leak": str(folder / "pictures/innocent.png"), "same-key": str(folder / "pictures/r3.png")}


def test_every_planted_fault_is_found(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    planted = plant_everything(sound) | plant_leaks(tmp_path / "val", sound)
    report = inspect_pairs(sound, validation=tmp_path / "val")
    found = {(f.code, f.file) for f in report.findings}
    assert set(planted.items()) <= found, sorted(set(planted.items()) - found)
    # The others need a folder of their own: they are about all maps together.
    assert set(planted) == set(CODES) - {"layout", "inverted-depth", "colour-space"} - {
        code for code in CODES if code.startswith("flipped")
    }
    with pytest.raises(typer.Exit) as stop:
        doctor(sound, intrinsic=None, val=tmp_path / "val", ignore=None, set_=None, json=True)
    assert stop.value.exit_code == 1
    told = json.loads(capsys.readouterr().out)
    assert {(f["code"], f["file"]) for f in told["findings"]} == found
    assert all(f["fix"] and f["message"] for f in told["findings"])
    assert told["errors"] == len(report.errors)


def test_every_missing_partner_is_listed(sound: Path) -> None:
    (sound / "depth/r1.exr").unlink()
    (sound / "pictures/r2.png").unlink()
    assert {(f.code, Path(f.file).name, Path(f.file).parent.name) for f in inspect_pairs(sound).findings} == {
        ("missing-map", "r1.png", "pictures"),
        ("missing-picture", "r2.exr", "normals"),
        ("missing-picture", "r2.exr", "depth"),
        ("missing-picture", "r2.exr", "albedo"),
    }


def test_normals_kept_as_a_float_picture(sound: Path) -> None:
    change(sound / "normals", NORMALS, lambda n: (n + 1) / 2)
    found = [f for f in inspect_pairs(sound).errors if f.code == "not-unit-length"]
    assert len(found) == 4
    assert "2·picture − 1" in found[0].fix


def test_a_user_s_range(tmp_path: Path) -> None:
    heat = Intrinsic("heat", 1, "C", "linear", -20.0, 120.0)
    for key, low, high in (("a", -10, 100), ("b", 0, 200)):
        write_picture(tmp_path / "pictures" / key, torch.rand(3, 8, 8), format="png8")
        np.save(_made(tmp_path / "heat") / f"{key}.npy", np.linspace(low, high, 64).reshape(8, 8))
    found = inspect_pairs(tmp_path, [heat]).findings
    assert [(f.code, Path(f.file).name) for f in found] == [("out-of-range", "b.npy")]
    assert {f.code for f in inspect_pairs(tmp_path).findings} == {"assumed-intrinsic", "out-of-range"}


def test_folders_that_are_not_pairs(tmp_path: Path) -> None:
    assert codes(inspect_pairs(tmp_path / "nowhere"), "error") == {"layout"}
    assert codes(inspect_pairs(tmp_path), "error") == {"layout"}
    write_picture(tmp_path / "pictures/a", torch.rand(3, 8, 8))
    assert codes(inspect_pairs(tmp_path), "error") == {"layout"}
    assert codes(inspect_pairs(tmp_path, [DEPTH]), "error") == {"layout"}
    assert codes(inspect_pairs(tmp_path, [DEPTH], validation=tmp_path / "none"), "error") == {"layout"}


def test_the_command(sound: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    def run(**options) -> str:
        defaults = {"intrinsic": None, "val": None, "ignore": None, "set_": None, "json": False}
        doctor(sound, **{**defaults, **options})
        return capsys.readouterr().out

    assert "4 pictures, 4 albedo, 4 depth, 4 normals: nothing is wrong, 0 warnings." in run()
    assert "4 pictures, 4 depth: nothing" in run(intrinsic=["depth"])
    change(sound / "normals", NORMALS, lambda n: n * torch.tensor([1, -1, -1]).view(3, 1, 1))
    with pytest.raises(typer.Exit):
        run()
    out = capsys.readouterr().out
    assert "flipped-normals-y" in out
    assert "source.frame=opengl" in out
    assert "nothing is wrong" in run(set_=["source.frame=opengl"])
    assert "nothing is wrong" in run(ignore=["flipped-normals-y", "flipped-normals-z"])
    for options in (
        {"ignore": ["typo"]},
        {"set_": ["train.lr=1"]},
        {"set_": ["source.frame=left"]},
        {"set_": ["source.scales.depth=-1"]},
        {"intrinsic": [str(tmp_path / "none.toml")]},
    ):
        with pytest.raises(ConfigError):
            run(**options)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    return folder
