"""Files of pictures and maps: nothing is lost that the format can hold, and every bad file is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ilora_core.errors import ConfigError, DataError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic, unit_vectors
from ilora_core.maps_io import read_map, read_mask, read_picture, write_map, write_picture, write_preview
from ilora_core.png16 import encode_png

ROUGHNESS = Intrinsic("roughness", 1, "", "linear")
FLOW = Intrinsic("flow", 2, "px", "linear", -8.0, 8.0)


def a_map(intrinsic: Intrinsic, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    value = torch.rand(1, intrinsic.channels, 9, 7, generator=g)
    if intrinsic is NORMALS:
        value = unit_vectors(value - torch.tensor([0.5, 0.5, 1.0]).view(1, 3, 1, 1))
    elif intrinsic is DEPTH:
        value = 0.5 + 9 * value
    else:
        value = intrinsic.low + (intrinsic.high - intrinsic.low) * value
    valid = torch.ones(1, 9, 7, dtype=torch.bool)
    valid[0, 2, 3] = False
    return value[0], valid


@pytest.mark.parametrize("intrinsic", [NORMALS, DEPTH, ALBEDO, SHADING, ROUGHNESS, FLOW], ids=lambda i: i.name)
@pytest.mark.parametrize("suffix", [".npy", ".exr"])
def test_float_files_keep_every_bit(tmp_path: Path, intrinsic: Intrinsic, suffix: str) -> None:
    value, valid = a_map(intrinsic)
    write_map(tmp_path / f"m{suffix}", value, valid, intrinsic)
    again, valid_again = read_map(tmp_path / f"m{suffix}", intrinsic)
    assert torch.equal(valid, valid_again)
    assert torch.equal(torch.where(valid, value, 0.0), again)
    assert [p.name for p in tmp_path.iterdir()] == [f"m{suffix}"]


@pytest.mark.parametrize("intrinsic", [NORMALS, ALBEDO, ROUGHNESS, FLOW], ids=lambda i: i.name)
@pytest.mark.parametrize("masked", [False, True])
def test_png_keeps_16_bits(tmp_path: Path, intrinsic: Intrinsic, masked: bool) -> None:
    value, valid = a_map(intrinsic)
    valid = valid if masked else torch.ones_like(valid)
    write_map(tmp_path / "m.png", value, valid, intrinsic)
    again, valid_again = read_map(tmp_path / "m.png", intrinsic)
    assert torch.equal(valid, valid_again)
    picture, picture_again = (intrinsic.to_picture(v[None], valid[None]) for v in (value, again))
    # Normals are made unit length again, which moves the rounding error along with the vector.
    tolerance = (2 if intrinsic is NORMALS else 1) / 65535
    assert (picture - picture_again).abs().max() <= tolerance
    assert (picture - picture_again).abs().max() < 0.1 / 255


def test_depth_png_is_relative_and_16_bit(tmp_path: Path) -> None:
    depth = torch.linspace(1.0, 3.0, 900).view(1, 30, 30)
    write_map(tmp_path / "d.png", depth, None, DEPTH)
    again, _ = read_map(tmp_path / "d.png", DEPTH)
    expected = 1 - DEPTH.to_picture(depth[None])[0, :1]
    assert (again - expected).abs().max() <= 1 / 65535
    assert again[0, 0, 0] == 0  # the nearest pixel stays valid
    assert again.unique().numel() > 800  # 8 bits would leave 256


def test_depth_png_in_millimetres(tmp_path: Path) -> None:
    stored = np.arange(0, 6000, 100, dtype=np.uint16).reshape(6, 10)
    Image.fromarray(stored).save(tmp_path / "d.png")
    depth, valid = read_map(tmp_path / "d.png", DEPTH, scale=0.001)
    np.testing.assert_allclose(depth[0].numpy(), stored * 0.001, rtol=1e-6)
    assert not valid[0, 0, 0]
    assert valid.sum() == 59


@pytest.mark.parametrize("suffix", [".npy", ".exr", ".png"])
@pytest.mark.parametrize(("frame", "signs"), [("opengl", (1, -1, -1)), ("directx", (1, 1, -1))])
def test_frames(tmp_path: Path, suffix: str, frame: str, signs: tuple[int, ...]) -> None:
    value, _ = a_map(NORMALS)
    write_map(tmp_path / f"n{suffix}", value, None, NORMALS, frame=frame)
    as_stored, _ = read_map(tmp_path / f"n{suffix}", NORMALS)
    torch.testing.assert_close(as_stored, value * torch.tensor(signs).view(3, 1, 1), atol=1e-4, rtol=0)
    back, _ = read_map(tmp_path / f"n{suffix}", NORMALS, frame=frame)
    torch.testing.assert_close(back, value, atol=1e-4, rtol=0)


def test_normals_without_direction_are_not_valid(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 3), (128, 128, 0), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = (0, 0, 0), (127, 127, 128), (255, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "n.png")
    value, valid = read_map(tmp_path / "n.png", NORMALS)
    assert valid[0].tolist() == [[False] * 3, [True] * 3]
    assert value[2, 1].max() < -0.99
    floats = np.zeros((2, 2, 3), np.float32)
    floats[0, 0] = (0, 0, -1)
    np.save(tmp_path / "n.npy", floats)
    assert read_map(tmp_path / "n.npy", NORMALS)[1].sum() == 1


def test_not_finite_is_not_valid(tmp_path: Path) -> None:
    depth = np.ones((3, 3), np.float32)
    depth[0] = np.nan, np.inf, -2
    np.save(tmp_path / "d.npy", depth)
    value, valid = read_map(tmp_path / "d.npy", DEPTH)
    assert valid.sum() == 6
    assert torch.isfinite(value).all()


def test_layouts_of_arrays(tmp_path: Path) -> None:
    value, _ = a_map(NORMALS)
    np.save(tmp_path / "chw.npy", value.numpy())
    np.savez(tmp_path / "one.npz", normals=value.permute(1, 2, 0).numpy(), valid=np.eye(9, 7) > 0)
    assert torch.equal(read_map(tmp_path / "chw.npy", NORMALS)[0], value)
    assert read_map(tmp_path / "one.npz", NORMALS)[1].sum() == 7
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"two.npz.*call the right one 'map'"):
        read_map(tmp_path / "two.npz", ROUGHNESS)
    np.save(tmp_path / "bytes.npy", np.array([[0, 51], [102, 255]], np.uint8))
    torch.testing.assert_close(read_map(tmp_path / "bytes.npy", ROUGHNESS)[0][0], torch.tensor([[0, 0.2], [0.4, 1.0]]))


def test_grey_maps_and_masks(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 51, np.uint8)).save(tmp_path / "r.jpg", quality=100)
    assert read_map(tmp_path / "r.jpg", ROUGHNESS)[0].mean() == pytest.approx(0.2, abs=0.01)
    with pytest.raises(DataError, match=r"r.jpg.*normals need three"):
        read_map(tmp_path / "r.jpg", NORMALS)
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask > 0).save(tmp_path / "mask1.png")
    assert read_mask(tmp_path / "mask.png").sum() == read_mask(tmp_path / "mask1.png").sum() == 8
    assert read_map(tmp_path / "r.jpg", ROUGHNESS, mask=tmp_path / "mask.png")[1].sum() == 8
    Image.fromarray(mask[:3]).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"small.png is 4x3.*r.jpg is 4x4"):
        read_map(tmp_path / "r.jpg", ROUGHNESS, mask=tmp_path / "small.png")


def test_exr_of_other_tools(tmp_path: Path) -> None:
    import OpenEXR

    z = np.full((4, 5), 2.5, np.float16)
    OpenEXR.File({}, {"depth.Z": z}).write(str(tmp_path / "z.exr"))
    assert (read_map(tmp_path / "z.exr", DEPTH)[0] == 2.5).all()
    rgba = np.dstack([z, z, z, np.eye(4, 5)]).astype(np.float32)
    OpenEXR.File({}, {"RGBA": rgba}).write(str(tmp_path / "rgba.exr"))
    value, valid = read_map(tmp_path / "rgba.exr", DEPTH)
    assert value.shape == (1, 4, 5)
    assert valid.sum() == 4
    planes = {f"normal.{c}": np.full((4, 5), v, np.float32) for c, v in zip("ZXY", (-1, 0, 0), strict=True)}
    OpenEXR.File({}, planes).write(str(tmp_path / "xyz.exr"))
    assert read_map(tmp_path / "xyz.exr", NORMALS)[0][:, 0, 0].tolist() == [0, 0, -1]


def test_tif(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    depth = np.linspace(1, 5, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(depth).save(tmp_path / "d.tif")
    np.testing.assert_array_equal(read_map(tmp_path / "d.tif", DEPTH)[0][0].numpy(), depth)
    normals, _ = a_map(NORMALS)
    tifffile.imwrite(tmp_path / "n.tif", normals.permute(1, 2, 0).numpy(), photometric="rgb")
    assert torch.equal(read_map(tmp_path / "n.tif", NORMALS)[0], normals)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "PA"])
def test_pictures_of_any_mode(tmp_path: Path, mode: str) -> None:
    grey = np.tile(np.linspace(0, 255, 12, dtype=np.uint8), (10, 1))
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    else:
        image = Image.fromarray(np.dstack([grey] * 3)).convert("P" if mode == "PA" else mode)
    path = tmp_path / ("p.tif" if mode in ("CMYK", "I") else "p.png")
    image.save(path, **({"transparency": b"\x80" * 256} if mode == "PA" else {}))
    picture = read_picture(path)
    assert picture.shape == (3, 10, 12)
    assert picture.dtype == torch.float32
    if mode not in ("1", "CMYK", "P", "PA"):
        torch.testing.assert_close(picture[1], torch.from_numpy(grey / np.float32(255)), atol=0.03, rtol=0)


def test_transparency_lies_over_mid_grey(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 255, 51
    Image.fromarray(pixels).save(tmp_path / "p.png")
    torch.testing.assert_close(read_picture(tmp_path / "p.png")[0, 0], torch.tensor([0.5, 0.0, 0.4]))
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([255, 0, 0, 0, 255, 0])
    indexed.putpixel((1, 0), 1)
    indexed.save(tmp_path / "t.png", transparency=1)
    assert read_picture(tmp_path / "t.png")[:, 0].T.tolist() == [[1, 0, 0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_pillow_applies_it(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "p.png", exif=exif)
    with Image.open(tmp_path / "p.png") as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    np.testing.assert_array_equal((read_picture(tmp_path / "p.png") * 255).round().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("top", "name"), [(255, "a.b.png"), (65535, "a.b.png"), (None, "a.b.npy")])
def test_pictures_survive_exactly(tmp_path: Path, top: int | None, name: str) -> None:
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    if top:
        picture = (picture * top).round() / top
    assert write_picture(tmp_path / "a.b", picture).name == name
    assert torch.equal(read_picture(tmp_path / name), picture)


def test_every_16_bit_value_survives(tmp_path: Path) -> None:
    picture = (torch.arange(65536).float() / 65535).view(1, 256, 256).expand(3, -1, -1)
    write_picture(tmp_path / "p", picture, format="png16")
    assert torch.equal(read_picture(tmp_path / "p.png"), picture)


def test_float_pictures(tmp_path: Path) -> None:
    import OpenEXR

    OpenEXR.File({}, {"RGB": np.full((2, 2, 3), 0.214041, np.float32)}).write(str(tmp_path / "p.exr"))
    assert read_picture(tmp_path / "p.exr").mean() == pytest.approx(0.5, abs=1e-4)  # linear light
    np.save(tmp_path / "p.npy", np.full((2, 2, 3), 0.25, np.float32))
    assert (read_picture(tmp_path / "p.npy") == 0.25).all()
    np.save(tmp_path / "bytes.npy", np.full((2, 2, 3), 51.0))
    assert read_picture(tmp_path / "bytes.npy").mean() == pytest.approx(0.2)
    np.save(tmp_path / "odd.npy", np.full((2, 2, 3), 1.5))
    with pytest.raises(DataError, match=r"odd.npy.*\[0,1\]"):
        read_picture(tmp_path / "odd.npy")


def test_preview_is_for_eyes(tmp_path: Path) -> None:
    value, valid = a_map(NORMALS)
    write_preview(tmp_path / "n.png", value, valid, NORMALS)
    with Image.open(tmp_path / "n.png") as image:
        assert image.mode == "RGB"
        assert image.getpixel((3, 2)) == (128, 128, 128)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".npz", ".exr", ".tif"])
def test_bad_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    with pytest.raises(DataError, match=f"bad{suffix} does not exist"):
        read_picture(path)
    for content in (b"", b"this is a letter, not a picture" * 20):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"bad{suffix}"):
            read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".npz", ".exr", ".tif"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    pixels = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    if suffix in (".npy", ".exr"):
        write_map(path, torch.from_numpy(pixels).permute(2, 0, 1), None, ALBEDO)
    elif suffix == ".npz":
        np.savez_compressed(path, pixels)
    else:
        Image.fromarray((pixels * 255).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=f"cut{suffix}"):
        read_map(path, ALBEDO)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ilora_core.pixels.MAX_PIXELS", 50)
    for name, dtype in (("a.png", np.uint8), ("b.png", np.uint16)):
        (tmp_path / name).write_bytes(encode_png(np.zeros((9, 9, 3), dtype)))
        with pytest.raises(DataError, match=rf"{name} has too many pixels|{name}.*limit"):
            read_picture(tmp_path / name)
    np.save(tmp_path / "c.npy", np.zeros((9, 9)))
    write_map(tmp_path / "d.exr", torch.ones(1, 9, 9), None, DEPTH)
    for name in ("c.npy", "d.exr"):
        with pytest.raises(DataError, match=f"{name} has too many pixels"):
            read_map(tmp_path / name, DEPTH)


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m.gif.*\.npy"):
        write_map(tmp_path / "m.gif", *a_map(DEPTH), DEPTH)


@pytest.mark.parametrize("suffix", [".npy", ".exr", ".png"])
def test_a_refused_write_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"m{suffix}" / "in the way").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"cannot write .*m{suffix}"):
        write_map(tmp_path / f"m{suffix}", *a_map(DEPTH), DEPTH)
    assert len(list(tmp_path.iterdir())) == 1
