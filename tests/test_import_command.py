"""`ilora import` and `ilora export` as commands: an adapter of the rooms model goes out, comes back and draws the same maps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ilora_cli.main import main
from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import save_artefact
from ilora_core.intrinsics import ALBEDO
from ilora_core.plugins import load_plugins


@pytest.fixture
def ilora(capsys):
    """The command in this process; `test_end_to_end` runs it as a user does."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        found = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert found == code, captured.err
        return captured

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """An artefact of the rooms model with weights that matter."""
    generator = load_plugins().make("generators", "rooms")
    adapter = LoraAdapter(rank=3, alpha=6)
    adapter.attach(generator.net, generator.targets)
    noise = torch.Generator().manual_seed(1)
    state = {k: 0.2 * torch.randn(v.shape, generator=noise) for k, v in adapter.state_dict().items()}
    record = {
        "intrinsic": ALBEDO.to_json(),
        "generator": {"name": "rooms", "settings": {}},
        "adapter": "lora",
        "licences": {"generator rooms": "Apache-2.0"},
    }
    folder = tmp_path_factory.mktemp("fitted") / "albedo"
    save_artefact(folder, state, adapter.config(), record, generator)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
def test_out_and_back(to, ilora, fitted, pictures, tmp_path):
    out = ilora("export", fitted, "--to", to, "--out", tmp_path / "out").out
    (path,) = (tmp_path / "out").glob("*.safetensors")
    assert path.name in out
    assert "Apache-2.0" in (tmp_path / "out" / "README.md").read_text()
    options = ("--generator", "rooms", "--intrinsic", "albedo")
    told = ilora("import", path, "--out", tmp_path / "back", *options).out
    assert "alpha  6 (from the file)" in told
    before, after = (drawn(ilora, pictures, a, tmp_path / n) for a, n in ((fitted, "a"), (tmp_path / "back", "b")))
    np.testing.assert_allclose(before, after, atol=1e-6)
    again = ilora("import", path, "--out", tmp_path / "back", *options, code=1)
    assert "exists already" in again.err


def drawn(ilora, pictures: Path, adapter: Path | str, out: Path) -> np.ndarray:
    ilora("predict", pictures, "--adapter", adapter, "--out", out, "--device", "cpu")
    return np.load(out / "albedo" / "a.npy")


def test_a_file_on_the_fly(ilora, fitted, pictures, tmp_path):
    """`--adapter FILE` draws what the imported folder draws, and `ilora export FILE` writes it for another tool."""
    ilora("export", fitted, "--to", "kohya", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.safetensors")
    options = ("--generator", "rooms", "--device", "cpu")
    ilora("predict", pictures, "--adapter", f"albedo={path}", "--out", tmp_path / "maps", *options)
    wanted = drawn(ilora, pictures, fitted, tmp_path / "wanted")
    np.testing.assert_allclose(np.load(tmp_path / "maps" / "albedo" / "a.npy"), wanted, atol=1e-6)
    again = ilora("export", path, "--to", "diffusers", "--generator", "rooms", "--out", tmp_path / "again").out
    assert "pytorch_lora_weights.safetensors" in again
    lost = ilora("predict", pictures, "--adapter", f"albedo={path}x", "--out", tmp_path / "no", code=1)
    assert "no folder" in lost.err


def test_end_to_end(fitted, tmp_path):
    command = [sys.executable, "-m", "ilora_cli.main", "export", fitted, "--to", "kohya", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("kohya ")
    assert done.stderr == ""


def test_json(ilora, fitted, tmp_path):
    done = json.loads(ilora("export", fitted, "--to", "kohya,diffusers", "--out", tmp_path / "out", "--json").out)
    assert [(one["to"], Path(one["folder"]).name) for one in done] == [("kohya", "kohya"), ("diffusers", "diffusers")]
    kohya = tmp_path / "out" / "kohya" / "ilora_rooms_albedo.safetensors"
    back = ilora("import", kohya, "--out", tmp_path / "back", "-g", "rooms", "--json").out
    (one,) = json.loads(back)
    assert (one["intrinsic"], one["rank"], one["generator"]) == ("albedo", 3, "rooms")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "ckpt"), "--to is one of"),
        (("--to", "merged"), "codec"),
    ],
)
def test_what_cannot_be_exported(ilora, arguments, message, fitted, tmp_path):
    done = ilora("export", fitted, *arguments, "--out", tmp_path / "out", code=2)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_imported(ilora, fitted, tmp_path):
    ilora("export", fitted, "--to", "kohya", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.safetensors")
    unnamed = path.rename(tmp_path / "x.safetensors")
    asked = ilora("import", unnamed, "-g", "rooms", "--out", tmp_path / "in", code=2)
    assert "--intrinsic" in asked.err
    wrong = ilora("import", unnamed, "-i", "depth", "--out", tmp_path / "in", code=1)
    assert "fits none of Stable Diffusion 1.x, Stable Diffusion 2.x, SDXL" in wrong.err
    tensors = load_file(unnamed)
    tensors["extra.weight"] = torch.ones(1)
    save_file(tensors, unnamed)
    partly = ilora("import", unnamed, "-i", "depth", "-g", "rooms", "--out", tmp_path / "in", code=1)
    assert "extra.weight" in partly.err
    several = ilora("import", unnamed, path, "-i", "depth", "--out", tmp_path / "in", code=2)
    assert "one file" in several.err
    assert not (tmp_path / "in").exists()
