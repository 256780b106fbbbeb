"""The official code's numbers, through the converter and the whole inference; and the ranges of K."""

import json
import logging
import shutil

import pytest
import torch

from ilora_zoedepth.labeler import ZoeDepthLabeler
from ilora_zoedepth.network import load_network
from ilora_zoedepth.preprocessing import Preprocessing

SMALL = Preprocessing(size=(64, 96))
SIZES = ("60x80", "100x52")
CASES = [("n", "N", 1e-5), ("nk", "NK", 1e-5), ("k", "K80", 1e-4)]


@pytest.fixture(scope="module")
def labeler(converted):
    def make(variant: str, **settings) -> ZoeDepthLabeler:
        return ZoeDepthLabeler(load_network(converted(variant))[0], processing=SMALL, **settings)

    return make


@pytest.fixture(scope="module")
def ten_metres(converted, tmp_path_factory):
    """A converted K with the range that the published one has in its config.json."""
    folder = shutil.copytree(converted("k"), tmp_path_factory.mktemp("k") / "zoedepth-kitti")
    config = json.loads((folder / "config.json").read_text())
    config["bin_configurations"][0]["max_depth"] = 10.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("variant", "name", "close"), CASES)
def test_padded_and_mirrored_inference_is_the_official_one(labeler, arrays, variant, name, close, size):
    depth, valid = labeler(variant).label(arrays[f"input_{size}"])["depth"]
    torch.testing.assert_close(depth[0, 0], arrays[f"{name}_{size}_infer"], atol=close, rtol=0)
    assert valid.all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("variant", "name", "close"), CASES)
def test_the_bare_network_is_the_official_one(labeler, arrays, variant, name, close, size):
    made = labeler(variant)
    shown = made.processing.prepare(arrays[f"input_{size}"], pad=False)
    depth = made.net(pixel_values=shown).predicted_depth
    torch.testing.assert_close(depth[0], arrays[f"{name}_{size}_raw"], atol=close, rtol=0)


def test_nk_chooses_its_head_as_the_official_one(labeler, arrays):
    made = labeler("nk", flip=False)
    for size in SIZES:
        shown = made.processing.prepare(arrays[f"input_{size}"], pad=False)
        logits = made.net(pixel_values=shown).domain_logits
        torch.testing.assert_close(logits, arrays[f"NK_{size}_domain_logits"], atol=1e-5, rtol=0)


def test_every_picture_is_shown_alone_so_that_nk_votes_for_it_alone(labeler, arrays):
    made, shown = labeler("nk"), []
    made.net.register_forward_pre_hook(lambda _, __, given: shown.append(len(given["pixel_values"])), with_kwargs=True)
    picture = arrays["input_60x80"]
    labels = made.label(torch.cat([picture, picture.flip(-2), picture]))["depth"][0]
    assert shown == [1] * 6  # three pictures, each also mirrored
    assert torch.equal(labels[0], labels[2])
    assert not torch.equal(labels[0], labels[1])


@pytest.mark.parametrize("setting", ["flip", "pad"])
def test_without_mirroring_or_padding_the_map_is_another_one(labeler, arrays, setting):
    picture = arrays["input_60x80"]
    depth = labeler("n", **{setting: False}).label(picture)["depth"][0]
    assert depth.shape == (1, 1, 60, 80)
    assert not torch.allclose(depth[0, 0], arrays["N_60x80_infer"], atol=1e-5)


def test_a_k_that_stops_at_ten_metres_gets_its_eighty(ten_metres, arrays, caplog):
    with caplog.at_level(logging.WARNING, logger="ilora"):
        net, facts = load_network(ten_metres)
    assert "80 m" in caplog.text
    assert facts["repaired"].startswith("range of K: 10 m")
    assert facts["range_m"] == [80.0]
    depth = ZoeDepthLabeler(net, processing=SMALL).label(arrays["input_60x80"])["depth"][0]
    torch.testing.assert_close(depth[0, 0], arrays["K80_60x80_infer"], atol=1e-4, rtol=0)


def test_without_the_repair_k_is_an_eighth_as_in_the_official_entry_point(ten_metres, arrays):
    from transformers import ZoeDepthForDepthEstimation

    net = ZoeDepthForDepthEstimation.from_pretrained(ten_metres, local_files_only=True)
    depth = ZoeDepthLabeler(net, processing=SMALL).label(arrays["input_60x80"])["depth"][0]
    torch.testing.assert_close(depth[0, 0], arrays["K_60x80_infer"], atol=1e-5, rtol=0)


def test_other_variants_keep_the_range_in_their_config(converted):
    assert load_network(converted("n"))[1] == {"variant": "n", "range_m": [10.0]}
    assert load_network(converted("nk"))[1] == {"variant": "nk", "range_m": [10.0, 80.0]}
    assert load_network(converted("k"))[1] == {"variant": "k", "range_m": [80.0]}
