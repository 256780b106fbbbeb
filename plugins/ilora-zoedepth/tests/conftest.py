"""Small official checkpoints whose weights follow from their names (tests/oracles), as files and as converted folders."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_zoedepth.conversion import convert

FOLDER = Path(__file__).parent / "oracles"


def _weight(key: str, shape, dtype: str, rule: str) -> torch.Tensor:
    """The rules under which the official code was run; `keep` is for buffers that the network computes by itself."""
    if rule == "keep":
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    draws = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    n = np.asarray(draws.standard_normal(tuple(shape), dtype=np.float32), np.float32)
    fan_in = np.sqrt(float(np.prod(shape[1:])))
    mean, scale = {
        "small": (0.0, 0.02),
        "fanin": (0.0, 1.0 / fan_in),
        "normw": (1.0, 0.1),
        "relpos": (0.0, 0.5),
        "gamma": (0.5, 0.05),
        "outw": (0.0, 0.1 / fan_in),
        "outbias": (0.5, 0.02),
    }[rule]
    return torch.from_numpy(np.float32(mean) + n * np.float32(scale))


@pytest.fixture(scope="session")
def arrays() -> dict[str, torch.Tensor]:
    """small.npz."""
    with np.load(FOLDER / "small.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="session")
def official():
    """variant -> a fresh dict of the official tensors."""

    def make(variant: str) -> dict[str, torch.Tensor]:
        with gzip.open(FOLDER / f"{variant}_keys.json.gz", "rt") as file:
            return {key: _weight(key, shape, dtype, rule) for key, shape, dtype, rule in json.load(file)}

    return make


@pytest.fixture(scope="session")
def checkpoint(official, tmp_path_factory):
    """variant -> the official .pt with these tensors; of `nk` as DistributedDataParallel would have named them."""
    folder = tmp_path_factory.mktemp("official")

    def save(variant: str) -> Path:
        path = folder / f"ZoeD_M12_{variant.upper()}.pt"
        if not path.exists():
            prefix = "module." if variant == "nk" else ""
            state = {prefix + key: value for key, value in official(variant).items()}
            torch.save({"model": state, "optimizer": None, "epoch": None}, path)
        return path

    return save


@pytest.fixture(scope="session")
def converted(checkpoint, tmp_path_factory):
    """variant -> the folder that `convert` writes. Not to be written to."""
    folder = tmp_path_factory.mktemp("converted")

    def make(variant: str) -> Path:
        if not (folder / variant).exists():
            convert(checkpoint(variant), folder / variant)
        return folder / variant

    return make
