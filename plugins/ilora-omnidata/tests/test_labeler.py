"""From pictures to labels: sizes, masks, axes, and what a wrong conversion looks like."""

from dataclasses import replace

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import convert_normals
from ilora_core.plugins import load_plugins
from ilora_core.testing.cases import CheckFailed, Subject
from ilora_core.testing.labeler_checks import check_axes_point_our_way
from ilora_omnidata.labeler import OmnidataLabeler, tiny_depth, tiny_normal
from ilora_omnidata.network import TINY
from ilora_omnidata.pictures import TASKS, decode_depth, decode_normals
from ilora_omnidata.weights import load_network


def _noise(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", ["normal", "depth"])
def test_a_label_is_the_official_answer_decoded(oracle, lightning, task):
    net, digest = load_network(lightning(oracle.states[task]), TASKS[task], TINY)
    labeler = OmnidataLabeler(net, TASKS[task], size=64, weights_hash=digest)
    ((name, (value, valid)),) = labeler.label(oracle.arrays["input01_64x96"]).items()
    official = oracle.arrays[f"{task}_64x96"].reshape(2, -1, 64, 96)
    expected, believed = TASKS[task].decode(official)
    assert name == TASKS[task].intrinsic.name
    assert torch.equal(valid, believed)
    # A vector shorter than 1 carries its error magnified.
    assert torch.where(valid, (value - expected).abs(), torch.zeros(())).max() < 2e-4


def test_labels_come_back_at_the_pictures_own_size_and_unit_length():
    for size in ((40, 90), (64, 64), (131, 70)):
        normals, valid = tiny_normal().label(_noise(1, *size))["normals"]
        assert normals.shape == (1, 3, *size)
        assert valid.shape == (1, 1, *size)
        torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, *size), atol=1e-5, rtol=0)


def test_silence_spreads_to_no_label():
    labeler = tiny_normal()
    answers = torch.tensor([0.5, 0.5, 0.0]).view(1, 3, 1, 1).repeat(1, 1, 64, 64)
    answers[..., 32:] = 0
    labeler.net = lambda pictures: answers
    normals, valid = labeler.label(_noise(1, 128, 128))["normals"]
    assert valid[..., :60].all()
    assert not valid[..., 66:].any()
    assert (normals[:, 2][valid[:, 0]] < -0.999).all()


def test_the_network_sees_the_task_s_own_range():
    seen = []
    for labeler in (tiny_normal(), tiny_depth()):
        net = labeler.net
        labeler.net = lambda pictures, net=net: seen.append(float(pictures.min())) or net(pictures)
        labeler.label(torch.zeros(1, 3, 64, 64))
    assert seen == [0.0, -1.0]


@pytest.mark.parametrize("frame", ["opengl", "directx"])
def test_a_flipped_axis_is_found(frame):
    def flipped(answers):
        n, valid = decode_normals(answers)
        return convert_normals(n, frame), valid

    def make():
        labeler = tiny_normal()
        labeler.task = replace(labeler.task, decode=flipped)
        return labeler

    with pytest.raises(CheckFailed, match="flipped"):
        check_axes_point_our_way(Subject("labeler", "ilora-omnidata", "ilora_omnidata", build=make))


def test_inverted_depth_is_found():
    def inverted(answers):
        value, valid = decode_depth(answers)
        return 1 - value, valid

    def make():
        labeler = tiny_depth()
        labeler.task = replace(labeler.task, decode=inverted)
        return labeler

    with pytest.raises(CheckFailed, match="flipped"):
        check_axes_point_our_way(Subject("labeler", "ilora-omnidata", "ilora_omnidata", build=make))


def test_the_side_is_a_multiple_of_32():
    with pytest.raises(ConfigError, match="multiple of 32"):
        OmnidataLabeler(torch.nn.Identity(), TASKS["depth"], size=400)


def test_the_cards_state_the_licence():
    for name in ("omnidata-normal", "omnidata-depth"):
        assert "non-commercial" in load_plugins().card("labelers", name).licence
