"""Whole files or none: temporary names, a full disk, folders that are replaced; and noise that knows only its seed."""

from __future__ import annotations

import errno

import pytest
import torch

from ilora_core.errors import DataError
from ilora_core.files import atomic_path, read_json, write_json, write_text
from ilora_core.noise import mix_seeds, noise_like


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:  # noqa: PT012
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_names_the_file(tmp_path):
    with (
        pytest.raises(DataError, match=r"cannot write .*a\.bin: No space left"),
        atomic_path(tmp_path / "sub" / "a.bin"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken"):
        write_text(tmp_path / "taken" / "a.txt", "x")


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with atomic_path(tmp_path / "out") as path:
            path.mkdir()
            (path / text).write_text(text)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"b\.json is not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path / "c.json")


def test_noise_depends_on_the_seed_alone():
    like = torch.empty(3, 2, 5)
    all_three = noise_like(like, torch.tensor([7, 8, 9]))
    assert torch.equal(noise_like(like[:1], [8])[0], all_three[1])
    assert not torch.equal(all_three[0], all_three[1])
    assert noise_like(torch.empty(200, 50), range(200)).std() == pytest.approx(1, abs=0.02)


def test_seeds_mix():
    seeds = {mix_seeds(s, a, b) for s in range(10) for a in range(10) for b in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seeds(1, 2) != mix_seeds(2, 1)
