"""The factory: where weights come from, what it refuses; and what a labeler does with a network that fails."""

import json
import shutil

import pytest
import torch

from ilora_core import hub
from ilora_core.errors import ConfigError, WeightsError
from ilora_core.registry import Weights, load_registry
from ilora_zoedepth.labeler import tiny, zoedepth

PICTURES = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def test_a_folder_a_checkpoint_and_the_hub_give_the_same_labels(converted, checkpoint, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(converted("n")))
    made = [zoedepth(weights=str(place)) for place in (converted("n"), checkpoint("n"), "someone/zoedepth")]
    labels = [labeler.label(PICTURES[:1])["depth"][0] for labeler in made]
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0], labels[2])
    assert len({labeler.weights_hash for labeler in made}) == 1
    assert [labeler.provenance["served_by"] for labeler in made] == ["local path", "local path", "someone/zoedepth"]
    assert {labeler.provenance["variant"] for labeler in made} == {"n"}


def test_another_network_has_another_fingerprint(converted):
    assert zoedepth(weights=str(converted("n"))).weights_hash != zoedepth(weights=str(converted("k"))).weights_hash


@pytest.mark.parametrize(("variant", "name"), [("nk", "zoedepth-nk"), ("n", "zoedepth-n"), ("k", "zoedepth-k")])
def test_a_variant_is_looked_up_in_the_registry(converted, monkeypatch, variant, name):
    registry, asked = load_registry(), []
    entry = Weights(name, ("first/place", "second/place"), "MIT", revision="main")
    known = type(registry)(registry.plugins, {**registry.weights, name: entry}, registry.presets)
    monkeypatch.setattr(hub, "load_registry", lambda: known)

    def download(source, **options):
        asked.append((source, options["revision"], options["local_files_only"]))
        if source == "first/place":
            raise OSError("gone")
        return str(converted(variant))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    labeler = zoedepth(variant=variant, local_only=True)
    assert asked == [("first/place", "main", True), ("second/place", "main", True)]
    assert labeler.provenance["served_by"] == "second/place"
    assert labeler.provenance["variant"] == variant


def test_wrong_settings_and_places_are_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="one of nk, n, k"):
        zoedepth(variant="kitti")
    with pytest.raises(WeightsError, match="neither a path, a hub id nor a name"):
        zoedepth(weights="nonsense")
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(WeightsError, match=r"neither a folder nor an official checkpoint \(\.pt or \.pth\)"):
        zoedepth(weights=str(tmp_path / "weights.bin"))

    def nowhere(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nowhere)
    with pytest.raises(WeightsError, match="no place could serve 'some/where'"):
        zoedepth(weights="some/where")


def test_a_folder_that_is_incomplete_or_of_another_model_is_refused(converted, tmp_path):
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        zoedepth(weights=str(tmp_path))
    folder = shutil.copytree(converted("n"), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "dpt"}))
    with pytest.raises(WeightsError, match="describes a dpt, not a zoedepth"):
        zoedepth(weights=str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "neck_hidden_sizes": [16, 16, 16, 16]}))
    with pytest.raises(WeightsError, match="cannot load"):
        zoedepth(weights=str(folder))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot load"):
        zoedepth(weights=str(folder))


def test_pixels_without_a_depth_are_not_valid():
    labeler = tiny()
    labeler.flip = labeler.pad = False

    def holed(shown):
        depth = torch.full_like(shown[:, 0], 2.0)
        depth[:, :8] = float("nan")
        depth[:, -8:] = -1.0
        return depth

    labeler._metres = holed
    depth, valid = labeler.label(PICTURES)["depth"]
    assert not valid[:, :, :2].any()
    assert not valid[:, :, -2:].any()
    assert valid[:, :, 16:24].all()
    assert torch.isfinite(depth).all()


def test_a_network_without_any_finite_answer_is_an_error():
    labeler = tiny()
    labeler._metres = lambda shown: torch.full_like(shown[:, 0], float("nan"))
    with pytest.raises(WeightsError, match="no finite, positive depth"):
        labeler.label(PICTURES)
