"""The official model's numbers for weights that follow from a tensor's name (tests/oracles), and checkpoints made of them."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

FOLDER = Path(__file__).parent / "oracles"


def _draws(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def _normal(key: str, shape, scale: float) -> torch.Tensor:
    n = np.asarray(_draws(key).standard_normal(tuple(shape), dtype=np.float32), np.float32)
    return torch.from_numpy(n * np.float32(scale))


def _weight(entry) -> torch.Tensor:
    shape, rule = entry["shape"], entry["rule"]
    if rule == "mask":
        return torch.ones(shape[-2:]).tril().view(shape)
    value = _normal(entry["key"], shape, entry["scale"])
    return 1 + value if rule == "norm_weight" else value


@dataclass
class Oracle:
    """facts: small.json; arrays: small.npz as tensors; state: taming-transformers' names -> weights."""

    facts: dict
    arrays: dict
    state: dict

    def lora(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Module in taming's names -> (A, B) of W + B A."""
        return {
            e["module"]: (
                _normal(e["A_key"], e["A_shape"], 1 / np.sqrt(e["A_shape"][1])),
                _normal(e["B_key"], e["B_shape"], 0.3),
            )
            for e in self.facts["lora"]
        }

    def save(self, folder: Path, *, state=None, config=True, callbacks=None) -> Path:
        """A project as Lightning leaves it: checkpoints/last.ckpt and, if wanted, configs/*-project.yaml."""
        (folder / "checkpoints").mkdir(parents=True)
        data = {
            "epoch": 12,
            "global_step": 345,
            "pytorch-lightning_version": "1.0.8",
            "callbacks": callbacks or {},
            "optimizer_states": [{"state": {}, "param_groups": []}],
            "lr_schedulers": [],
            "state_dict": dict(self.state if state is None else state),
        }
        torch.save(data, folder / "checkpoints" / "last.ckpt")
        if config:
            (folder / "configs").mkdir()
            text = yaml.safe_dump(self.facts["config"])
            (folder / "configs" / "2021-04-23T18-19-01-project.yaml").write_text(text)
        return folder


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """The small model."""
    facts = json.loads((FOLDER / "small.json").read_text())
    with np.load(FOLDER / "small.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return Oracle(facts, arrays, {entry["key"]: _weight(entry) for entry in facts["state_dict"]})


@pytest.fixture(scope="session")
def project(oracle: Oracle, tmp_path_factory) -> Path:
    """The small model as a project's folder. Not to be written to."""
    return oracle.save(tmp_path_factory.mktemp("vqgan") / "small")


@pytest.fixture(scope="session")
def ffhq_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published FFHQ checkpoint's tensors."""
    entries = json.loads((FOLDER / "ffhq_full_layout.json").read_text())["state_dict"]
    return {key: tuple(shape) for key, shape, _ in entries}
