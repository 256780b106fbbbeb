"""Losses in picture space against figures worked out by hand."""

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.losses import picture_loss


def picture(*vector: float) -> torch.Tensor:
    return torch.tensor(vector).view(1, 3, 1, 1).expand(1, 3, 2, 2).clone()


EVERYWHERE = torch.ones(1, 1, 2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mse", (1 + 1) / 3), ("l1", 2 / 3), ("cosine+l1", 1 + 2 / 3)],
)
def test_orthogonal_vectors(kind, expected):
    assert picture_loss(picture(1, 0, 0), picture(0, 1, 0), EVERYWHERE, kind).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["mse", "l1", "cosine+l1"])
def test_zero_at_the_target(kind):
    assert picture_loss(picture(0.6, 0, -0.8), picture(0.6, 0, -0.8), EVERYWHERE, kind).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("kind", ["mse", "l1", "cosine+l1"])
def test_invalid_pixels_do_not_matter_even_when_not_finite(kind):
    raw, target, valid = picture(0.1, 0.2, 0.3).requires_grad_(), picture(0.6, 0, -0.8), EVERYWHERE.clone()
    valid[..., 0, 0] = False
    expected = picture_loss(raw, target, EVERYWHERE, kind)
    target[..., 0, 0] = torch.nan
    loss = picture_loss(raw, target, valid, kind)
    assert loss.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(loss.sum(), raw)
    assert torch.isfinite(gradient).all()
    assert gradient[..., 0, 0].abs().max() == 0
    assert gradient[..., 1, 1].abs().max() > 0


def test_a_vector_of_no_length_has_a_finite_gradient():
    raw = torch.zeros(1, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(picture_loss(raw, picture(0, 0, -1), EVERYWHERE, "cosine+l1").sum(), raw)
    assert torch.isfinite(gradient).all()


def test_pictures_do_not_mix_and_none_valid_is_zero():
    raw, target = torch.cat([picture(1, 0, 0)] * 2), torch.cat([picture(0, 1, 0)] * 2)
    valid = torch.cat([EVERYWHERE, ~EVERYWHERE])
    assert picture_loss(raw, target, valid, "mse").tolist() == pytest.approx([2 / 3, 0])


def test_weights_are_those_of_a_mean():
    raw = torch.zeros(1, 3, 2, 2)
    target = torch.tensor([1.0, 2.0, 3.0, torch.nan]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    weights = torch.tensor([1.0, 0.5, 0.25, 0.0]).view(1, 1, 2, 2)
    assert picture_loss(raw, target, weights, "l1").item() == pytest.approx((1 + 0.5 * 2 + 0.25 * 3) / 1.75)
    assert picture_loss(raw, target, weights * 1e-3, "l1").item() == pytest.approx(2.75 / 1.75)


@pytest.mark.parametrize("kind", ["mse", "l1", "cosine+l1"])
def test_weights_of_zero_and_one_are_a_mask(kind):
    raw, target, valid = picture(0.1, 0.2, 0.3), picture(0.6, 0, -0.8), EVERYWHERE.clone()
    valid[..., 0, 0], raw[..., 0, 1] = False, 0.9
    assert torch.equal(picture_loss(raw, target, valid.float(), kind), picture_loss(raw, target, valid, kind))


def test_unknown_kind():
    with pytest.raises(ConfigError, match="cosine"):
        picture_loss(picture(1, 0, 0), picture(0, 1, 0), EVERYWHERE, "huber")
