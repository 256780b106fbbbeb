"""Depth Anything: disparity or metres, loading, and the processing of transformers' own processor."""

import json

import pytest
import torch

from ilora_core import hub
from ilora_core.errors import ConfigError, WeightsError
from ilora_core.registry import Weights, load_registry
from ilora_marigold.depth_anything import Preprocessing, depth_anything_v2, tiny

PICTURES = torch.rand(2, 3, 48, 60, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("models"), {}

    def save(kind):
        if kind not in made:
            made[kind] = root / kind
            tiny(kind=kind).net.save_pretrained(made[kind])
            size = {"size": {"height": 70, "width": 70}, "ensure_multiple_of": 14, "keep_aspect_ratio": True}
            (made[kind] / "preprocessor_config.json").write_text(json.dumps(size))
        return made[kind]

    return save


@pytest.mark.parametrize(("kind", "said"), [("relative", "affine_disparity"), ("metric-indoor", "metric")])
def test_the_weights_say_what_the_map_is(saved, kind, said):
    loaded, made = depth_anything_v2(weights=str(saved(kind))), tiny(kind=kind)
    depth, valid = loaded.label(PICTURES)["depth"]
    assert torch.equal(depth, made.label(PICTURES)["depth"][0])
    assert [i.kind for i in loaded.intrinsics] == [said]
    assert loaded.provenance["kind"] == said
    assert loaded.weights_hash == made.weights_hash
    assert valid.all()
    assert float(depth.std()) > 1e-3  # a network that says the same everywhere would pass all of this


def test_near_is_large_in_disparity_and_small_in_metres():
    near_left = torch.linspace(1, 5, 60).expand(1, 1, 48, 60)
    for kind, sign in (("relative", 1), ("metric-indoor", -1)):
        labeler = tiny(kind=kind)
        labeler.imitate({"depth": near_left})
        depth = labeler.label(PICTURES[:1])["depth"][0]
        assert sign * (depth[..., 5] - depth[..., -5]).mean() > 0.5


def test_metres_that_are_not_positive_and_disparities_that_are_not_finite_are_not_valid():
    for kind, bad in (("metric-indoor", -1.0), ("relative", float("nan"))):
        labeler = tiny(kind=kind)

        def holed(shown, bad=bad):
            answer = torch.full_like(shown[:, 0], 2.0)
            answer[:, :28] = bad
            return answer

        labeler._answer = holed
        depth, valid = labeler.label(PICTURES[:1])["depth"]
        assert not valid[:, :, :10].any()
        assert valid[:, :, -10:].all()
        assert torch.isfinite(depth).all()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "depth-anything-v2-small"),
        ({"variant": "large"}, "depth-anything-v2-large"),
        ({"variant": "base", "kind": "metric-outdoor"}, "depth-anything-v2-metric-outdoor-base"),
    ],
)
def test_weights_are_looked_up_in_the_registry(saved, monkeypatch, settings, name):
    registry = load_registry()
    entry = Weights(name, ("some/place",), "a licence", revision="main")
    known = type(registry)(registry.plugins, {**registry.weights, name: entry}, registry.presets)
    monkeypatch.setattr(hub, "load_registry", lambda: known)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(saved("relative")))
    labeler = depth_anything_v2(**settings)
    assert labeler.provenance["weights"] == name
    assert labeler.provenance["licence"] == "a licence"


def test_wrong_settings_and_folders_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"labeler\.variant is one of small, base, large"):
        depth_anything_v2(variant="giant")
    with pytest.raises(ConfigError, match=r"labeler\.kind is one of relative"):
        depth_anything_v2(kind="metric")
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        depth_anything_v2(weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "dpt"}')
    with pytest.raises(WeightsError, match="describes a dpt"):
        depth_anything_v2(weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "depth_anything"}')
    with pytest.raises(WeightsError, match="cannot load"):
        depth_anything_v2(weights=str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text('{"size": 518}')
    with pytest.raises(WeightsError, match="is not Depth Anything's"):
        Preprocessing.read(tmp_path, 14)


@pytest.mark.parametrize("size", [(48, 60), (131, 97), (70, 70)])
def test_it_does_what_transformers_processor_does(size):
    pytest.importorskip("torchvision")
    from transformers import DPTImageProcessor
    from transformers.modeling_outputs import DepthEstimatorOutput

    ours = Preprocessing((70, 70))
    theirs = DPTImageProcessor(
        size={"height": 70, "width": 70},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        do_rescale=False,
        image_mean=list(ours.mean),
        image_std=list(ours.std),
    )
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    shown = theirs(images=picture[0], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours.prepare(picture), shown, atol=1e-5, rtol=0)
    labeler = tiny()
    labeler.processing = ours
    answer = labeler.net(pixel_values=shown).predicted_depth
    back = theirs.post_process_depth_estimation(DepthEstimatorOutput(predicted_depth=answer), target_sizes=[size])
    depth = labeler.label(picture)["depth"][0][0, 0]
    torch.testing.assert_close(depth, back[0]["predicted_depth"].clamp(min=0), atol=1e-4, rtol=0)
