"""Sources: what is on disk comes back, at the right size, in a fixed order, and every mistake is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ilora_core.errors import ConfigError, DataError
from ilora_core.exports import export_pairs
from ilora_core.folders import find_pictures
from ilora_core.intrinsics import ALBEDO, BUILT_IN, DEPTH, NORMALS, Intrinsic, unit_vectors
from ilora_core.maps_io import write_map, write_picture
from ilora_core.protocols import Batch, Source
from ilora_core.sources import (
    FolderSource,
    PairsSource,
    Subset,
    TensorSource,
    infer_intrinsic,
    load_intrinsic,
    source_keys,
)

ROUGHNESS = Intrinsic("roughness", 1, "", "linear")


def scenes(n: int = 5, size: tuple[int, int] = (12, 16)) -> TensorSource:
    """Random pictures of k/255 with normals and metric depth, some pixels not valid."""
    g = torch.Generator().manual_seed(0)
    pictures = (torch.rand(n, 3, *size, generator=g) * 255).round() / 255
    normals = unit_vectors(torch.rand(n, 3, *size, generator=g) - torch.tensor([0.5, 0.5, 1.1]).view(1, 3, 1, 1))
    depth = 1 + 5 * torch.rand(n, 1, *size, generator=g)
    valid = torch.rand(n, 1, *size, generator=g) > 0.1
    keys = [f"room/{i:03d}" for i in range(n)]
    maps = {"normals": (normals * valid, valid), "depth": (depth * valid, valid)}
    return TensorSource(pictures, maps, intrinsics=(NORMALS, DEPTH), keys=keys, batch_size=2)


def together(source: Source) -> Batch:
    batches = list(source)
    names = batches[0].maps
    return Batch(
        tuple(key for batch in batches for key in batch.keys),
        torch.cat([batch.pictures for batch in batches]),
        {n: tuple(torch.cat([b.maps[n][i] for b in batches]) for i in (0, 1)) for n in names},
    )


def assert_same(a: Batch, b: Batch) -> None:
    assert a.keys == b.keys
    assert torch.equal(a.pictures, b.pictures)
    assert set(a.maps) == set(b.maps)
    for name in a.maps:
        for one, other in zip(a.maps[name], b.maps[name], strict=True):
            assert torch.equal(one, other), name


@pytest.mark.parametrize("formats", [{}, {"normals": "npy", "depth": "exr"}])
def test_exported_pairs_read_back_to_the_bit(tmp_path: Path, formats: dict[str, str]) -> None:
    source = scenes()
    assert export_pairs(source, tmp_path, formats=formats) == 5
    again = PairsSource(tmp_path, (NORMALS, DEPTH), batch_size=3)
    assert again.intrinsics == (NORMALS, DEPTH)
    assert len(again) == 5
    assert isinstance(again, Source)
    assert_same(together(again), together(source))
    assert (tmp_path / "pictures/room/000.png").is_file()


def test_exported_png_depth_counts_as_relative(tmp_path: Path) -> None:
    export_pairs(scenes(), tmp_path, formats={"depth": "png", "normals": "png"})
    relative = PairsSource(tmp_path, (DEPTH,))
    assert relative.intrinsics[0].kind == "affine_depth"
    assert PairsSource(tmp_path, (DEPTH,), scales={"depth": 0.001}).intrinsics == (DEPTH,)
    truth, read = together(scenes()).maps["normals"], together(PairsSource(tmp_path, (NORMALS,))).maps["normals"]
    assert torch.equal(truth[1], read[1])
    assert (truth[0] - read[0]).abs().max() < 1e-4


def test_keys_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    for key in ("../up", "/etc/x", "", "a\\b"):
        source = TensorSource(torch.zeros(1, 3, 4, 4), keys=[key])
        with pytest.raises(DataError, match="not a file name"):
            export_pairs(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="no 'albedo'"):
        export_pairs(scenes(), tmp_path, formats={"albedo": "exr"})
    with pytest.raises(ConfigError, match=r"\.jpg"):
        export_pairs(scenes(), tmp_path, formats={"depth": "jpg"})


@pytest.mark.parametrize(("size", "expected"), [(8, (8, 8)), ((6, 10), (6, 10)), (None, (12, 16)), (24, (24, 24))])
def test_size_covers_and_cuts_the_centre(tmp_path: Path, size, expected: tuple[int, int]) -> None:
    export_pairs(scenes(), tmp_path)
    batch = together(PairsSource(tmp_path, (NORMALS, DEPTH), size=size))
    assert batch.pictures.shape == (5, 3, *expected)
    assert batch.maps["depth"][1].shape == (5, 1, *expected)
    valid = batch.maps["normals"][1]
    lengths = batch.maps["normals"][0].norm(dim=1, keepdim=True)
    torch.testing.assert_close(lengths[valid], torch.ones_like(lengths[valid]))
    if size == 8:  # shorter side 12 -> 8, longer 16 -> 10, one column cut on either side
        whole = F.interpolate(together(scenes()).pictures, (8, 10), mode="bilinear", antialias=True)
        torch.testing.assert_close(batch.pictures, whole[..., 1:9])


def test_maps_of_another_resolution_and_masks(tmp_path: Path) -> None:
    write_picture(tmp_path / "rgb/a", torch.full((3, 20, 30), 0.5))
    write_map(tmp_path / "roughness/a.npy", torch.full((1, 10, 15), 0.25), None, ROUGHNESS)
    for folder, rows in (("mask", slice(0, 10)), ("roughness_mask", slice(5, 20))):
        mask = np.zeros((20, 30), np.uint8)
        mask[rows] = 255
        (tmp_path / folder).mkdir()
        Image.fromarray(mask).save(tmp_path / folder / "a.png")
    batch = together(PairsSource(tmp_path, (ROUGHNESS,)))
    value, valid = batch.maps["roughness"]
    assert value.shape == (1, 1, 20, 30)
    assert valid[0, 0, 7, 0]
    assert not valid[0, 0, 1, 0]
    assert not valid[0, 0, 15, 0]
    torch.testing.assert_close(value[valid], torch.full_like(value[valid], 0.25))
    write_map(tmp_path / "roughness/a.npy", torch.full((1, 10, 11), 0.25), None, ROUGHNESS)
    with pytest.raises(DataError, match=r"a.npy is 11x10.*30x20"):
        list(PairsSource(tmp_path, (ROUGHNESS,)))


def test_frames_and_scales(tmp_path: Path) -> None:
    write_picture(tmp_path / "images/a", torch.zeros(3, 4, 4))
    up = torch.tensor([0.0, 0.6, 0.8]).view(3, 1, 1).expand(3, 4, 4)  # OpenGL: a floor, seen from above
    write_map(tmp_path / "normals/a.npy", up, None, NORMALS)
    value, _ = together(PairsSource(tmp_path, (NORMALS,), frame="opengl")).maps["normals"]
    torch.testing.assert_close(value[0, :, 0, 0], torch.tensor([0.0, -0.6, -0.8]))
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.full((4, 4), 1500, np.uint16)).save(tmp_path / "depth/a.png")
    value, _ = together(PairsSource(tmp_path, (DEPTH,), scales={"depth": 0.001})).maps["depth"]
    torch.testing.assert_close(value, torch.full_like(value, 1.5))


def test_mistakes_in_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        PairsSource(tmp_path / "nowhere", (DEPTH,))
    with pytest.raises(DataError, match="none of pictures, images, rgb"):
        PairsSource(tmp_path, (DEPTH,))
    export_pairs(scenes(), tmp_path)
    with pytest.raises(DataError, match=r"no maps in .*albedo; .* holds depth/, normals/, pictures/"):
        PairsSource(tmp_path, (ALBEDO,))
    (tmp_path / "depth/room/003.exr").unlink()
    with pytest.raises(DataError, match=r"1 of 5 pictures.*room/003.png has none in depth/.*ilora doctor"):
        PairsSource(tmp_path, (NORMALS, DEPTH))
    assert len(PairsSource(tmp_path, (NORMALS, DEPTH), missing="skip")) == 4
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures/room/001.jpg")
    with pytest.raises(DataError, match=r"'room/001' twice: 001.jpg and 001.png"):
        PairsSource(tmp_path, (NORMALS,))
    (tmp_path / "rgb").mkdir()
    with pytest.raises(DataError, match="both pictures/ and rgb/"):
        PairsSource(tmp_path, (NORMALS,))


def test_a_broken_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    export_pairs(scenes(), tmp_path)
    (tmp_path / "depth/room/002.exr").write_bytes(b"not an exr")
    source = PairsSource(tmp_path, (DEPTH,), batch_size=2)
    with pytest.raises(DataError, match=r"002\.exr"):
        list(source)


def test_pictures_only_in_any_order_and_size(tmp_path: Path) -> None:
    for name, size in (("b/x", (8, 6)), ("b/y", (8, 6)), ("c", (5, 5))):
        write_picture(tmp_path / name, torch.zeros(3, *size))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("")
    source = FolderSource(tmp_path)
    assert source.keys == ("b/x", "b/y", "c")
    assert [(b.keys, tuple(b.pictures.shape)) for b in source] == [
        (("b/x", "b/y"), (2, 3, 8, 6)),
        (("c",), (1, 3, 5, 5)),
    ]
    assert [b.pictures.shape for b in FolderSource(tmp_path, size=4)] == [(3, 3, 4, 4)]
    assert list(find_pictures([tmp_path / "c.png", str(tmp_path / "b/*.png")])) == ["c", "x", "y"]
    write_picture(tmp_path / "d/x", torch.zeros(3, 2, 2))
    assert list(find_pictures([tmp_path / "b/x.png", tmp_path / "d/x.png", tmp_path / "b/x.png"])) == ["x", "d/x"]
    with pytest.raises(DataError, match="neither a file nor a folder"):
        FolderSource(tmp_path / "zz*.png")


def test_a_pairs_folder_gives_its_pictures(tmp_path: Path) -> None:
    export_pairs(scenes(), tmp_path)
    assert FolderSource(tmp_path).keys == scenes().keys


def test_subsets_read_only_their_own(tmp_path: Path) -> None:
    export_pairs(scenes(), tmp_path)
    (tmp_path / "depth/room/000.exr").write_bytes(b"broken")
    part = Subset(PairsSource(tmp_path, (DEPTH,)), ["room/004", "room/001"])
    assert together(part).keys == part.keys == ("room/001", "room/004")
    assert len(part) == 2
    whole = together(scenes())
    assert torch.equal(together(Subset(scenes(), part.keys)).maps["depth"][0], whole.maps["depth"][0][[1, 4]])
    with pytest.raises(ConfigError, match="'room/9'"):
        Subset(scenes(), ["room/9"])


def test_subsets_take_codes_along() -> None:
    class Sampled:
        intrinsics = ()
        keys = ("a", "b", "c")

        def __len__(self) -> int:
            return 3

        def __iter__(self):
            codes = {"w": torch.arange(3.0)[:, None], "shared": torch.ones(1, 2)}
            yield Batch(("a", "b", "c"), torch.zeros(3, 3, 2, 2), {}, codes)

    batch = next(iter(Subset(Sampled(), ["c", "a"])))
    assert batch.codes is not None
    assert batch.codes["w"].flatten().tolist() == [0, 2]
    assert batch.codes["shared"].shape == (1, 2)


def test_tensors_are_checked() -> None:
    with pytest.raises(ConfigError, match="keys"):
        TensorSource(torch.zeros(2, 3, 2, 2), keys=["a", "a"])
    with pytest.raises(ConfigError, match="differ"):
        TensorSource(torch.zeros(2, 3, 2, 2), intrinsics=(DEPTH,))
    assert source_keys(TensorSource(torch.zeros(2, 3, 2, 2))) == ("000000", "000001")


def test_undeclared_intrinsics(tmp_path: Path) -> None:
    write_map(
        tmp_path / "specular/a.npy", torch.zeros(3, 4, 4) + torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), None, ALBEDO
    )
    (tmp_path / "roughness").mkdir()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "roughness/a.png")
    specular, words = infer_intrinsic(tmp_path, "specular")
    assert (specular.channels, specular.encoding, specular.low, specular.high) == (3, "linear", 0.0, 1.0)
    assert "3 channels" in words
    assert infer_intrinsic(tmp_path, "roughness")[0].channels == 1
    assert infer_intrinsic(tmp_path, "normals")[0] is NORMALS
    with pytest.raises(DataError, match="no maps"):
        infer_intrinsic(tmp_path, "metalness")
    assert "specular" not in BUILT_IN


def test_declared_intrinsics(tmp_path: Path) -> None:
    path = tmp_path / "heat.toml"
    path.write_text('[intrinsic]\nname = "heat"\nrange = [-20, 120]\nunit = "C"\nspace = "linear"\nloss = "l1"\n')
    heat = load_intrinsic(path)
    assert (heat.low, heat.high, heat.unit, heat.channels, heat.loss) == (-20.0, 120.0, "C", 1, "l1")
    for text, message in (
        ("name = ", "not valid TOML"),
        ('name = "x"\ncolour = 3', "no field 'colour'"),
        ('name = "x"\nrange = [1]', "low, high"),
        ('name = "x"\nrange = [1, 0]', "must rise"),
        ('name = "x"\nlow = "a"', "heat.toml"),
        ("channels = 1", "needs a name"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_intrinsic(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_intrinsic(tmp_path / "none.toml")
