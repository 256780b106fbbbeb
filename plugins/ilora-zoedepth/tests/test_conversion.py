"""The converter: sizes from shapes, what it writes, what it refuses."""

import json

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_zoedepth import conversion
from ilora_zoedepth.architecture import Architecture, from_shapes
from ilora_zoedepth.conversion import convert, convert_into_cache, read_checkpoint

SMALL = {"image": 64, "layers": 4, "width": 32, "hidden": 64, "heads": 4, "neck": (16, 16, 32, 32), "fusion": 32}
SMALL |= {"bottleneck": 32, "relative": 32, "bins": 16, "embedding": 128}


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("touch /nonexistent/evil",)


@pytest.mark.parametrize(
    ("variant", "attractors"),
    [
        ("n", (4, 3, 2, 1)),
        ("k", (4, 3, 2, 1)),
        ("nk", (16, 8, 4, 1)),
    ],  # NK's are fixed, whatever its configuration says
)
def test_every_size_and_the_variant_follow_from_the_shapes(official, variant, attractors):
    shapes = {key: tuple(value.shape) for key, value in official(variant).items()}
    assert from_shapes(shapes, "it") == Architecture(variant, attractors=attractors, **SMALL)


def test_the_published_size_has_the_official_count():
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    with torch.device("meta"):
        net = ZoeDepthForDepthEstimation(ZoeDepthConfig(**Architecture("n").config()))
    classifier = 1024 * 1000 + 1000 + 2 * 1024  # of the BEiT: in the official count, in no forward pass
    assert round((sum(p.numel() for p in net.parameters()) + classifier) / 1e6, 1) == 344.8


def test_what_it_writes(converted, checkpoint, tmp_path):
    config = json.loads((converted("n") / "config.json").read_text())
    assert config["architectures"] == ["ZoeDepthForDepthEstimation"]
    assert config["backbone_config"]["layer_norm_eps"] == 1e-6
    sizes = {v: json.loads((converted(v) / "preprocessor_config.json").read_text())["size"] for v in ("n", "k")}
    assert sizes == {"n": {"height": 384, "width": 512}, "k": {"height": 384, "width": 768}}
    facts = convert(checkpoint("nk"), tmp_path / "out")
    assert facts["variant"] == "nk"
    assert facts["range in metres"] == "0.001 to 10, 0.001 to 80"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }


def test_the_cache_converts_a_file_once(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path))
    folder = convert_into_cache(checkpoint("n"))
    assert folder.parent == tmp_path / "weights"
    monkeypatch.setattr(conversion, "convert", None)
    assert convert_into_cache(checkpoint("n")) == folder


def save(path, state):
    torch.save({"model": state}, path)
    return path


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(official, tmp_path):
    state = official("n")
    lacking = {k: v for k, v in state.items() if k != "conditional_log_binomial.mlp.0.bias"}
    wrong = {**state, "seed_projector._net.0.bias": torch.zeros(3)}
    for changed, words in (
        (lacking, "lacks 1 tensors"),
        ({**state, "decoder.extra": torch.zeros(1)}, "decoder.extra"),
        (wrong, "does not fit a ZoeDepth"),
        ({"conv2.weight": torch.zeros(1)}, "is no ZoeDepth: it has no tensor"),
    ):
        with pytest.raises(WeightsError, match=words):
            convert(save(tmp_path / "broken.pt", changed), tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["broken.pt"]


def test_a_checkpoint_that_would_run_something_is_refused(official, tmp_path):
    torch.save({"model": official("n"), "optimizer": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"asks to run \w+\.system\. Do not trust"):
        read_checkpoint(tmp_path / "evil.pt")


def test_what_is_no_checkpoint_is_one_clear_error(checkpoint, tmp_path):
    whole = checkpoint("n").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    for name in ("half.pt", "text.pt"):
        with pytest.raises(WeightsError, match="cannot be read"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(WeightsError, match="there is no file"):
        read_checkpoint(tmp_path / "absent.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="is no ZoeDepth"):
        convert(tmp_path / "list.pt", tmp_path / "out")
