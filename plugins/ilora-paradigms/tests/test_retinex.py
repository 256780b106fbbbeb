"""The classic splits on pictures whose answer can be said beforehand."""

from __future__ import annotations

import math

import torch

from ilora_paradigms.retinex import integrate, log_light, retinex, retinex_blend, sqrt_split


def _ramp(height: int = 24, width: int = 32) -> torch.Tensor:
    """A gentle slope of light, (1,1,H,W)."""
    across, down = torch.linspace(0, 1, width), torch.linspace(0, 0.5, height)
    return (across + down[:, None])[None, None].exp() / 8


def _spread(x: torch.Tensor) -> float:
    return float(x.std() / x.mean())


def test_integration_undoes_differences() -> None:
    field = torch.randn(3, 1, 17, 30, generator=torch.Generator().manual_seed(0))
    found = integrate(field.diff(dim=3), field.diff(dim=2))
    torch.testing.assert_close(found, field - field.mean((2, 3), keepdim=True), atol=2e-4, rtol=0)


def test_integration_of_contradictory_steps_is_the_least_squares_answer() -> None:
    rng = torch.Generator().manual_seed(1)
    right, down = torch.randn(1, 1, 5, 5, generator=rng), torch.randn(1, 1, 4, 6, generator=rng)
    found = integrate(right, down)
    eye = torch.eye(30).view(30, 1, 5, 6)
    system = torch.cat([eye.diff(dim=3).flatten(1), eye.diff(dim=2).flatten(1)], 1).T
    wanted = torch.linalg.lstsq(system, torch.cat([right.flatten(), down.flatten()])[:, None], driver="gelsd").solution
    torch.testing.assert_close(found.flatten(), wanted[:, 0] - wanted.mean(), atol=1e-4, rtol=0)


def test_retinex_gives_slopes_to_the_light_and_steps_to_the_paint() -> None:
    paint = torch.full((1, 3, 24, 32), 0.2)
    paint[..., 16:] = 0.8
    shading = retinex(paint * _ramp()).exp()
    ratio = shading / _ramp()
    assert _spread(ratio) < 0.1 < 0.5 < _spread((paint * _ramp()).mean(1))


def test_a_step_of_colour_is_paint_even_without_a_step_of_intensity() -> None:
    first, second = torch.tensor([0.3, 0.15, 0.3]), torch.tensor([0.15, 0.6, 0.19])
    paint = first.view(1, 3, 1, 1).repeat(1, 1, 24, 32)
    paint[..., 16:] = second.view(3, 1, 1)
    light = log_light(paint).mean(1)
    assert (light[..., 16] - light[..., 15]).abs().max() < 0.3, "the case needs a small step of intensity"
    assert retinex(paint).std() < 1e-4
    assert retinex(paint, (0.3, math.inf)).std() > 0.01


def test_the_square_root_shares_and_the_blend_is_the_mean() -> None:
    picture = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    log_shading = sqrt_split(picture)
    rest = log_light(picture).mean(1, keepdim=True) - log_shading
    torch.testing.assert_close(rest, log_shading)
    torch.testing.assert_close(retinex_blend(picture), (log_shading + retinex(picture)) / 2)


def test_pictures_of_a_batch_do_not_mix() -> None:
    picture = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(retinex(picture)[1:2], retinex(picture[1:2]), atol=1e-5, rtol=1e-5)
