"""The pipelines: loading a folder, settings, noise, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ilora_core import hub
from ilora_core.errors import ConfigError, WeightsError
from ilora_core.registry import Weights, load_registry
from ilora_marigold.factories import (
    marigold_depth,
    marigold_iid,
    marigold_normals,
    tiny_depth,
    tiny_iid,
    tiny_normals,
)

FACTORIES = {
    "depth": (marigold_depth, tiny_depth),
    "normals": (marigold_normals, tiny_normals),
    "iid": (marigold_iid, tiny_iid),
}
PICTURES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> a folder as diffusers writes it. Not to be written to."""
    root, made = tmp_path_factory.mktemp("pipelines"), {}

    def save(name):
        if name not in made:
            made[name] = root / name
            FACTORIES[name][1]().pipe.save_pretrained(made[name])
        return made[name]

    return save


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the depth pipeline's folder, to break."""
    return shutil.copytree(saved("depth"), tmp_path / "depth")


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name][0], other[name][0])
        assert torch.equal(one[name][1], other[name][1])


@pytest.mark.parametrize("name", FACTORIES)
def test_a_folder_gives_the_labels_of_the_pipeline_that_was_saved(saved, name):
    factory, tiny = FACTORIES[name]
    loaded, made = factory(weights=str(saved(name))), tiny()
    assert_same(loaded.label(PICTURES[:1]), made.label(PICTURES[:1]))
    assert loaded.weights_hash == made.weights_hash
    assert loaded.intrinsics == made.intrinsics
    assert loaded.provenance["served_by"] == "local folder"
    assert (loaded.provenance["steps"], loaded.provenance["resolution"]) == (2, 32)


def test_it_is_what_diffusers_own_call_gives_with_the_same_noise(monkeypatch):
    labeler = tiny_depth()
    monkeypatch.setattr("ilora_marigold.labeler.mix_seeds", lambda *_: 1234)
    depth = labeler.label(PICTURES[:1])["depth"][0]
    called = labeler.pipe(PICTURES[:1], generator=torch.Generator().manual_seed(1234), output_type="pt")
    assert torch.equal(depth, called.prediction)


def test_noise_follows_the_picture_and_the_seed(saved):
    first, other = (marigold_depth(weights=str(saved("depth")), seed=seed) for seed in (0, 1))
    labels = first.label(PICTURES)["depth"][0]
    assert torch.equal(first.label(PICTURES.flip(0))["depth"][0].flip(0), labels)
    assert not torch.equal(other.label(PICTURES)["depth"][0], labels)


@pytest.mark.parametrize("settings", [{"steps": 1}, {"resolution": 0}, {"resolution": 16}, {"ensemble": 3}])
def test_settings_reach_the_pipeline(saved, settings):
    usual, changed = (marigold_normals(weights=str(saved("normals")), **given) for given in ({}, settings))
    labels = changed.label(PICTURES[:1])["normals"][0]
    assert labels.shape == (1, 3, 24, 40)
    assert not torch.equal(labels, usual.label(PICTURES[:1])["normals"][0])


def test_an_ensemble_of_depths_is_aligned():
    depth, valid = tiny_depth(ensemble=3).label(PICTURES[:1])["depth"]
    assert depth.shape == (1, 1, 24, 40)
    assert valid.all()


def test_impossible_settings_are_named(saved, folder):
    path = str(saved("depth"))
    for settings, words in (
        ({"steps": 0}, "labeler.steps is at least 1"),
        ({"ensemble": 0}, "labeler.ensemble is at least 1"),
        ({"resolution": -8}, "labeler.resolution is at least 0"),
        ({"resolution": 33}, "labeler.resolution is a multiple of 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            marigold_depth(weights=path, **settings)
    with pytest.raises(ConfigError, match="one of lighting, appearance"):
        marigold_iid(variant="albedo")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "default_denoising_steps": None}))
    with pytest.raises(ConfigError, match="recommend no steps"):
        marigold_depth(weights=str(folder))


@pytest.mark.parametrize(
    ("factory", "settings", "name"),
    [
        (marigold_depth, {}, "marigold-depth"),
        (marigold_normals, {}, "marigold-normals"),
        (marigold_iid, {}, "marigold-iid-lighting"),
        (marigold_iid, {"variant": "appearance"}, "marigold-iid-appearance"),
    ],
)
def test_weights_are_looked_up_in_the_registry(monkeypatch, factory, settings, name):
    registry, asked = load_registry(), []
    entry = Weights(name, ("first/place", "second/place"), "a licence", revision="main")
    known = type(registry)(registry.plugins, {**registry.weights, name: entry}, registry.presets)
    monkeypatch.setattr(hub, "load_registry", lambda: known)

    def download(source, **options):
        asked.append((source, options["revision"], options["local_files_only"]))
        raise OSError("gone")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(WeightsError, match=rf"no place could serve '{name}'[\s\S]*second/place: OSError: gone"):
        factory(local_only=True, **settings)
    assert asked == [("first/place", "main", True), ("second/place", "main", True)]


def test_a_folder_of_something_else_is_refused(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"holds no model_index\.json"):
        marigold_depth(weights=str(tmp_path))
    with pytest.raises(WeightsError, match="holds a MarigoldNormalsPipeline, not a MarigoldDepthPipeline"):
        marigold_depth(weights=str(saved("normals")))
    with pytest.raises(WeightsError, match="neither a folder, a hub id"):
        marigold_depth(weights=str(tmp_path / "absent"))


def test_a_missing_tensor_a_missing_part_and_an_odd_scheduler_are_refused(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "conv_in.bias"}, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"unet lacks 1 tensors, conv_in\.bias among them|cannot load .*unet"):
        marigold_depth(weights=str(folder))
    save_file(tensors, weights, metadata={"format": "pt"})
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["os", "system"]}))
    with pytest.raises(WeightsError, match="asks for the scheduler system"):
        marigold_depth(weights=str(folder))
    (folder / "model_index.json").write_text(json.dumps({**index, "shift_invariant": False}))
    with pytest.raises(WeightsError, match="not affine"):
        marigold_depth(weights=str(folder))
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "vae")
    with pytest.raises(WeightsError, match=r"cannot load .*vae"):
        marigold_depth(weights=str(folder))
