"""Sizes, padding and the way back, against transformers' own processor where torchvision is there to run it."""

import json

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_zoedepth.preprocessing import MULTIPLE, Preprocessing, padding

NET_SIZES = {  # of padded pictures, from the official code
    (256, 256): (384, 384),
    (384, 384): (512, 512),
    (512, 512): (512, 512),
    (1024, 1024): (512, 512),
    (768, 1024): (384, 512),
}


@pytest.mark.parametrize("size", NET_SIZES)
def test_net_sizes_are_the_official_ones(size):
    down, right = padding(*size)
    assert Preprocessing().net_size(size[0] + 2 * down, size[1] + 2 * right) == NET_SIZES[size]


def test_sides_are_multiples_of_32_whatever_the_folder_says(tmp_path):
    assert Preprocessing.read(tmp_path) == Preprocessing()
    for multiple in (1 / 32, 1, 14):
        data = {"size": {"height": 70, "width": 90}, "ensure_multiple_of": multiple, "keep_aspect_ratio": False}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(data))
        read = Preprocessing.read(tmp_path)
        assert read.net_size(76, 96) == (64, 96)
        assert all(side % MULTIPLE == 0 for size in ((333, 500), (20, 2000), (5, 5)) for side in read.net_size(*size))


def test_a_written_configuration_is_read_back(tmp_path):
    processing = Preprocessing((384, 768), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processing.to_json()))
    assert Preprocessing.read(tmp_path) == processing


@pytest.mark.parametrize("text", ['{"size": 384}', '{"size": {"height": 3}}', "[]", '{"image_mean": 0.5}'])
def test_a_configuration_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"preprocessor_config.json is not ZoeDepth's"):
        Preprocessing.read(tmp_path)


@pytest.mark.parametrize("size", [(60, 80), (37, 53), (100, 52), (4, 3)])
def test_the_way_there_and_back_keeps_the_size(size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for pad in (True, False):
        shown = Preprocessing((64, 96)).prepare(picture, pad=pad)
        assert all(side % MULTIPLE == 0 for side in shown.shape[-2:])
        assert Preprocessing((64, 96)).restore(shown[:, :1], *size, pad=pad).shape == (1, 1, *size)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", [(60, 80), (76, 96), (131, 97)])
def test_it_does_what_transformers_processor_does_with_a_multiple_of_32(size, pad):
    pytest.importorskip("torchvision")
    from transformers import ZoeDepthImageProcessor
    from transformers.modeling_outputs import DepthEstimatorOutput

    theirs = ZoeDepthImageProcessor(size={"height": 64, "width": 96}, ensure_multiple_of=32, do_rescale=False)
    ours = Preprocessing((64, 96))
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    shown = theirs(images=picture[0], do_pad=pad, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours.prepare(picture, pad=pad), shown, atol=1e-6, rtol=0)
    outputs = DepthEstimatorOutput(predicted_depth=shown[:, 0])
    back = theirs.post_process_depth_estimation(outputs, source_sizes=[size], do_remove_padding=pad)
    restored = ours.restore(shown[:, :1], *size, pad=pad)[0, 0]
    torch.testing.assert_close(restored, back[0]["predicted_depth"], atol=1e-6, rtol=0)
