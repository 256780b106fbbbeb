"""Winograd's 3x3 convolution against the library's."""

import pytest
import torch
import torch.nn.functional as F

from ilora_stylegan import winograd
from ilora_stylegan.winograd import convolve3x3


def drawn(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("strip", [1, 7, 400])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(13, 14), (12, 8), (3, 21)])
def test_against_the_library(size, padding, strip, monkeypatch):
    monkeypatch.setattr(winograd, "_TILES", strip)
    monkeypatch.setattr(winograd, "_KERNELS", 4)
    x, scale, weight = drawn(3, 18, *size).requires_grad_(), drawn(3, 18).requires_grad_(), drawn(9, 18, 3, 3)
    found = convolve3x3(x, scale, weight, padding=padding)
    expected = F.conv2d(x * scale[:, :, None, None], weight, padding=padding)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    probe = drawn(*expected.shape)
    ours, theirs = (torch.autograd.grad((y * probe).sum(), (x, scale)) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_rounding_is_close_to_that_of_the_direct_sum():
    x, scale, weight = drawn(1, 128, 24, 24), torch.ones(1, 128, dtype=torch.float64), drawn(64, 128, 3, 3)
    exact = F.conv2d(x, weight, padding=2)
    single = convolve3x3(x.float(), scale.float(), weight.float(), padding=2).double()
    assert float((single - exact).norm() / exact.norm()) < 1.5e-6
    assert float((single - exact).abs().max() / exact.abs().max()) < 3e-6


def test_an_expanded_gradient():
    x, scale, weight = drawn(1, 4, 9, 9).requires_grad_(), drawn(1, 4), drawn(2, 4, 3, 3)
    (found,) = torch.autograd.grad(convolve3x3(x, scale, weight, padding=2).sum(), x)
    (expected,) = torch.autograd.grad(F.conv2d(x * scale[:, :, None, None], weight, padding=2).sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
