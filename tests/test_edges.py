"""Edge agreement on pictures whose edges are known."""

import pytest
import torch

from ilora_core.metrics.edges import edge_agreement


def step(column: int, *, channels: int = 1, size: int = 40) -> torch.Tensor:
    """0 left of a column, 1 from it on."""
    value = torch.zeros(1, channels, size, size)
    value[..., column:] = 1
    return value


def test_edges_in_the_same_place_agree():
    assert edge_agreement(step(20), step(20, channels=3)).item() == 1


def test_edges_elsewhere_do_not():
    assert edge_agreement(step(8), step(30, channels=3)).item() == 0


def test_textures_of_the_picture_cost_nothing_and_scale_does_not_matter():
    picture = step(20, channels=3)
    picture[:, :, 10] += 0.5
    assert edge_agreement(7 * step(20) - 3, picture).item() == 1


def test_by_chance_it_is_the_share_that_the_pictures_edges_cover():
    noise = torch.Generator().manual_seed(0)
    drawn, picture = (torch.rand(8, c, 64, 64, generator=noise) for c in (1, 3))
    found = edge_agreement(drawn, picture, reach=0).mean().item()
    assert found == pytest.approx(0.2, abs=0.03)


def test_a_flat_map_has_no_edges():
    assert edge_agreement(torch.ones(1, 1, 16, 16), step(8, channels=3, size=16)).isnan().all()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="not of one size"):
        edge_agreement(step(8), step(8, channels=3, size=16))
