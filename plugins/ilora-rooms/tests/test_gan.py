"""The shipped GAN: its files, and a fit of all four maps from the command line with the rooms labeler."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ilora_core.plan import count
from ilora_core.plugins import load_plugins
from ilora_rooms.gan import SHIPPED, stylegan2
from ilora_rooms.samples import rooms_samples

NAMES = ("albedo", "depth", "normals", "shading")


def ilora(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ilora_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_shipped_files_are_what_they_say():
    card = json.loads((SHIPPED / "weights.json").read_text())
    assert card["images"] == sum(card["shown"].values()) > 0
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 16_000_000
    counted, adapter = count(load_plugins(), "rooms-stylegan2", {})
    assert counted["net"] == card["parameters"]
    assert adapter["share"] < 0.04


def test_samples_are_varied_and_the_control_keeps_their_codes():
    trained, random = stylegan2(), stylegan2(random_weights=True)
    codes = trained.sample(8, seed=1)
    pictures = trained.picture(codes)
    assert pictures.std(0).mean() > 0.1
    assert torch.equal(random.sample(8, seed=1)["w"], codes["w"])
    assert (random.picture(codes) - pictures).abs().mean() > 0.1


def test_labelled_samples_carry_codes_and_four_maps():
    source = rooms_samples(n=3, seed=5)
    (batch,) = list(source)
    assert sorted(batch.maps) == list(NAMES)
    assert batch.codes is not None
    assert batch.keys == tuple(source.keys) == tuple(f"sample-5-{i:06d}" for i in range(3))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("gan") / "run"
    done = ilora(
        *("fit", "--generator", "rooms-stylegan2", "--labeler", "rooms", "--samples", 12, "--validation", 4),
        *("--steps", 2, "--device", "cpu", "--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return out


def test_fit_draws_all_four_maps(fitted):
    record = json.loads((fitted / "run.json").read_text())
    assert record["config"]["labeler"] == "rooms"
    assert sorted(i["name"] for i in record["config"]["intrinsics"]) == list(NAMES)
    assert (fitted / "report.html").is_file()
    assert all((fitted / name / "adapter_model.safetensors").is_file() for name in NAMES)


def test_predict_from_seeds_and_from_a_picture(fitted, tmp_path):
    done = ilora(
        "predict", "--samples", 2, "--seed", 7, "-a", fitted, "-o", tmp_path / "drawn", "--device", "cpu", "--json"
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted((tmp_path / "drawn" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["sample-7-000000.png", "sample-7-000001.png"]
    assert np.load(tmp_path / "drawn" / "normals" / "sample-7-000000.npy").shape == (64, 64, 3)
    refused = ilora("predict", pictures[0], "-a", fitted, "-o", tmp_path / "maps", "--device", "cpu")
    assert refused.returncode == 1
    assert "generator.projection" in refused.stderr
    arguments = ("predict", pictures[0], "-a", fitted / "albedo", "-o", tmp_path / "maps", "--device", "cpu")
    inverted = ilora(*arguments, "--set", "generator.projection=60", "--json")
    assert inverted.returncode == 0, inverted.stderr
    assert json.loads(inverted.stdout)["inversion_psnr_db"]["sample-7-000000"] > 15
