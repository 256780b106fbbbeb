"""Losses behind the decoder: what they are blind to, what they are not, and that they train."""

import dataclasses
import math

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS
from ilora_core.losses import picture_loss
from ilora_core.testing.cases import Subject
from ilora_core.testing.exercise import attach_lora, disturb, loss_of
from ilora_core.testing.generator_fit_checks import (
    check_gradient_reaches_adapter_only,
    check_loss_is_finite_per_sample,
    check_masked_pixels_do_not_matter,
    check_steps_lower_the_loss,
    check_weights_count,
)
from ilora_core.testing.scenes import make_scenes
from ilora_sd.decoded import decoded_loss
from ilora_sd.factories import tiny_components
from ilora_sd.factories_large import tiny_sd3
from ilora_sd.model import StableDiffusion

EVERYWHERE = torch.ones(1, 1, 8, 8, dtype=torch.bool)


def decoded() -> StableDiffusion:
    return StableDiffusion(tiny_components(), loss="decoded")


def field(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "check",
    [
        check_loss_is_finite_per_sample,
        check_gradient_reaches_adapter_only,
        check_masked_pixels_do_not_matter,
        check_weights_count,
        check_steps_lower_the_loss,
    ],
    ids=lambda check: check.__name__,
)
def test_conforms(check):
    check(Subject("generator", "ilora-sd", "ilora_sd", build=decoded))


def test_normals_lose_their_angle():
    turn = math.radians(25)
    vectors = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    rotation = torch.tensor([[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1.0]])
    axis_apart = torch.einsum("ij,bjhw->bihw", rotation, vectors)
    expected = torch.atan2(
        torch.linalg.cross(vectors, axis_apart, dim=1).norm(dim=1), (vectors * axis_apart).sum(1)
    ).mean()
    found = decoded_loss(0.5 * axis_apart, (vectors + 1) / 2, EVERYWHERE, NORMALS)
    torch.testing.assert_close(found, expected[None], atol=1e-4, rtol=0)
    across = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    right_angle = decoded_loss(across, (vectors + 1) / 2, EVERYWHERE, NORMALS)
    torch.testing.assert_close(right_angle, torch.tensor([math.pi / 2]), atol=1e-4, rtol=0)


def test_a_perfect_prediction_has_a_finite_gradient():
    target = field(0)
    for intrinsic in (NORMALS, DEPTH, ALBEDO):
        raw = (target * 2 - 1).requires_grad_()
        (gradient,) = torch.autograd.grad(decoded_loss(raw, target, EVERYWHERE, intrinsic).sum(), raw)
        assert torch.isfinite(gradient).all(), intrinsic.name


def test_depth_is_affine_invariant_and_knows_up_from_down():
    target = field(1, 1).expand(-1, 3, -1, -1)
    raw = target * 2 - 1
    right, scaled, other, flipped = (
        decoded_loss(x, target, EVERYWHERE, DEPTH) for x in (raw, 0.3 * raw - 0.2, field(2), -raw)
    )
    assert right < 1e-6
    assert scaled < 1e-3
    assert 1 < other < 3
    torch.testing.assert_close(flipped, torch.tensor([4.0]), atol=1e-3, rtol=0)


def test_what_a_picture_cannot_show_costs_something():
    target = field(1, 1).expand(-1, 3, -1, -1)
    raw = 3 * (target * 2 - 1)
    outside = (raw.abs() - 1).clamp(min=0).square().mean()
    torch.testing.assert_close(decoded_loss(raw, target, EVERYWHERE, DEPTH), outside[None], atol=1e-3, rtol=0)


def test_masked_pixels_and_flat_pictures():
    raw, target, mask = field(3), field(4), EVERYWHERE.clone()
    mask[..., :3] = False
    other = torch.where(mask, target, torch.full_like(target, float("nan")))
    for intrinsic in (NORMALS, DEPTH, ALBEDO):
        first, second = (decoded_loss(raw, t, mask, intrinsic) for t in (target, other))
        assert torch.equal(first, second), intrinsic.name
        assert decoded_loss(raw, target, ~EVERYWHERE, intrinsic) == 0
        flat = decoded_loss(raw, torch.full_like(target, 0.5), mask, intrinsic)
        assert torch.isfinite(flat).all(), intrinsic.name


def test_other_maps_have_their_own_loss():
    raw, target = field(5), field(6)
    expected = picture_loss(raw, target * 2 - 1, EVERYWHERE, ALBEDO.loss)
    assert torch.equal(decoded_loss(raw, target, EVERYWHERE, ALBEDO), expected)


def test_the_generators_loss_is_that_of_its_decoded_map():
    generator, scenes = decoded(), make_scenes(64, 64)
    disturb(attach_lora(generator))
    codes = generator.encode(scenes.pictures)
    target = NORMALS.to_picture(scenes.maps["normals"])
    prepared = generator.prepare(codes, NORMALS, target, scenes.valid)
    assert set(prepared) == {"picture", "pixels", "prompt"}
    assert (prepared["picture"].float() - target).abs().max() < 2.5e-4
    found = loss_of(generator, codes, NORMALS, target, scenes.valid)
    with torch.no_grad():
        latent = generator.unet(codes["latent"], 999, prepared["prompt"].expand(2, -1, -1)).sample
        raw = generator.vae.decode(latent / generator.scale).sample
    torch.testing.assert_close(found, decoded_loss(raw, target, scenes.valid, NORMALS), atol=1e-3, rtol=0)


def test_the_decoder_stays_on_the_device_when_the_loss_needs_it():
    moves = {}
    for loss in ("latent", "decoded"):
        generator = StableDiffusion(tiny_components(), loss=loss)
        generator._device = torch.device("meta")  # stands for a GPU
        moved = moves.setdefault(loss, [])
        generator.vae = dataclasses.make_dataclass("Vae", ["to"])(lambda device, moved=moved: moved.append(str(device)))
        generator.park()
    assert moves == {"latent": ["cpu"], "decoded": ["meta"]}


def test_the_setting_is_checked():
    with pytest.raises(ConfigError, match="latent or decoded"):
        StableDiffusion(tiny_components(), loss="pixels")
    with pytest.raises(ConfigError, match="raw or clean"):
        StableDiffusion(tiny_components(), output="v")
    assert tiny_sd3().decoded is False
