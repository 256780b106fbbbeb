"""The controls, on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch

from ilora_core.controls import LinearProbe, MeanMap, ProbeMoments, ceiling, mean_map
from ilora_core.errors import DataError
from ilora_core.intrinsics import DEPTH, NORMALS, unit_vectors


def test_the_mean_map_ignores_invalid_pixels():
    up, right = torch.tensor([0.0, -1, 0]).view(1, 3, 1, 1), torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    value = torch.cat([up, right]).expand(2, 3, 2, 2)
    valid = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    valid[1, 0, 0, 0] = False
    mean = mean_map(NORMALS, value, valid)
    torch.testing.assert_close(mean[0, :, 0, 0], up.flatten())
    torch.testing.assert_close(mean[0, :, 1, 1], unit_vectors(up + right).flatten())


def test_the_mean_depth_is_the_mean_picture():
    value = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).view(2, 1, 1, 2)
    mean = mean_map(DEPTH, value, torch.ones_like(value, dtype=torch.bool))
    torch.testing.assert_close(mean, torch.full((1, 1, 1, 2), 0.5))


def test_the_mean_map_of_batches_is_that_of_all():
    draw = torch.Generator().manual_seed(0)
    value, valid = torch.rand(5, 1, 3, 3, generator=draw), torch.rand(5, 1, 3, 3, generator=draw) > 0.2
    mean = MeanMap(DEPTH)
    for part in (slice(0, 2), slice(2, 5)):
        mean.add(value[part], valid[part])
    torch.testing.assert_close(mean.map(), mean_map(DEPTH, value, valid))


def test_the_probe_finds_a_linear_relation_and_skips_what_does_not_count():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(5, 7, 4, 4, generator=draw) * 3 + 1
    matrix = torch.randn(2, 7, generator=draw)
    latents = torch.einsum("ck,bkhw->bchw", matrix, features) + 0.5
    weight = torch.ones(5, 1, 4, 4, dtype=torch.bool)
    weight[0] = False
    spoiled = latents.clone()
    spoiled[0] = 1e6
    probe = LinearProbe.fit(features, spoiled, weight, ridge=1e-9)
    torch.testing.assert_close(probe(features), latents, atol=1e-3, rtol=1e-3)


def test_a_probe_of_batches_is_ridge_regression_on_normalised_features():
    draw = torch.Generator().manual_seed(1)
    scales, offsets = torch.logspace(-2, 2, 6).view(1, -1, 1, 1), torch.linspace(-40, 40, 6).view(1, -1, 1, 1)
    features = torch.randn(9, 6, 5, 5, generator=draw) * scales + offsets
    values = torch.randn(9, 2, 5, 5, generator=draw) + features[:, :2] / scales[:, :2]
    weight = torch.rand(9, 1, 5, 5, generator=draw) > 0.3
    moments = ProbeMoments()
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        moments.add(features[part], values[part], weight[part])
    assert (moments.pictures, moments.places, moments.counted) == (9, 225, int(weight.sum()))
    # sqrt(n λ) I under the rows turns the ridge into plain least squares
    exact = features.double()
    normal = (exact - exact.mean((0, 2, 3), keepdim=True)) / (exact.std((0, 2, 3), keepdim=True) + 1e-6)
    rows = torch.cat([normal, torch.ones(9, 1, 5, 5)], 1).movedim(1, -1)[weight[:, 0]]
    goal = values.movedim(1, -1)[weight[:, 0]].double()
    penalty = torch.eye(7).double() * (0.05 * len(rows)) ** 0.5
    expected = torch.linalg.lstsq(torch.cat([rows, penalty]), torch.cat([goal, torch.zeros(7, 2).double()])).solution
    for probe in (moments.solve(ridge=0.05), LinearProbe.fit(features, values, weight, ridge=0.05)):
        torch.testing.assert_close(probe.weights, expected, atol=1e-8, rtol=1e-8)


def test_a_probe_of_nothing_is_an_error():
    none = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    with pytest.raises(DataError, match="all of these are masked"):
        LinearProbe.fit(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2), none)


def test_the_ceiling_of_a_perfect_codec_is_the_truth():
    class Perfect:
        def encode(self, pictures):
            return {"picture": pictures}

        def picture(self, codes):
            return codes["picture"]

    value = unit_vectors(torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(ceiling(Perfect(), NORMALS, value, valid), value)
