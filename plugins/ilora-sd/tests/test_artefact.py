"""What `fit` writes, in other hands: plain diffusers gives the same map, run.json gives the same adapter."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.maps_io import write_map
from ilora_core.predict import Predictor
from ilora_core.testing.scenes import make_scenes
from ilora_sd.factories import tiny_components

CPU = RuntimeConfig(device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A diffusers folder on disk."""
    folder, parts = tmp_path_factory.mktemp("model"), tiny_components()
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(folder / name)
    DDIMScheduler.from_config(dict(parts.scheduler_config)).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Pictures with normals and depth, as a user has them."""
    folder, scenes = tmp_path_factory.mktemp("pairs"), make_scenes(64, 64)
    for name in ("pictures", "normals", "depth"):
        (folder / name).mkdir()
    for index in range(2):
        pixels = (scenes.pictures[index].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"scene{index}.png")
        for intrinsic in (NORMALS, DEPTH):
            value = scenes.maps[intrinsic.name][index]
            write_map(folder / intrinsic.name / f"scene{index}.npy", value, scenes.valid[index], intrinsic)
    return folder


@pytest.fixture(scope="module", params=[{}, {"alpha": 3}], ids=["alpha = rank", "alpha = 3"])
def run(request, model, pairs, tmp_path_factory) -> Path:
    """A short fit of two intrinsics."""
    out = tmp_path_factory.mktemp("runs") / "fit"
    settings = {
        "generator": {"weights": str(model)},
        "adapter": {"rank": 4, **request.param},
        "train": {"steps": 6, "batch": 2, "lr": 0.03, "keep_every": 6},
        "runtime": {"device": "cpu"},
    }
    config = FitConfig("sd", (NORMALS, DEPTH), pairs=str(pairs), validation=0, settings=settings)
    for _ in fit(config, out):
        pass
    return out


def pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def one_step(pipe: StableDiffusionPipeline, pictures: torch.Tensor, prompt: str) -> torch.Tensor:
    """The paper's pass, by hand with diffusers' parts alone: picture (B,3,H,W) in [0,1]."""
    scale = pipe.vae.config.scaling_factor
    latent = pipe.vae.encode(pictures * 2 - 1).latent_dist.mode() * scale
    length = pipe.tokenizer.model_max_length
    tokens = pipe.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    words = pipe.text_encoder(tokens.input_ids)[0].expand(len(pictures), -1, -1)
    drawn = pipe.unet(latent, 999, words).sample
    return (pipe.vae.decode(drawn / scale).sample / 2 + 0.5).clamp(0, 1)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # diffusers' own
@pytest.mark.parametrize("intrinsic", [NORMALS, DEPTH], ids=lambda i: i.name)
def test_plain_diffusers_draws_the_same_map(intrinsic, run, model):
    pictures = make_scenes(64, 64).pictures
    expected = Predictor(find_artefacts(run / intrinsic.name), runtime=CPU)(pictures)[intrinsic.name]
    pipe = pipeline(model)
    plain = one_step(pipe, pictures, intrinsic.prompt)
    pipe.load_lora_weights(run / intrinsic.name)
    drawn = one_step(pipe, pictures, intrinsic.prompt)
    torch.testing.assert_close(intrinsic.from_picture(drawn), expected, atol=1e-4, rtol=0)
    assert (drawn - plain).abs().max() > 1e-2


def test_one_pass_over_both_equals_two(run):
    pictures = make_scenes(64, 64).pictures
    both, turns = (Predictor(find_artefacts(run), runtime=CPU, one_by_one=way)(pictures) for way in (False, True))
    assert set(both) == {"depth", "normals"}
    for name, value in both.items():
        alone = Predictor(find_artefacts(run / name), runtime=CPU)(pictures)[name]
        assert torch.equal(alone, turns[name])
        # Another batch, other rounding; unit vectors of short ones (an untrained picture is nearly grey) enlarge it.
        torch.testing.assert_close(value, alone, atol={"depth": 1e-5, "normals": 1e-3}[name], rtol=0)


def test_run_json_repeats_the_fit(run, tmp_path):
    record = json.loads((run / "normals" / "run.json").read_text())
    config = FitConfig.from_json(record["config"])
    for _ in fit(config, tmp_path / "again"):
        pass
    for name in ("normals", "depth"):
        first = load_file(run / name / "adapter_model.safetensors")
        second = load_file(tmp_path / "again" / name / "adapter_model.safetensors")
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert record["generator"]["provenance"]["served_by"] == "local folder"
