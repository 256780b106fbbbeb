"""Figures of decompositions: nought at the truth, blind to scale, and known where they can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ilora_paradigms.judge import FIGURES, choose_by, judge, ordering_error
from ilora_paradigms.split import Split, rescale


@pytest.fixture
def truth() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    albedo = torch.rand(2, 3, 24, 24, generator=rng) * 0.8 + 0.1
    shading = torch.rand(2, 3, 24, 24, generator=rng) * 0.8 + 0.1
    valid = torch.ones(2, 1, 24, 24, dtype=torch.bool)
    valid[:, :, :4] = False
    return albedo, shading, valid


def test_the_truth_is_right_at_any_scale(truth: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    albedo, shading, valid = truth
    guess = rescale(5 * albedo, 0.1 * shading.mean(1, keepdim=True), valid)
    for row in judge(guess, albedo, shading, valid):
        assert set(row) == set(FIGURES)
        assert max(row.values()) < 1e-5


def test_what_is_not_valid_does_not_count(truth: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    albedo, shading, valid = truth
    guess = rescale(albedo, shading.mean(1, keepdim=True), valid)
    wrong = Split(torch.where(valid, guess.albedo, 0.0), torch.where(valid, guess.shading, 0.7), guess.scale)
    assert max(max(row.values()) for row in judge(wrong, albedo, shading, valid)) < 1e-5


def test_a_flat_albedo_is_right_about_equal_pairs_only() -> None:
    halves = torch.full((3, 24, 24), 0.2)
    halves[:, :, 12:] = 0.6
    valid = torch.ones(1, 24, 24, dtype=torch.bool)
    assert ordering_error(torch.ones(3, 24, 24), halves, valid) == 0.5
    assert ordering_error(halves, halves, valid) == 0
    assert ordering_error(1 - halves, halves, valid) == 0.5
    rng = torch.Generator().manual_seed(0)
    assert ordering_error(torch.rand(3, 24, 24, generator=rng), halves, valid) > 0.5


def test_ten_percent_is_equal_enough() -> None:
    halves = torch.full((3, 24, 24), 0.50)
    halves[:, :, 12:] = 0.54
    valid = torch.ones(1, 24, 24, dtype=torch.bool)
    assert ordering_error(torch.ones(3, 24, 24), halves, valid) == 0
    halves[:, :, 12:] = 0.56
    assert ordering_error(torch.ones(3, 24, 24), halves, valid) == 0.5
    assert math.isnan(ordering_error(halves, halves, ~valid))


def test_checkpoints_are_chosen_by_three_figures() -> None:
    rows = [dict.fromkeys(FIGURES, 9.0) | {"A si": 0.1, "S si": 0.2, "ord-err": 0.3}]
    assert choose_by(rows) == pytest.approx(0.2)
    assert choose_by([*rows, rows[0] | {"ord-err": math.nan, "A si": 0.3}]) == pytest.approx((0.2 + 0.2 + 0.3) / 3)
