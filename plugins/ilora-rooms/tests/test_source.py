"""Rooms as a source: what a fit sees, and that files made of it give the same fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ilora_core.errors import ConfigError
from ilora_core.exports import export_pairs
from ilora_core.fit import fit
from ilora_core.sources import PairsSource
from ilora_rooms.experiment import fit_config
from ilora_rooms.render import render
from ilora_rooms.source import RoomsSource


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path_factory.getbasetemp() / "rooms-cache"))


def test_a_source_gives_what_the_renderer_gives():
    source = RoomsSource(n=3, size=32, batch_size=2)
    batches = list(source)
    rooms = render(source.seeds, size=32)
    assert [key for batch in batches for key in batch.keys] == list(source.keys)
    pictures = torch.cat([batch.pictures for batch in batches])
    torch.testing.assert_close(pictures, rooms.picture, atol=0.5 / 255 + 1e-6, rtol=0)
    for name in ("normals", "depth", "albedo", "shading"):
        assert torch.equal(torch.cat([batch.maps[name][0] for batch in batches]), getattr(rooms, name))


def test_the_second_reading_comes_from_the_disk_and_is_the_same(monkeypatch):
    first = list(RoomsSource(n=2, size=24, split="test"))
    monkeypatch.setattr("ilora_rooms.source.render", None)
    second = list(RoomsSource(n=2, size=24, split="test"))
    assert torch.equal(first[0].pictures, second[0].pictures)
    assert torch.equal(first[0].maps["depth"][0], second[0].maps["depth"][0])


def test_a_damaged_cache_file_is_rendered_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path))
    first = list(RoomsSource(n=2, size=16))
    (path,) = (tmp_path / "rooms").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(next(iter(RoomsSource(n=2, size=16))).pictures, first[0].pictures)


@pytest.mark.parametrize(
    ("settings", "words"), [({"split": "train"}, "labels"), ({"n": 0}, r"source\.n"), ({"size": 4}, "8 pixels")]
)
def test_bad_settings(settings, words):
    with pytest.raises(ConfigError, match=words):
        RoomsSource(**settings)


def test_rooms_as_files_give_the_same_adapter(tmp_path):
    """Export to PNG and EXR, fit with pairs: bit for bit the adapter that the source itself gives."""
    config = fit_config(
        ["normals"],
        labels=10,
        held_out=2,
        train={"steps": 3, "batch": 4, "lr": 1e-2},
        runtime={"device": "cpu"},
    )
    export_pairs(RoomsSource(n=12), tmp_path / "pairs", formats={"normals": "exr", "depth": "exr"})
    files = PairsSource(tmp_path / "pairs", config.intrinsics, size=64)
    assert list(files.keys) == list(RoomsSource(n=12).keys)
    list(fit(config, tmp_path / "source"))
    settings = {group: values for group, values in config.settings.items() if group != "source"}
    list(fit(replace(config, source="", pairs=str(tmp_path / "pairs"), settings=settings), tmp_path / "files"))
    one, other = (load_file(tmp_path / name / "normals" / "adapter_model.safetensors") for name in ("source", "files"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(other[key], value)
