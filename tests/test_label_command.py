"""`ilora label` from end to end, with a labeler from a plugin."""

import json
from pathlib import Path

import pytest
import torch

from ilora_cli.label import label
from ilora_core.cards import Card
from ilora_core.errors import ConfigError, DataError
from ilora_core.intrinsics import NORMALS
from ilora_core.maps_io import write_picture
from ilora_core.plugins import Plugin, PluginHost
from ilora_core.sources import PairsSource

_PLUGIN = '''
import torch
from ilora_core.intrinsics import NORMALS
from ilora_core.sources import TensorSource

class Facing:
    """All surfaces face the camera, tilted by `tilt`."""
    intrinsics = (NORMALS,)
    version = "3"

    def __init__(self, tilt: float = 0.0):
        self.n = torch.tensor([tilt, 0.0, -((1 - tilt**2) ** 0.5)]).view(1, 3, 1, 1)

    def label(self, pictures):
        return {"normals": (self.n.expand_as(pictures), pictures[:, :1] > 0.2)}

def some(n: int = 3, size: int = 8):
    return TensorSource(torch.linspace(0, 1, n * 3 * size * size).view(n, 3, size, size))
'''


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/facing_plugin.py").write_text(_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path / "cache"))
    facing = Card("facing", "Faces you.", "CC0-1.0", "facing_plugin:Facing", "facing_plugin:Facing")
    some = Card("some", "Some pictures.", "CC0-1.0", "facing_plugin:some", "facing_plugin:some")
    host = PluginHost([Plugin("p", "1", "facing_plugin", {"labelers": (facing,), "sources": (some,)})])
    monkeypatch.setattr("ilora_core.plugins.load_plugins", lambda: host)
    for i in range(3):
        write_picture(tmp_path / f"photos/{i}", torch.full((3, 12 + i, 10), 0.3 + 0.2 * i), format="png8")


def run(capsys: pytest.CaptureFixture, **options):
    defaults = {"pictures": None, "labeler": "facing", "source": "", "out": None, "cache": None, "size": 0}
    label(**{**defaults, "batch": 2, "device": "cpu", "set_": None, "json": True, **options})
    out = capsys.readouterr().out
    return json.loads(out) if options.get("json", True) else out


def test_label_twice_and_export(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos = [str(tmp_path / "photos")]
    first = run(capsys, pictures=photos)
    assert (first["pictures"], first["labelled"], first["reused"]) == (3, 3, 0)
    assert Path(first["cache"]) == tmp_path / "cache/labels/facing@3"
    again = run(capsys, pictures=photos, out=tmp_path / "pairs", set_=["format.normals=npy"])
    assert (again["labelled"], again["reused"]) == (0, 3)
    pairs = PairsSource(tmp_path / "pairs", (NORMALS,))
    assert pairs.keys == ("0", "1", "2")
    assert (next(iter(pairs)).maps["normals"][0][0, 2] == -1).all()
    told = json.loads((tmp_path / "pairs/provenance.json").read_text())
    assert (told["labeler"], told["licence"]) == ("facing", "CC0-1.0")
    text = run(capsys, pictures=photos, json=False, out=tmp_path / "pairs")
    assert "3 pictures: 0 labelled with normals, 3 had their labels" in text
    assert "--pairs" in text


def test_settings_reach_the_labeler(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    told = run(capsys, pictures=[str(tmp_path / "photos/*.png")], size=8, set_=["labeler.tilt=0.6"], out=tmp_path / "o")
    assert told["labelled"] == 3
    batch = next(iter(PairsSource(tmp_path / "o", (NORMALS,))))
    assert batch.pictures.shape == (3, 3, 8, 8)
    assert batch.maps["normals"][0][0, 0, 0, 0] == pytest.approx(0.6)


def test_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, source="some", set_=["source.n=5"], cache=tmp_path / "mine")["labelled"] == 5
    assert (tmp_path / "mine/facing@3/provenance.json").is_file()


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos = [str(tmp_path / "photos")]
    for options in (
        {"pictures": photos, "labeler": ""},
        {"pictures": photos, "source": "some"},
        {},
        {"pictures": photos, "set_": ["train.lr=1"]},
        {"pictures": photos, "set_": ["source.n=1"]},
        {"pictures": photos, "set_": ["labeler.typo=1"]},
        {"pictures": photos, "labeler": "unknown"},
        {"pictures": photos, "out": tmp_path / "o", "set_": ["format.normals=gif"]},
    ):
        with pytest.raises(ConfigError):
            run(capsys, **options)
    with pytest.raises(DataError):
        run(capsys, pictures=[str(tmp_path / "nowhere")])
