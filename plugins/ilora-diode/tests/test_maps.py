"""What the maps are: units, axes, holes, resizing, the reference's own rules, damaged files."""

import numpy as np
import pytest
import torch

from ilora_core.errors import DataError
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.maps_io import write_picture
from ilora_diode.arrays import read_depth
from ilora_diode.axes import check_axes
from ilora_diode.source import DiodeSource, tiny


def _one_by_one(archive, **settings):
    settings = {"root": str(archive.reference), "split": "val", "listing": "glob", "batch_size": 1, **settings}
    source = DiodeSource(**settings)
    for batch in source:
        yield archive.truth[batch.keys[0].removeprefix("val/")], batch, source


def _reference_depth(depth, mask):
    """The reference's rule: limits over all pixels, inverted, nothing where the mask says so."""
    clipped = np.clip(depth, 0.5, min(300, np.percentile(depth, 99)))
    near = 1 - (clipped - clipped.min()) / np.ptp(clipped)
    return np.where(mask > 0, near, 0)


def test_depth_is_in_metres_and_holes_are_not_valid(archive):
    for truth, batch, source in _one_by_one(archive):
        value, valid = batch.maps["depth"]
        wanted = (truth.mask > 0) & (truth.depth > 0)
        assert np.array_equal(valid[0, 0].numpy(), wanted)
        assert not wanted[10, 10]
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value[0, 0].numpy(), np.where(wanted, truth.depth, 0), rtol=1e-6)
        assert source.intrinsics[0] == DEPTH


def test_normals_are_turned_to_the_opencv_frame(archive):
    for truth, batch, source in _one_by_one(archive):
        n, valid = batch.maps["normals"]
        wanted = (truth.normals != 0).any(-1)
        assert wanted[0, 0]  # though its components sum to 0
        assert np.array_equal(valid[0, 0].numpy(), wanted)
        unit = truth.normals / np.maximum(np.linalg.norm(truth.normals, axis=-1, keepdims=True), 1e-9)
        expected = unit * (1, -1, -1)
        np.testing.assert_allclose(n[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
        assert source.intrinsics[1] == NORMALS


def test_paper_gives_the_reference_s_depth_picture(archive):
    assert max(truth.depth.max() for truth in archive.truth.values()) > 300
    for truth, batch, source in _one_by_one(archive, paper=True):
        value, valid = batch.maps["depth"]
        picture = source.intrinsics[0].to_picture(value, valid)
        expected = _reference_depth(truth.depth, truth.mask)
        np.testing.assert_allclose(picture[0, 1].numpy(), expected, atol=1e-5)
        assert (DEPTH.to_picture(value, valid) - picture).abs().max() > 1e-2  # ilora's own limits are others


def test_paper_masks_as_the_reference_does(archive):
    for truth, batch, _ in _one_by_one(archive, paper=True):
        assert np.array_equal(batch.maps["depth"][1][0, 0].numpy(), truth.mask > 0)
        assert np.array_equal(batch.maps["normals"][1][0, 0].numpy(), truth.normals.sum(-1) != 0)
        assert not batch.maps["normals"][1][0, 0, 0, 0]


def test_resizing_cuts_the_centre_and_leaves_holes_out(archive):
    name = next(iter(archive.truth))
    truth = archive.truth[name]
    truth.depth[:] = 5
    truth.depth[truth.mask == 0] = 200  # would show, if it were blended in
    np.save(archive.file(name, "_depth.npy"), truth.depth)
    (batch,) = (b for _, b, _ in _one_by_one(archive, size=12) if b.keys[0].endswith(name))
    value, valid = batch.maps["depth"]
    assert batch.pictures.shape == (1, 3, 12, 12)
    assert value.shape == valid.shape == (1, 1, 12, 12)
    assert bool(valid.any())
    assert not bool(valid.all())
    torch.testing.assert_close(value[valid], torch.full_like(value[valid], 5.0))
    n, known = batch.maps["normals"]
    torch.testing.assert_close(n.norm(dim=1)[known[:, 0]], torch.ones(int(known.sum())))


def test_numbers_that_are_none_are_not_valid(tmp_path):
    depth = np.array([[1.0, np.nan, np.inf], [2.0, -1.0, 3.0]], np.float32).repeat(3, 0)
    np.save(tmp_path / "d.npy", depth)
    np.save(tmp_path / "m.npy", np.ones_like(depth))
    value, valid = read_depth(tmp_path / "d.npy", tmp_path / "m.npy")
    assert valid[0, 0].tolist() == [True, False, False]
    assert valid[0, 5].tolist() == [True, False, True]
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("ending", [".png", "_depth.npy", "_depth_mask.npy", "_normal.npy"])
def test_a_damaged_file_is_named(archive, ending):
    damaged = archive.file(next(iter(archive.truth)), ending)
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        list(_one_by_one(archive))
    assert str(damaged) in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "array"),
    [
        ("_depth.npy", np.ones((24, 32), np.uint16)),
        ("_depth.npy", np.ones((24, 32, 3))),
        ("_depth.npy", np.ones((12, 16))),
        ("_depth_mask.npy", np.ones((12, 16))),
        ("_normal.npy", np.ones((24, 32))),
        ("_normal.npy", np.ones((12, 16, 3))),
    ],
)
def test_arrays_that_are_not_diode_s_are_named(archive, ending, array):
    strange = archive.file(next(iter(archive.truth)), ending)
    np.save(strange, array)
    with pytest.raises(DataError) as caught:
        list(_one_by_one(archive))
    assert str(strange) in str(caught.value)


def test_the_picture_belongs_to_its_maps(archive):
    path = archive.file(next(iter(archive.truth)), ".png")
    write_picture(path.with_suffix(""), torch.zeros(3, 12, 16), format="png8")
    with pytest.raises(DataError, match="its picture"):
        list(_one_by_one(archive))


def test_sound_axes_pass_and_mirrored_ones_are_told():
    evidence = check_axes(tiny())
    assert max(evidence.facing) < 0
    assert (evidence.along_x.value or 0) > 0.5
    assert (evidence.along_y.value or 0) > 0.5
    for flip, words in (((1, -1, -1), "mean n_z"), ((-1, 1, 1), "x axis"), ((1, -1, 1), "y axis")):
        source = tiny()
        for entry in source._entries.values():
            np.save(entry.normals, np.load(entry.normals) * np.array(flip, np.float32))
        with pytest.raises(DataError, match=words):
            check_axes(source)


def test_without_normals_there_is_nothing_to_look_at(archive):
    with pytest.raises(DataError, match="no normals"):
        check_axes(DiodeSource(root=str(archive.depth), split="val"))


def test_the_miniature_cleans_up_after_itself():
    source = tiny()
    folder = next(iter(source._entries.values())).picture
    part = source.select(source.keys[:1])
    del source
    assert len(list(part)) == 1
    del part
    assert not folder.exists()
