"""The shipped VQGAN and its prior: their files, and a fit of all four maps from the command line with the rooms labeler."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_core.plan import count
from ilora_core.plugins import load_plugins
from ilora_rooms.export import LIMIT_BYTES
from ilora_rooms.source import RoomsSource
from ilora_rooms.vqgan import SHIPPED, vqgan

NAMES = ("albedo", "depth", "normals", "shading")


def ilora(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ilora_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_shipped_files_are_what_they_say():
    card = json.loads((SHIPPED / "weights.json").read_text())
    assert card["licence"] == "Apache-2.0"
    assert min(card[part]["visits"] for part in ("first_stage", "prior")) > 0
    files = {str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*") if path.is_file()} - {"weights.json"}
    assert files == set(card["sha256"])
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == digest
    for part in ("first_stage", "prior"):
        assert not json.loads((SHIPPED / part / "config.json").read_text()).get("_name_or_path")
        assert card["bytes"][part] == sum(path.stat().st_size for path in (SHIPPED / part).iterdir())
        assert sum(path.stat().st_size for path in (SHIPPED / part).iterdir()) <= LIMIT_BYTES


def test_every_convolution_is_an_option_with_its_count():
    host = load_plugins()
    parameters, attention = count(host, "rooms-vqgan", {})
    _, every = count(host, "rooms-vqgan", {"generator": {"adapt": "convolutions"}})
    assert attention["sites"] == 12
    assert every["sites"] > attention["sites"]
    assert every["parameters"] > 3 * attention["parameters"]
    assert parameters["net"] == sum(p.numel() for p in vqgan().net.parameters())


def test_samples_are_varied_and_the_same_whether_keys_are_kept():
    model, slow = vqgan(), vqgan(use_cache=False)
    codes = model.sample(4, seed=1)
    assert codes["codes"].dtype == torch.int16
    assert torch.equal(slow.sample(4, seed=1)["codes"], codes["codes"])
    pictures = model.picture(codes)
    assert pictures.shape == (4, 3, 64, 64)
    assert pictures.std(0).mean() > 0.1


def test_rooms_come_back_through_their_codes():
    pictures = next(iter(RoomsSource(split="test", n=8))).pictures
    model, control = vqgan(), vqgan(random_decoder=True)
    codes = model.encode(pictures)
    error = (model.picture(codes) - pictures).square().mean((1, 2, 3))
    assert float(-10 * error.log10().mean()) > 20
    assert torch.equal(control.encode(pictures)["codes"], codes["codes"])
    assert torch.equal(control.picture(codes), model.picture(codes))


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(WeightsError, match=f"no rooms VQGAN in {tmp_path}"):
        vqgan(weights=str(tmp_path))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("vqgan") / "run"
    done = ilora(
        *("fit", "--generator", "rooms-vqgan", "--labeler", "rooms", "--samples", 12, "--validation", 4),
        *("--steps", 2, "--device", "cpu", "--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return out


def test_fit_draws_all_four_maps(fitted):
    record = json.loads((fitted / "run.json").read_text())
    assert sorted(i["name"] for i in record["config"]["intrinsics"]) == list(NAMES)
    assert (fitted / "report.html").is_file()
    assert all((fitted / name / "adapter_model.safetensors").is_file() for name in NAMES)


def test_predict_from_seeds_and_from_a_picture(fitted, tmp_path):
    drawn = tmp_path / "drawn"
    done = ilora("predict", "--samples", 1, "--seed", 7, "-a", fitted, "-o", drawn, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    picture = drawn / "pictures" / "sample-7-000000.png"
    done = ilora("predict", picture, "-a", fitted, "-o", tmp_path / "maps", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "maps" / "normals" / "sample-7-000000.npy").shape == (64, 64, 3)


def test_samples_and_real_rooms_are_scored_beside_their_controls(tmp_path):
    from ilora_rooms.sampled import Settings, run, score_real

    settings = Settings("rooms-vqgan", samples=6, held_out=2, test=4, steps=2, intrinsics=("normals",))
    drawn = run(tmp_path, settings, say=lambda text: None)["normals"]
    real = score_real(tmp_path, settings, n=3)
    for table in (drawn, real["normals"]):
        assert set(table) == {"mean map", "random init", "adapter", "adapter minus"}
        for method in ("mean map", "random init", "adapter"):
            figure = table[method]["mean_deg"]
            assert figure["low"] <= figure["value"] <= figure["high"]
        assert set(table["adapter minus"]) == {"mean map", "random init"}
    assert real["psnr_db"] > 20
    assert (tmp_path / "normals.png").is_file()
    assert (tmp_path / "normals-real.png").is_file()
