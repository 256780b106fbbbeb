"""Weights that follow from a tensor's name, the official classes' answers for them (tests/oracles), and checkpoints of them."""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent / "oracles"


def _weight(key: str, shape: list[int], rule: str) -> torch.Tensor:
    draws = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    n = np.asarray(draws.standard_normal(tuple(shape), dtype=np.float32), np.float32)
    fan_in = np.sqrt(np.prod(shape[1:], dtype=float))
    offset, scale = {
        "small": (0, 0.02),
        "fanin": (0, 1 / fan_in),
        "normw": (1, 0.1),
        "outw": (0, 0.1 / fan_in),
        "outbias": (0.5, 0.02),
    }[rule]
    return torch.from_numpy((np.float32(offset) + n * np.float32(scale)).astype(np.float32))


@dataclass
class Oracle:
    """arrays: the official answers and their inputs; states: task -> official name -> weight."""

    arrays: dict[str, torch.Tensor]
    states: dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """The official classes with small widths."""
    with np.load(FOLDER / "omnidata_tiny.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    states = {}
    for task in ("normal", "depth"):
        with gzip.open(FOLDER / f"omnidata_tiny_{task}_keys.json.gz", "rt") as file:
            states[task] = {key: _weight(key, shape, rule) for key, shape, _, rule in json.load(file)}
    return Oracle(arrays, states)


@pytest.fixture(scope="session")
def preprocessing() -> dict[str, np.ndarray]:
    """The official demo's input for stored pictures."""
    with np.load(FOLDER / "omnidata_preproc.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def lightning(tmp_path):
    """Writes a state as Lightning 1.1 does: names with "model." in front, callbacks and settings beside."""

    def write(state: dict[str, torch.Tensor], *, callbacks=None, name: str = "last.ckpt") -> Path:
        data = {
            "epoch": 3,
            "pytorch-lightning_version": "1.1.8",
            "callbacks": callbacks or {},
            "state_dict": {f"model.{key}": value for key, value in state.items()},
        }
        torch.save(data, tmp_path / name)
        return tmp_path / name

    return write
