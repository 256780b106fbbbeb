"""Conventions by hand: known numbers in Marigold's, and what they are in ours."""

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_core.intrinsics import linear_to_srgb
from ilora_marigold.borders import DepthBorder, IntrinsicsBorder, NormalsBorder
from ilora_marigold.factories import TARGETS


def pixels(*values):
    """A picture of one row: one tuple of channels for each pixel."""
    return torch.tensor(values).T[None, :, None, :]


def test_a_floor_points_up_and_a_wall_faces_the_camera():
    up, to_the_viewer, right = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
    normals, valid = NormalsBorder().read(pixels(up, to_the_viewer, right))["normals"]
    assert torch.equal(normals, pixels((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)))
    assert valid.all()


def test_a_vector_of_no_length_is_not_valid_and_others_become_units():
    normals, valid = NormalsBorder().read(pixels((0.0, 0.0, 0.0), (0.0, 0.3, 0.4), (float("nan"), 0.0, 1.0)))["normals"]
    assert valid.flatten().tolist() == [False, True, False]
    torch.testing.assert_close(normals[0, :, 0, 1], torch.tensor([0.0, -0.6, -0.8]))
    assert torch.isfinite(normals).all()


def test_depth_keeps_far_large_and_says_that_it_is_affine():
    border = DepthBorder()
    depth, valid = border.read(torch.tensor([0.0, 0.25, 1.0, float("inf")]).view(1, 1, 1, 4))["depth"]
    assert depth.flatten().tolist() == [0.0, 0.25, 1.0, 0.0]
    assert valid.flatten().tolist() == [True, True, True, False]
    assert [(i.name, i.kind) for i in border.intrinsics] == [("depth", "affine_depth")]


def test_lighting_is_linear_and_stays_as_it_is():
    border = IntrinsicsBorder(TARGETS["lighting"])
    prediction = torch.stack([torch.full((3, 1, 1), value) for value in (0.5, 0.25, 0.9)])
    labels = border.read(prediction)
    assert [i.name for i in border.intrinsics] == ["albedo", "shading"]
    assert labels["albedo"][0].flatten().tolist() == [0.5] * 3
    assert labels["shading"][0].flatten().tolist() == [0.25] * 3


def test_appearance_albedo_is_decoded_and_material_is_left_out():
    border = IntrinsicsBorder(TARGETS["appearance"])
    linear = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    labels = border.read(torch.cat([linear_to_srgb(linear), torch.ones(1, 3, 1, 1)]))
    assert list(labels) == ["albedo"]
    torch.testing.assert_close(labels["albedo"][0], linear)


def test_targets_are_found_by_name_in_whatever_order():
    properties = {**TARGETS["lighting"], "target_names": ["residual", "shading", "albedo"]}
    labels = IntrinsicsBorder(properties).read(torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1, 1).expand(3, 3, 1, 1))
    torch.testing.assert_close(labels["albedo"][0].flatten(), torch.full((3,), 0.3))
    torch.testing.assert_close(labels["shading"][0].flatten(), torch.full((3,), 0.2))


def test_weights_without_albedo_or_of_an_unknown_space_are_refused():
    with pytest.raises(WeightsError, match="name the targets depth and no albedo"):
        IntrinsicsBorder({"target_names": ["depth"]})
    with pytest.raises(WeightsError, match="name the targets none"):
        IntrinsicsBorder({})
    with pytest.raises(WeightsError, match="albedo in the space 'log'"):
        IntrinsicsBorder({"target_names": ["albedo"], "albedo": {"prediction_space": "log"}})
