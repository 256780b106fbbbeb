"""The rooms' labels are exact: checked against geometry, not against our own earlier output."""

import pytest
import torch

from ilora_rooms.render import Rooms, _render_specs, linear_to_srgb, render, srgb_to_linear
from ilora_rooms.scene import build_scene
from ilora_rooms.splits import seeds

SIZE = 96


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    return render(seeds("test", 6), size=SIZE)


def _points(depth: torch.Tensor, focal: torch.Tensor) -> torch.Tensor:
    """Camera-frame points of a z-depth map, from the pinhole model alone."""
    n = depth.shape[-1]
    ticks = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
    f = focal.double()[:, None, None]
    x, y = ticks[None, None, :] / f, ticks[None, :, None] / f
    z = depth[:, 0].double()
    return torch.stack([x * z, y * z, z], 1)


def test_normals_are_unit_and_face_the_camera(rooms: Rooms) -> None:
    assert torch.allclose(rooms.normals.norm(dim=1), torch.ones(6, SIZE, SIZE), atol=1e-5)
    focal = torch.tensor([build_scene(s).focal for s in seeds("test", 6)])
    towards = -_points(rooms.depth, focal).float()
    assert ((rooms.normals * towards).sum(1) > 0).all()


def test_normals_agree_with_the_finite_differences_of_depth(rooms: Rooms) -> None:
    focal = torch.tensor([build_scene(s).focal for s in seeds("test", 6)])
    p = _points(rooms.depth, focal)
    across, down = p[..., 1:-1, 2:] - p[..., 1:-1, :-2], p[..., 2:, 1:-1] - p[..., :-2, 1:-1]
    n = rooms.normals.double()
    flat = torch.ones(6, SIZE - 2, SIZE - 2, dtype=torch.bool)  # all nine labels alike: a planar interior
    centre = n[..., 1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            flat &= (n[..., dy : dy + SIZE - 2, dx : dx + SIZE - 2] - centre).abs().amax(1) < 1e-5
    flat &= ((p[..., 1:-1, 2:] + p[..., 1:-1, :-2] - 2 * p[..., 1:-1, 1:-1]) * centre).sum(1).abs() < 1e-3  # one plane
    flat &= ((p[..., 2:, 1:-1] + p[..., :-2, 1:-1] - 2 * p[..., 1:-1, 1:-1]) * centre).sum(1).abs() < 1e-3
    measured = torch.nn.functional.normalize(torch.linalg.cross(down, across, dim=1), dim=1)
    angle = torch.rad2deg(torch.acos((measured * centre).sum(1).clamp(-1, 1)))[flat]
    assert flat.float().mean() > 0.5
    assert angle.mean() < 0.05
    assert (angle < 1).float().mean() > 0.995


def test_picture_is_albedo_times_shading(rooms: Rooms) -> None:
    light = rooms.albedo * rooms.shading
    assert torch.allclose(srgb_to_linear(rooms.picture), light.clamp(0, 1), atol=1e-6)
    assert (light > 1).float().mean() < 0.1  # clipping is declared, and rare
    assert rooms.albedo.min() > 0
    assert rooms.albedo.max() <= 1
    assert rooms.shading.min() >= 0


def test_shapes_types_and_ranges(rooms: Rooms) -> None:
    for name, channels in (("picture", 3), ("normals", 3), ("depth", 1), ("albedo", 3), ("shading", 3)):
        value = getattr(rooms, name)
        assert value.shape == (6, channels, SIZE, SIZE)
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    assert rooms.valid.shape == (6, 1, SIZE, SIZE)
    assert rooms.valid.dtype == torch.bool
    assert rooms.picture.min() >= 0
    assert rooms.picture.max() <= 1
    assert rooms.depth.min() > 0.05
    assert rooms.depth.max() < 15
    assert len(rooms.captions) == 6


def test_a_room_depends_on_its_seed_and_look_alone() -> None:
    a, b = render([5, 6], size=24), render([6], size=24)
    for name in ("picture", "normals", "depth", "albedo", "shading", "valid"):
        assert torch.equal(getattr(a, name)[1:], getattr(b, name))
    assert a.captions[1] == b.captions[0]
    other = render([6], size=24, look="shifted")
    assert not torch.equal(other.depth, b.depth)


def test_looks_share_no_colour_texture_or_furniture_word() -> None:
    standard = {w for s in range(40) for w in build_scene(s).caption.replace(",", "").split()}
    shifted = {w for s in range(40) for w in build_scene(s, "shifted").caption.replace(",", "").split()}
    glue = {"a", "an", "with", "floor", "window", "room", "kitchen", "gallery", "lamp"}
    assert standard & shifted <= glue


def test_windows_are_masked_and_most_pixels_are_valid() -> None:
    with_window = [s for s in range(60) if build_scene(s).caption.endswith("a window")]
    valid = render(with_window[:12], size=32, supersample=1).valid
    assert 0.5 < valid.float().mean() < 1


def test_srgb_round_trip() -> None:
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(srgb_to_linear(linear_to_srgb(x)), x, atol=1e-6)


def test_the_camera_rolls_and_pitches() -> None:
    """The mean normal map must be a weak predictor of this world."""
    cameras = torch.tensor([build_scene(s).camera.tolist() for s in range(200)])
    roll, pitch = torch.asin(cameras[:, 0, 1]), torch.asin(cameras[:, 2, 1])
    assert roll.std() > 0.08
    assert pitch.std() > 0.12
    assert cameras[:, 2, 0].std() > 0.5


def test_rooms_rendered_together_agree_with_rooms_rendered_alone() -> None:
    """A GPU renders many rooms at once, padded to the busiest: padding must not show."""
    specs = [build_scene(s) for s in range(5)]
    together = _render_specs(specs, 24, 2, torch.device("cpu"))
    for i, spec in enumerate(specs):
        for a, b in zip(together, _render_specs([spec], 24, 2, torch.device("cpu")), strict=True):
            close = (a[i].float() - b[0].float()).abs() < 1e-3
            assert close.float().mean() > 0.995  # rounding may move a silhouette by a sub-sample
