"""The conventions: axes, ranges, near and bright, colour spaces, and that a picture leads back to its map."""

import pytest
import torch

from ilora_core.errors import ConfigError, UnknownName
from ilora_core.intrinsics import (
    ALBEDO,
    DEPTH,
    NORMALS,
    SHADING,
    Intrinsic,
    convert_normals,
    get_intrinsic,
    linear_to_srgb,
    register_intrinsic,
    resize_map,
    srgb_to_linear,
    unit_vectors,
)


def vector(x: float, y: float, z: float) -> torch.Tensor:
    return torch.tensor([x, y, z], dtype=torch.float32).view(1, 3, 1, 1)


def test_a_wall_that_faces_the_camera_is_olive():
    torch.testing.assert_close(NORMALS.to_picture(vector(0, 0, -1)), vector(0.5, 0.5, 0))


@pytest.mark.parametrize(
    ("frame", "expected"),
    [("opencv", (0.1, -0.7, -0.7)), ("opengl", (0.1, 0.7, 0.7)), ("directx", (0.1, -0.7, 0.7))],
)
def test_a_floor_in_each_frame(frame, expected):
    # Ours is y down, z forward: a floor's normal points up (y < 0) and towards the camera (z < 0).
    floor = vector(0.1, -0.7, -0.7)
    torch.testing.assert_close(convert_normals(floor, frame), vector(*expected))
    torch.testing.assert_close(convert_normals(convert_normals(floor, frame), frame), floor)


def test_unknown_frame():
    with pytest.raises(ConfigError, match="opencv, opengl, directx"):
        convert_normals(vector(0, 0, -1), "blender")


def test_normals_round_trip_and_are_normalised():
    n = unit_vectors(torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(NORMALS.from_picture(NORMALS.to_picture(n * 3)), n)


def test_a_vector_without_direction_faces_the_camera():
    torch.testing.assert_close(NORMALS.from_picture(torch.full((1, 3, 1, 1), 0.5)), vector(0, 0, -1))


@pytest.mark.parametrize("kind", ["metric", "affine_depth", "affine_disparity"])
def test_near_is_bright_whatever_the_kind(kind):
    near_first = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    value = 1 / near_first if kind == "affine_disparity" else near_first
    intrinsic = Intrinsic("depth", 1, "", "relative_depth", kind=kind)
    picture = intrinsic.to_picture(value)
    assert picture.shape == (1, 3, 1, 4)
    assert (picture[0, 0, 0].diff() < 0).all()
    assert picture.min() == 0
    assert picture.max() == 1
    back = intrinsic.predicted().from_picture(picture)[0, 0, 0]
    assert (back.diff() < 0).all() if kind == "affine_disparity" else (back.diff() > 0).all()


def test_metric_depth_comes_back_relative():
    assert DEPTH.predicted().kind == "affine_depth"
    assert NORMALS.predicted() is NORMALS


def test_invalid_pixels_do_not_set_the_depth_range():
    value = torch.tensor([1.0, 2.0, 3.0, 1000.0, float("nan")]).view(1, 1, 1, 5)
    valid = torch.tensor([True, True, True, False, True]).view(1, 1, 1, 5)
    clean = DEPTH.to_picture(value[..., :3])
    picture = DEPTH.to_picture(value, valid)
    torch.testing.assert_close(picture[..., :3], clean)
    assert (picture[..., 3:] == 0).all()


def test_paper_depth_counts_invalid_pixels_as_near():
    # The reference's limits run over all pixels: an invalid zero is clipped to 0.5 m and sets the near end.
    value = torch.linspace(2, 10, 100).view(1, 1, 10, 10)
    valid = torch.ones_like(value, dtype=torch.bool)
    valid[0, 0, 0, 0] = False
    paper = Intrinsic("depth", 1, "m", "relative_depth", kind="metric", rule="paper")
    picture = paper.to_picture(value, valid)[0, 0].flatten()
    p99 = torch.quantile(torch.where(valid, value, torch.zeros_like(value)).flatten(), 0.99)
    expected = 1 - (value.flatten()[1:].clamp(max=p99) - 0.5) / (p99 - 0.5)
    torch.testing.assert_close(picture[1:], expected)
    assert picture[0] == 0


def test_constant_depth_has_no_nan():
    assert torch.isfinite(DEPTH.to_picture(torch.full((1, 1, 4, 4), 3.0))).all()


def test_nothing_valid_is_still_a_picture():
    for intrinsic in (NORMALS, DEPTH, ALBEDO, SHADING):
        value = torch.full((1, intrinsic.channels, 4, 4), float("nan"))
        assert torch.isfinite(intrinsic.to_picture(value, torch.zeros(1, 1, 4, 4, dtype=torch.bool))).all()


def test_srgb_curve():
    # IEC 61966-2-1: 18 % grey is 118/255, and the two branches meet.
    assert linear_to_srgb(torch.tensor(0.18)) * 255 == pytest.approx(117.6, abs=0.1)
    x = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(srgb_to_linear(linear_to_srgb(x)), x, atol=1e-6, rtol=0)


def test_albedo_picture_is_srgb():
    a = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ALBEDO.to_picture(a), linear_to_srgb(a))
    torch.testing.assert_close(ALBEDO.from_picture(ALBEDO.to_picture(a)), a)


@pytest.mark.parametrize("channels", [1, 3])
def test_shading_is_known_up_to_one_scale(channels):
    s = torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(SHADING.to_picture(s), SHADING.to_picture(s * 7))
    back = SHADING.from_picture(SHADING.to_picture(s))
    # Above the white level (the 99 % quantile) a picture clips; below it one factor explains everything.
    ratio = (back / s)[(s < s.max() * 0.9).expand_as(back)] if channels == 3 else (back[:, :1] / s)[s < s.max() * 0.9]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("space", ["linear", "srgb"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_user_intrinsics_round_trip(channels, space):
    mine = Intrinsic("roughness", channels, "", space, low=-2.0, high=6.0)
    value = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0)) * 8 - 2
    torch.testing.assert_close(mine.from_picture(mine.to_picture(value)), value, atol=1e-5, rtol=1e-5)


def test_json_round_trip():
    for intrinsic in (NORMALS, DEPTH, ALBEDO, SHADING):
        assert Intrinsic.from_json(intrinsic.to_json()) == intrinsic
    assert Intrinsic.from_json({"name": "my-mask"}).prompt == "my mask"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 4}, "1, 2 or 3"),
        ({"low": 1.0, "high": 1.0}, "must rise"),
        ({"encoding": "hsv"}, "choose from"),
        ({"loss": "ssim"}, "choose from"),
        ({"name": "a b"}, "not a name"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"encoding": "relative_depth"}, "kind is one of"),
    ],
)
def test_a_bad_declaration_says_what_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message):
        Intrinsic.from_json({"name": "mine", **change})


def test_wrong_shape_is_named():
    with pytest.raises(ConfigError, match=r"depth: a map is \(B,1,H,W\), not \(1, 3, 2, 2\)"):
        DEPTH.to_picture(torch.zeros(1, 3, 2, 2))


def test_unknown_name_lists_the_known():
    with pytest.raises(UnknownName, match="albedo, depth, normals, shading"):
        get_intrinsic("nromals")


def test_registering_twice_is_fine_but_not_differently(monkeypatch):
    monkeypatch.setattr("ilora_core.intrinsics.BUILT_IN", {})
    mine = register_intrinsic(Intrinsic("gloss", 1, "", "linear"))
    assert register_intrinsic(Intrinsic("gloss", 1, "", "linear")) == mine
    with pytest.raises(ConfigError, match="differs"):
        register_intrinsic(Intrinsic("gloss", 3, "", "linear"))


def test_resizing_ignores_invalid_pixels():
    value = torch.ones(1, 1, 8, 8)
    value[..., :4] = 1000
    valid = value == 1
    small, kept = resize_map(DEPTH, value, valid, (4, 4))
    assert torch.allclose(small[kept], torch.ones(()))
    assert kept[..., 3].all()
    assert not kept[..., :2].any()


def test_resized_normals_stay_unit():
    n = unit_vectors(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    small, _ = resize_map(NORMALS, n, torch.ones(1, 1, 8, 8, dtype=torch.bool), (5, 3))
    torch.testing.assert_close(small.norm(dim=1), torch.ones(1, 5, 3))
