"""Frames whose depth and shading flicker by scale and shift come out on one scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ilora_core.errors import DataError
from ilora_core.frames import SharedScale, align_frames
from ilora_core.intrinsics import DEPTH, NORMALS, SHADING

INTRINSICS = {"depth": DEPTH.predicted(), "shading": SHADING, "normals": NORMALS}
FLICKER = ((1.0, 0.0), (0.6, 0.3), (0.8, 0.05), (0.5, 0.1), (0.9, 0.1))


def scene(seed=0, size=(96, 120)):
    coarse = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True)[0]


def frames():
    """(key, maps): one scene, its depth and shading on a scale that jumps."""
    depth, normals = scene(), scene(1).expand(3, -1, -1)
    for number, (scale, shift) in enumerate(FLICKER):
        shading = scale * scene(2).expand(3, -1, -1)
        yield f"f{number}", {"depth": scale * depth + shift, "shading": shading, "normals": normals + number}


def test_flicker_goes_and_the_scene_stays(tmp_path):
    before, scale = dict(frames()), SharedScale(INTRINSICS)
    after = dict(scale(frames(), tmp_path))
    assert list(after) == list(before)
    for name, intrinsic_scene in (("depth", scene()), ("shading", scene(2).expand(3, -1, -1))):
        stack = torch.stack([maps[name] for maps in after.values()])
        assert (stack - stack[0]).abs().max() < 1e-5
        jumps = torch.stack([maps[name] for maps in before.values()])
        assert (jumps - jumps[0]).abs().max() > 0.1
        found = torch.corrcoef(torch.stack([stack[0].flatten(), intrinsic_scene.flatten()]))[0, 1]
        assert found > 0.999
    for key, maps in after.items():
        torch.testing.assert_close(maps["normals"], before[key]["normals"])
    assert scale.unfitted == []
    assert list(tmp_path.iterdir()) == []


def test_what_changes_in_the_scene_is_kept():
    """A thing that moves through one corner stays where it is in each frame."""
    maps = [scene() for _ in range(5)]
    for number, value in enumerate(maps):
        value[:, 10:20, 10 * number : 10 * number + 10] += 0.3
    fits = align_frames(DEPTH, maps)
    for number, ((s, b), value) in enumerate(zip(fits, maps, strict=True)):
        moved = (s * value + b - scene())[:, 10:20, 10 * number : 10 * number + 10]
        assert 0.2 < float(moved.mean()) < 0.4


def test_an_even_number_of_frames_has_the_mean_of_its_middle_two():
    first, second = align_frames(SHADING, [scene(), 3 * scene()])
    assert first == pytest.approx((2.0, 0.0))
    assert second == pytest.approx((2 / 3, 0.0))


def test_a_frame_that_fits_nothing_is_kept_and_named(tmp_path):
    drawn = [(key, {"depth": maps["depth"]}) for key, maps in frames()]
    drawn[3] = ("inverted", {"depth": 1 - scene()})
    scale = SharedScale({"depth": DEPTH})
    after = dict(scale(iter(drawn), tmp_path))
    torch.testing.assert_close(after["inverted"]["depth"], 1 - scene())
    assert scale.unfitted == ["inverted"]


def test_frames_that_could_not_be_drawn_pass(tmp_path):
    drawn = list(frames())
    drawn.insert(2, ("broken", {}))
    after = list(SharedScale(INTRINSICS)(iter(drawn), tmp_path))
    assert [key for key, _ in after] == ["f0", "f1", "broken", "f2", "f3", "f4"]
    assert after[2][1] == {}
    assert all(maps for key, maps in after if key != "broken")


def test_only_broken_frames(tmp_path):
    assert list(SharedScale(INTRINSICS)(iter([("broken", {})]), tmp_path)) == [("broken", {})]


def test_frames_of_two_sizes_are_refused(tmp_path):
    drawn = [("a", {"depth": scene()}), ("b", {"depth": scene(size=(120, 96))})]
    with pytest.raises(DataError, match=r"b is 96x120 and others 120x96.*folder of their own"):
        list(SharedScale({"depth": DEPTH})(iter(drawn), Path(tmp_path)))


def test_pictures_of_frames_show_equal_values_equally(tmp_path):
    """Each map's own picture stretches it to its own range; that of a frame does not."""
    scale = SharedScale(INTRINSICS)
    after = dict(scale(frames(), tmp_path))
    half = after["f0"]["depth"].clone()
    half[:, :48] = 0.5  # a frame with other extremes
    intrinsic, value = scale.shown(INTRINSICS["depth"], half)
    whole_intrinsic, whole = scale.shown(INTRINSICS["depth"], after["f0"]["depth"])
    assert intrinsic == whole_intrinsic
    picture, other = intrinsic.to_picture(value[None]), intrinsic.to_picture(whole[None])
    torch.testing.assert_close(picture[..., 48:, :], other[..., 48:, :])
    near, far = after["f0"]["depth"].flatten().argmin(), after["f0"]["depth"].flatten().argmax()
    assert other[0, 0].flatten()[near] > 0.95
    assert other[0, 0].flatten()[far] < 0.05
    lit, light = scale.shown(SHADING, after["f0"]["shading"])
    assert lit.encoding == "srgb"
    torch.testing.assert_close(light, after["f0"]["shading"])
    assert scale.shown(NORMALS, after["f0"]["normals"])[0] is NORMALS
