"""The rooms FID: nothing between a set and itself, more the worse the pictures are; the command's bounds and rows."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from ilora_core.errors import DataError, WeightsError
from ilora_rooms import quality as module
from ilora_rooms.generator import tiny
from ilora_rooms.labeller_report import blurred
from ilora_rooms.quality import RoomsFeatures, draw, frechet, main, quality, rooms_fid
from ilora_rooms.source import RoomsSource


@pytest.fixture(scope="module")
def rooms() -> Tensor:
    return torch.cat([batch.pictures for batch in RoomsSource(split="test", n=32, size=32)])


def test_a_set_is_at_no_distance_from_itself_in_any_order(rooms):
    assert rooms_fid(rooms, rooms.flip(0)) == pytest.approx(0, abs=1e-4)


def test_noise_is_farther_than_other_rooms(rooms):
    noise = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    real = rooms_fid(rooms[:16], rooms[16:])
    assert rooms_fid(rooms[:16], noise) > real > 0


def test_more_blur_is_farther(rooms):
    softer, found = rooms, []
    for _ in range(3):
        softer = blurred(softer)
        found.append(rooms_fid(rooms, softer))
    assert 0 < found[0] < found[1] < found[2]


def test_the_distance_of_normal_features_is_the_formulas():
    """Of two clouds that differ by a shift and by a scale s: ‖shift‖² + Tr Σ (1 − s)²."""
    rows = torch.randn(400, RoomsFeatures.num_features, generator=torch.Generator().manual_seed(0)).double()
    rows = rows - rows.mean(0)
    expected = 128 * 0.5**2 + float(rows.var(0).sum()) * (1 - 0.7) ** 2
    assert frechet(rows, 0.7 * rows + 0.5) == pytest.approx(expected, rel=1e-6)


def test_the_spread_falls_with_the_number_of_pictures():
    rows = torch.randn(2, 256, RoomsFeatures.num_features, generator=torch.Generator().manual_seed(0))
    few, many = (quality(rows[0, :n] + 1, rows[1, :n], resamples=10) for n in (16, 256))
    assert (few.n, many.n) == (16, 256)
    assert 0 < many.sd < few.sd


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (4, 3, 30, 32)])
def test_what_has_no_distance_says_so(shape):
    with pytest.raises(DataError, match="multiples of 8"):
        rooms_fid(torch.rand(shape), torch.rand(4, 3, 32, 32))


def test_samples_follow_seed_captions_and_guidance():
    generator, captions = tiny(), ["a red room with a wooden floor", "a blue room with a tiled floor"]
    first = draw(generator, captions, steps=2)
    assert first.shape == (2, 3, 64, 64)
    assert torch.equal(first, (first * 255).round() / 255)
    assert torch.equal(first, draw(generator, captions, steps=2))
    for other in (draw(generator, captions, steps=2, seed=1), draw(generator, captions, steps=2, guidance=2.0)):
        assert not torch.equal(first, other)
    assert not torch.equal(first[1], draw(generator, [captions[0]] * 2, steps=2)[1])


def test_the_command_puts_bounds_beside_the_model(tmp_path, capsys):
    main(["--n", "8", "--steps", "2", "--out", str(tmp_path / "q.json"), "--sheets", str(tmp_path / "sheets")])
    told = json.loads((tmp_path / "q.json").read_text())
    assert list(told["results"]) == ["real rooms", "codec", "untrained", "shipped"]
    assert told["results"]["shipped"]["visits"] > 0
    assert "rooms FID" in capsys.readouterr().out
    assert len(list((tmp_path / "sheets").iterdir())) == 5


def test_weights_that_are_not_there_are_told_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RoomsSource", lambda **_: pytest.fail("rooms were rendered"))
    with pytest.raises(WeightsError, match="no rooms model"):
        main(["--n", "8", "--weights", str(tmp_path / "nowhere")])
