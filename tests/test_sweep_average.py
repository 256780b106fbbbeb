"""Several seeds as one figure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ilora_core.errors import DataError
from ilora_core.evaluate import Evaluation, Figure
from ilora_core.sweep.average import average, contrast

N, SEEDS = 60, 4


def evaluation(errors, pool="mean", keys=None):
    keys = keys or [f"k{i}" for i in range(len(errors))]
    rows = {key: {"e": float(x), "pixels": 10} for key, x in zip(keys, errors, strict=True)}
    value = float(np.mean(errors))
    return Evaluation("p", "i", len(rows), {"e": Figure(value, value - 1, value + 1, "", False, pool)}, rows)


def noise(seed, size=N):
    return np.random.default_rng(seed).normal(size=size)


def test_one_seed_keeps_its_own_interval():
    one = evaluation(noise(0))
    assert average([one]) == one.figures


def test_the_interval_is_over_pictures_where_seeds_agree():
    pictures = 10 + noise(0)
    found = average([evaluation(pictures)] * 3)["e"]
    expected = 1.96 * pictures.std() / math.sqrt(N)
    assert found.value == pytest.approx(pictures.mean())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.15)


def test_the_interval_is_over_seeds_where_pictures_agree():
    seeds = 10 + noise(1, SEEDS)
    found = average([evaluation(np.full(N, level)) for level in seeds])["e"]
    assert found.value == pytest.approx(seeds.mean())
    # Σ v_s x_s / S of a multinomial v has the variance of the seeds over their number.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * seeds.std() / math.sqrt(SEEDS), rel=0.25)


def test_both_spreads_add_up():
    pictures, seeds = 10 + noise(2), 0.3 * noise(3, SEEDS)
    found = average([evaluation(pictures + level) for level in seeds])["e"]
    expected = math.hypot(pictures.std() / math.sqrt(N), seeds.std() / math.sqrt(SEEDS))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * expected, rel=0.2)


def test_pictures_are_matched_by_key_and_not_by_place():
    pictures = 10 + 5 * noise(4)
    keys = [f"k{i}" for i in range(N)]
    straight, turned = evaluation(pictures, keys=keys), evaluation(20 - pictures[::-1], keys=keys[::-1])
    # The two errors of a picture add up to 20, whichever pictures are drawn: what is left are the seeds.
    found = average([straight, turned])["e"]
    apart = average([straight, evaluation(20 - noise(5), keys=[f"other-{i}" for i in range(N)])])["e"]
    assert found.value == pytest.approx(10)
    assert apart.high - apart.low > 0
    crossed = average([straight, evaluation(20 - pictures, keys=keys)])["e"]
    assert (found.low, found.high) == pytest.approx((crossed.low, crossed.high))


def test_pixels_count_as_in_one_evaluation():
    rows = {"a": {"e": 1.0, "pixels": 30}, "b": {"e": 5.0, "pixels": 10}}
    one = Evaluation("p", "i", 2, {"e": Figure(2.0, 1, 5, "", False, "pixels")}, rows)
    found = average([one, one])["e"]
    assert (found.value, found.low, found.high) == (2.0, 1.0, 5.0)


def test_a_pooled_median_and_a_single_picture_have_no_interval():
    assert math.isnan(average([evaluation(noise(6), "pixels_median")] * 2)["e"].low)
    single = average([evaluation([1.0]), evaluation([2.0])])["e"]
    assert single.value == 1.5
    assert math.isnan(single.low)


def test_a_contrast_is_paired_over_pictures_and_seeds():
    pictures = 10 + 5 * noise(6)
    a = [evaluation(pictures + level) for level in (0.0, 1.0, 2.0)]
    b = [evaluation(pictures + level - 0.5) for level in (0.0, 1.0, 2.0)]
    found = contrast(a, b)
    assert (found.difference, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.better == "b"  # the lower error
    assert contrast(b, a).better == "a"


def test_a_contrast_of_other_pictures_than_these_is_wider():
    one, other = 10 + noise(7), 10 + noise(8)
    found = contrast([evaluation(one)], [evaluation(other)])
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * (one - other).std() / math.sqrt(N), rel=0.15)
    assert found.better == ""
    turned = evaluation(other[::-1], keys=[f"k{i}" for i in range(N)][::-1])
    again = contrast([evaluation(one)], [turned])
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_what_cannot_be_contrasted_is_refused():
    one = evaluation(noise(9))
    with pytest.raises(DataError, match="different pictures"):
        contrast([one], [evaluation(noise(9), keys=[f"other-{i}" for i in range(N)])])
    with pytest.raises(DataError, match="cannot be held against"):
        contrast([one], [replace(one, protocol="q")])
    with pytest.raises(DataError, match="no interval"):
        contrast([evaluation(noise(9), "pixels_median")], [evaluation(noise(9), "pixels_median")])
