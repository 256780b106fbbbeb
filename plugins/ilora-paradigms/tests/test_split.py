"""The scale rule: idempotent, blind to scale, and true to the picture where nothing was cut."""

from __future__ import annotations

import torch

from ilora_paradigms.split import divide, percentile, rescale, unclipped


def _maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    albedo = torch.rand(2, 3, 16, 16, generator=rng) + 0.05
    shading = torch.rand(2, 1, 16, 16, generator=rng) + 0.05
    return albedo, shading, torch.ones(2, 1, 16, 16, dtype=torch.bool)


def test_twice_is_once() -> None:
    albedo, shading, valid = _maps()
    once = rescale(albedo, shading, valid)
    twice = rescale(once.albedo, once.shading, valid)
    torch.testing.assert_close(twice.albedo, once.albedo)
    torch.testing.assert_close(twice.shading, once.shading)
    torch.testing.assert_close(twice.scale, torch.ones(2, 1, 1, 1), rtol=1e-4, atol=0)


def test_the_scale_of_the_maps_does_not_matter() -> None:
    albedo, shading, valid = _maps()
    here, there = rescale(albedo, shading, valid), rescale(3 * albedo, 0.2 * shading, valid)
    torch.testing.assert_close(here.albedo, there.albedo)
    torch.testing.assert_close(here.shading, there.shading)
    torch.testing.assert_close(0.6 * here.scale, there.scale)


def test_the_maps_multiply_to_the_picture_where_nothing_was_cut() -> None:
    linear = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 0.9
    log_shading = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(3)) * 0.3
    found = rescale(*divide(linear, log_shading), torch.ones(2, 1, 16, 16, dtype=torch.bool))
    whole = (found.shading < 1) & (found.albedo.amax(1, keepdim=True) < 1)
    assert whole.float().mean() > 0.9
    off = (found.scale * found.albedo * found.shading - linear).abs() * whole
    assert off.max() < 1e-3


def test_clipped_pixels_do_not_set_the_scale() -> None:
    pictures = torch.full((1, 3, 10, 10), 0.5)
    pictures[:, :, :3] = 1.0
    assert unclipped(pictures)[0, 0].float().mean(1).tolist() == [0.0] * 3 + [1.0] * 7
    assert unclipped(torch.ones(1, 3, 4, 4)).all(), "a picture that is clipped everywhere counts everywhere"
    shading = torch.where(unclipped(pictures), 0.5, 4.0)
    found = rescale(pictures, shading, unclipped(pictures))
    assert (found.shading == 1).all()


def test_percentiles_are_values_of_pixels_and_survive_empty_masks() -> None:
    ramp = torch.arange(101.0).view(1, 1, 1, 101)
    everywhere = torch.ones_like(ramp, dtype=torch.bool)
    assert percentile(ramp, everywhere, 0.995).item() == 99
    assert percentile(ramp, ramp < 11, 0.5).item() == 5
    assert percentile(ramp, ~everywhere, 1.0).item() == 100
