"""What the network sees, against the official demo, and what its answers mean."""

import numpy as np
import pytest
import torch
from PIL import Image

from ilora_omnidata.pictures import TASKS, decode_depth, decode_normals, network_size, official_input, to_network


def _smooth(height: int, width: int) -> np.ndarray:
    """The demo's large picture: coarse noise, upsampled, with fine noise over it."""
    draws = np.random.Generator(np.random.PCG64(31))
    coarse = torch.from_numpy(draws.random((1, 3, 8, 8), dtype=np.float32))
    fine = torch.from_numpy(draws.random((1, 3, height, width), dtype=np.float32))
    up = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return ((up * 0.8 + 0.2 * fine)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize(("name", "side"), [("land", 96), ("port", 96), ("big", 384)])
def test_the_official_input_is_exact(preprocessing, name, side):
    image = Image.fromarray(_smooth(768, 1024) if name == "big" else preprocessing[f"{name}_image"])
    seen = official_input(image, TASKS["normal"], side)
    assert seen.shape == (1, 3, side, side)
    step = side // 96  # every fourth pixel of the large one is stored
    found = (seen[0, :, ::step, ::step] * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(found, preprocessing[f"{name}_normal_in_{side}"])
    depth = official_input(image, TASKS["depth"], side)
    assert [float(depth.min()), float(depth.max())] == list(preprocessing[f"{name}_depth_in_{side}_minmax"])


@pytest.mark.parametrize("name", ["land", "port", "big"])
def test_tensors_are_resized_as_pillow_does(preprocessing, name):
    image = _smooth(768, 1024) if name == "big" else preprocessing[f"{name}_image"]
    side = min(image.shape[:2])
    square = np.ascontiguousarray(image[:side, :side])
    official = official_input(Image.fromarray(square), TASKS["normal"])
    own = to_network(torch.from_numpy(square).permute(2, 0, 1)[None] / 255, TASKS["normal"], 384)
    assert (own - official).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((384, 384), (384, 384)), ((512, 512), (384, 384)), ((768, 1024), (384, 512)), ((100, 37), (1024, 384))],
)
def test_pictures_are_seen_whole(size, wanted):
    assert network_size(*size, 384) == wanted


def test_the_two_networks_see_different_ranges():
    picture = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3, 1).expand(1, 3, 3, 1)
    assert TASKS["normal"].normalise(picture).flatten().unique().tolist() == [0.0, 0.5, 1.0]
    assert TASKS["depth"].normalise(picture).flatten().unique().tolist() == [-1.0, 0.0, 1.0]


def test_normals_are_decoded_in_the_opencv_frame():
    answers = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [1.3, 0.5, 0.5], [0.5, 0.3, 0.1]])
    n, valid = decode_normals(answers.T.view(1, 3, 4, 1))
    assert valid.all()
    expected = torch.tensor([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, -0.4472136, -0.8944272]])
    torch.testing.assert_close(n[0, :, :, 0].T, expected)


def test_a_silent_network_is_not_believed():
    answers = torch.tensor([[0.0, 0.0, 0.0], [-2.0, -1.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.1]])
    n, valid = decode_normals(answers.T.view(1, 3, 4, 1))
    assert valid.flatten().tolist() == [False, False, False, True]
    torch.testing.assert_close(n.norm(dim=1), torch.ones(1, 4, 1))


def test_depth_grows_with_distance_and_is_affine():
    value, valid = decode_depth(torch.tensor([-0.5, 0.2, 0.7, 1.5]).view(1, 1, 4, 1))
    torch.testing.assert_close(value.flatten(), torch.tensor([0.0, 0.2, 0.7, 1.0]))
    assert valid.all()
    assert TASKS["depth"].intrinsic.kind == "affine_depth"
