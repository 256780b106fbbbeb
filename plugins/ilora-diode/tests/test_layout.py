"""Which pictures a source has, in which order, and what it says of those it lacks."""

import logging
import random

import pytest

from ilora_core.errors import ConfigError, DataError
from ilora_diode.source import DiodeSource

BOTH = "outdoor,indoors"


def _val(**settings) -> DiodeSource:
    return DiodeSource(**{"split": "val", "scenes": BOTH, **settings})


def _keys(names) -> list[str]:
    return [f"val/{name}" for name in names]


def test_the_reference_layout_is_listed_by_its_json(archive, names):
    source = _val(root=str(archive.reference))
    assert list(source.keys) == _keys(names)
    assert [i.name for i in source.intrinsics] == ["depth", "normals"]


def test_flat_archives_are_listed_by_what_is_there(archive, names):
    source = _val(root=str(archive.depth), normals_root=str(archive.normals))
    assert set(source.keys) == set(_keys(archive.truth))
    outdoor = sum("/outdoor/" in key for key in source.keys)
    assert all("/outdoor/" in key for key in source.keys[:outdoor])
    assert list(source.keys[:outdoor]) == sorted(source.keys[:outdoor])
    at_the_split = _val(root=str(archive.depth / "val"), normals_root=str(archive.normals / "val"))
    assert at_the_split.keys == source.keys


def test_both_layouts_give_the_same_maps(archive):
    flat = _val(root=str(archive.depth), normals_root=str(archive.normals), batch_size=2)
    reference = _val(root=str(archive.reference), listing="glob", batch_size=2)
    for one, other in zip(flat, reference, strict=True):
        assert one.keys == other.keys
        for name, (value, valid) in one.maps.items():
            assert value.equal(other.maps[name][0])
            assert valid.equal(other.maps[name][1])


def test_without_normals_there_is_depth_alone(archive):
    source = _val(root=str(archive.depth))
    assert [i.name for i in source.intrinsics] == ["depth"]
    assert set(next(iter(source)).maps) == {"depth"}
    with pytest.raises(DataError, match=r"no normals of val.*source\.normals_root"):
        _val(root=str(archive.depth), maps="normals")


def test_the_json_and_the_folder_are_counted_apart(archive, caplog):
    caplog.set_level(logging.INFO, logger="ilora")
    assert len(_val(root=str(archive.reference))) == 5
    assert "5 pictures named by" in caplog.text
    assert "the folder holds 6" in caplog.text
    caplog.clear()
    assert len(_val(root=str(archive.reference), listing="glob")) == 6
    assert "6 pictures found in" in caplog.text
    with pytest.raises(DataError, match=r"there is no .*diode_meta\.json.*listing=glob"):
        _val(root=str(archive.depth), listing="meta")
    meta = str(archive.reference / "diode_meta.json")
    assert len(_val(root=str(archive.depth), meta=meta)) == 5


def test_scenes_come_as_they_are_asked_for(archive, names):
    for scenes in ("indoors", "outdoor", "indoors,outdoor"):
        source = _val(root=str(archive.reference), scenes=scenes)
        wanted = [name for kind in scenes.split(",") for name in names if name.startswith(kind)]
        assert list(source.keys) == _keys(wanted)


def test_a_subset_is_the_reference_s(archive, names):
    """`random.seed(s)`, then `random.sample` of the list of those that exist: the reference code's own two calls."""
    archive.file(names[1], "_normal.npy").unlink()
    existing = [name for name in names if name != names[1]]
    state = random.getstate()
    random.seed(1234)
    wanted = random.sample(existing, 3)
    random.setstate(state)
    source = _val(root=str(archive.reference), maps="normals", missing="skip", n=3)
    assert list(source.keys) == _keys(wanted)
    assert random.getstate() == state
    assert [key for batch in source for key in batch.keys] == _keys(wanted)
    other = _val(root=str(archive.reference), maps="normals", missing="skip", n=3, seed=2)
    assert other.keys != source.keys
    assert list(_val(root=str(archive.reference), maps="depth", n=99).keys) == _keys(names)


@pytest.mark.parametrize("ending", [".png", "_depth.npy", "_depth_mask.npy", "_normal.npy"])
def test_a_missing_file_is_named(archive, names, ending, caplog):
    gone = archive.file(names[2], ending)
    gone.unlink()
    with pytest.raises(DataError, match=r"1 of 5 pictures lack a file") as caught:
        _val(root=str(archive.reference))
    assert str(gone) in str(caught.value)
    caplog.set_level(logging.INFO, logger="ilora")
    assert len(_val(root=str(archive.reference), missing="skip")) == 4
    assert "1 lack a file and are left out" in caplog.text


def test_reading_a_part_reads_no_more(archive, names):
    source = _val(root=str(archive.reference), batch_size=1)
    archive.file(names[0], "_depth.npy").write_bytes(b"")
    part = source.select(_keys(names[1:3]))
    assert [key for batch in part for key in batch.keys] == _keys(names[1:3])


def test_wrong_places_and_settings_say_what_to_do(archive, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for settings, words in (
        ({"root": str(tmp_path / "nowhere")}, r"no folder .*source\.root"),
        ({"root": str(empty)}, r"neither val/ nor depths/val/.*depth archive"),
        ({"root": str(archive.depth), "normals_root": str(empty)}, r"has no val/.*normals archive"),
    ):
        with pytest.raises(DataError, match=words):
            _val(**settings)
    for settings, words in (
        ({"split": "test"}, "train, val"),
        ({"scenes": "outdoors"}, "indoors or outdoor"),
        ({"maps": "albedo"}, "depth or normals"),
        ({"listing": "csv"}, "auto, meta, glob"),
        ({"missing": "no"}, "error, skip"),
        ({"n": -1}, r"source\.n"),
    ):
        with pytest.raises(ConfigError, match=words):
            _val(root=str(archive.reference), **settings)
    (archive.reference / "diode_meta.json").write_text('{"train": {}}')
    with pytest.raises(DataError, match=r"lists no split 'val'; it has train"):
        _val(root=str(archive.reference))
    (archive.reference / "diode_meta.json").write_text('{"val": {"indoors": {"scene_00019": 3}}}')
    with pytest.raises(DataError, match="is not DIODE's list"):
        _val(root=str(archive.reference), scenes="indoors")
