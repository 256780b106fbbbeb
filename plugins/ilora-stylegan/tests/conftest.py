"""Official numbers for weights that follow from a parameter's name (tests/oracles), as a fixture."""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent / "oracles"
_RULE = re.compile(r"(?:(?P<shift>1|\[1,0,0,0\])\+)?(?:(?P<scale>[\d.]+)\*)?(?P<what>n|abs\(n\))")


def normal(key: str, shape) -> np.ndarray:
    """N(0, 1) in float32 from the name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return np.asarray(generator.standard_normal(tuple(shape), dtype=np.float32), dtype=np.float32)


def by_rule(key: str, shape, rule: str) -> torch.Tensor:
    """`shift + scale * n`, the rule as the oracle states it."""
    parts = _RULE.fullmatch(rule)
    value = normal(key, shape)
    value = np.abs(value) if parts["what"] != "n" else value
    value = np.float32(parts["scale"] or 1) * value
    shift = {None: 0, "1": 1, "[1,0,0,0]": [1, 0, 0, 0]}[parts["shift"]]
    return torch.from_numpy(np.asarray(value + np.asarray(shift, np.float32), np.float32))


@dataclass
class Oracle:
    """facts: CASE.json; arrays: CASE.npz as tensors; state: official keys -> weights."""

    case: str
    facts: dict
    arrays: dict

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.case}.pkl"

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Filters are in the arrays where they differ from layer to layer; StyleGAN2's constant ones are left out."""
        made = {}
        for entry in self.facts["state"]:
            key, rule = entry["key"], entry["rule"]
            if rule != "keep":
                made[key] = by_rule(key, entry["shape"], rule)
            elif f"filter:{key}" in self.arrays:
                made[key] = self.arrays[f"filter:{key}"]
            elif key.endswith("transform"):
                made[key] = torch.eye(3)
        return made

    @property
    def labels(self) -> torch.Tensor | None:
        """Class indices of the two samples."""
        return torch.tensor([1, 3]) if self.facts["c_dim"] else None

    def input(self, name: str, shape) -> torch.Tensor:
        """ "z", "wmix" or "probe"."""
        return torch.from_numpy(normal(f"{self.case}/{name}", shape))


@pytest.fixture
def oracle():
    """Case's name -> Oracle."""

    def read(case: str) -> Oracle:
        with np.load(FOLDER / f"{case}.npz") as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return Oracle(case, json.loads((FOLDER / f"{case}.json").read_text()), tensors)

    return read
