"""A tiny decoder for maps: scaled as diffusers' own pipelines scale, used in `render` alone, told in the provenance, and refused
where it is another model's."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusion3Pipeline, StableDiffusionPipeline
from PIL import Image

from ilora_cli.main import main
from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.errors import WeightsError
from ilora_core.factories import options_of
from ilora_core.fit import fit
from ilora_core.fit_report import write_fit_report
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.plugins import load_plugins
from ilora_core.predict import Predictor
from ilora_core.testing.scenes import make_scenes
from ilora_sd.architectures import SCHEDULER
from ilora_sd.factories import augmented, stable_diffusion, tiny_augmented, tiny_components
from ilora_sd.factories_flux import tiny_flux1
from ilora_sd.factories_large import tiny_sd3
from ilora_sd.loading import Components
from ilora_sd.model import StableDiffusion
from ilora_sd.tiny_vae import load_tiny_vae, with_tiny_vae

CPU = RuntimeConfig(device="cpu")


def decoder(**changes):
    """An AutoencoderTiny of 4 pixels per latent cell, as the tiny models' VAE has."""
    shape = dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (8, 8, 8))
    blocks = dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks"), (1, 1, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return AutoencoderTiny(**{**shape, **blocks, "latent_channels": 4, **changes})


def save(folder: Path, **changes) -> Path:
    decoder(**changes).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("decoders") / "mine")


def fitted_with(components: Components, folder: Path) -> Components:
    return with_tiny_vae(components, load_tiny_vae(str(folder)))


def test_only_what_is_drawn_goes_through_it(tiny_folder):
    plain = StableDiffusion(tiny_components())
    quick = StableDiffusion(fitted_with(tiny_components(), tiny_folder))
    scenes = make_scenes(64, 64)
    target = NORMALS.to_picture(scenes.maps["normals"], scenes.valid)
    codes = quick.encode(scenes.pictures)
    assert torch.equal(codes["latent"], plain.encode(scenes.pictures)["latent"])
    assert torch.equal(quick.picture(codes), plain.picture(codes))
    ready, other = (g.prepare(codes, NORMALS, target, scenes.valid) for g in (quick, plain))
    assert all(torch.equal(ready[name], other[name]) for name in other)
    seeded = {**codes, **ready, "seed": torch.arange(2)}
    assert torch.equal(quick.loss(seeded, NORMALS), plain.loss(seeded, NORMALS))
    drawn = quick.render(codes, NORMALS)
    assert drawn.shape == plain.render(codes, NORMALS).shape
    assert not torch.allclose(drawn, plain.render(codes, NORMALS), atol=1e-2)
    torch.testing.assert_close(quick.render_many(codes, [NORMALS])[0], drawn)
    quick.park()
    assert torch.equal(quick.render(codes, NORMALS), drawn)


def test_a_loss_behind_the_decoder_keeps_the_full_one(tiny_folder):
    scenes = make_scenes(64, 64)
    losses = []
    for components in (tiny_components(), fitted_with(tiny_components(), tiny_folder)):
        generator = StableDiffusion(components, loss="decoded")
        codes = dict(generator.encode(scenes.pictures))
        target = NORMALS.to_picture(scenes.maps["normals"], scenes.valid)
        codes |= {**generator.prepare(codes, NORMALS, target, scenes.valid), "seed": torch.arange(2)}
        losses.append(generator.loss(codes, NORMALS))
    assert torch.equal(*losses)


def drawn_by(pipeline, latent, **options):
    """What a pipeline of diffusers makes of a final latent, (B,3,H,W) in [0,1]."""
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 1, "guidance_scale": 0.0, "output_type": "pt", **options}
    return pipeline(latents=latent, callback_on_step_end=lambda *_: {"latents": latent}, **given).images


def test_latents_are_scaled_as_in_the_pipeline_of_stable_diffusion(tiny_folder):
    generator = StableDiffusion(fitted_with(tiny_components(), tiny_folder))
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    scheduler, parts = DDIMScheduler.from_config(SCHEDULER), (generator.text_encoder, generator.tokenizer)
    pipe = StableDiffusionPipeline(
        decoder(), *parts, generator.unet, scheduler, None, None, requires_safety_checker=False
    )
    torch.testing.assert_close(generator._decode_map(latent), drawn_by(pipe, latent, prompt="depth map"))


def test_latents_are_scaled_as_in_the_pipeline_of_sd3(tiny_folder):
    made = tiny_sd3()  # its VAE has a shift too
    generator = tiny_sd3()
    generator.tiny_vae = decoder().eval()
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    first, second = (made.text_encoder, made.tokenizer), (made.more_text_encoders[0], made.more_tokenizers[0])
    pipe = StableDiffusion3Pipeline(made.unet, made._scheduler(), decoder(), *first, *second, None, None)
    conditions = made._conditions("depth map")
    words = {"prompt_embeds": conditions["prompt"], "pooled_prompt_embeds": conditions["pooled"]}
    torch.testing.assert_close(generator._decode_map(latent), drawn_by(pipe, latent, **words, height=64, width=64))


def test_many_steps_end_in_it(tiny_folder):
    generator = tiny_augmented()
    codes = generator.encode(make_scenes(64, 64).pictures[:1])
    calls = []
    generator.tiny_vae = decoder().eval()
    generator.tiny_vae.decoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    generator.render(codes, NORMALS)
    assert calls == [1]


def test_flux_decodes_with_it(tiny_folder):
    generator = tiny_flux1()
    generator.tiny_vae = decoder().eval()
    codes = generator.encode(make_scenes(64, 64).pictures)
    with torch.no_grad():
        latent = generator._map(codes["latent"], generator._conditions(NORMALS.prompt))
        expected = (generator.tiny_vae.decode(latent).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.render(codes, NORMALS), expected, atol=1e-6, rtol=0)


def test_every_card_of_the_plugin_takes_it():
    for owner, card in load_plugins(only={"ilora-sd"}).cards("generators"):
        if owner == "ilora-sd":
            assert "tiny_vae" in {option.name for option in options_of(card.factory)}, card.name


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("mine", {"latent_channels": 16}, "latents of 16 channels, but this model's have 4.*taesd3 for Stable"),
        ("mine", {"upsampling_scaling_factor": 4}, "draws 16 pixels per latent cell, but this model's VAE 4"),
        ("taesdxl", {}, r"scaled by 0\.13025, but this model's are by 0\.18215"),
    ],
)
def test_another_models_decoder_is_refused(name, changes, words, tmp_path):
    loaded = load_tiny_vae(str(save(tmp_path / name, **changes)))
    with pytest.raises(WeightsError, match=words):
        with_tiny_vae(tiny_components(), loaded)


def test_the_named_one_of_the_model_is_not_refused(tmp_path):
    components = fitted_with(tiny_components(), save(tmp_path / "taesd"))
    assert components.provenance["tiny_vae"]["weights"] == str(tmp_path / "taesd")
    assert replace(components, tiny_vae=None, provenance={}) != components


def test_files_that_cannot_be_used(tiny_folder, tmp_path):
    assert load_tiny_vae("") is None
    with pytest.raises(WeightsError, match=r"neither a folder.*taesd is for Stable Diffusion 1\.x and 2\.x"):
        load_tiny_vae(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load_tiny_vae(str(tmp_path / "empty"))
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    weights = copy / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cannot load .*incomplete"):
        load_tiny_vae(str(copy))


def test_the_hub_is_asked_for_two_files(monkeypatch, tiny_folder):
    asked = []

    def snapshot_download(source, **options):
        asked.append((source, options["allow_patterns"]))
        return str(tiny_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    _, provenance = load_tiny_vae("taesd")
    assert asked == [("madebyollin/taesd", ["config.json", "diffusion_pytorch_model.safetensors"])]
    assert (provenance["served_by"], provenance["licence"]) == ("madebyollin/taesd", "MIT")


def test_a_wrong_place_is_told_before_the_model_is_loaded(tmp_path):
    for factory in (stable_diffusion, augmented):
        with pytest.raises(WeightsError, match=r"generator\.tiny_vae"):
            factory(weights=str(tmp_path / "no model"), tiny_vae=str(tmp_path / "nor decoder"))


@pytest.fixture(scope="module")
def fitted(sd_folder, tiny_folder, tmp_path_factory):
    """Two maps of four scenes; "quick" was fitted with the tiny decoder, "plain" without."""
    root = tmp_path_factory.mktemp("fitted")
    scenes = make_scenes(32, 32)
    for name in ("pictures", "normals", "depth"):
        (root / "pairs" / name).mkdir(parents=True)
    for i in range(4):
        picture = (scenes.pictures[i % 2].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(np.roll(picture, i, 0)).save(root / "pairs" / "pictures" / f"{i}.png")
        np.save(root / "pairs" / "normals" / f"{i}.npy", scenes.maps["normals"][i % 2].permute(1, 2, 0).numpy())
        np.save(root / "pairs" / "depth" / f"{i}.npy", scenes.maps["depth"][i % 2, 0].numpy())
    for name, more in (("plain", {}), ("quick", {"tiny_vae": str(tiny_folder)})):
        settings = {
            "generator": {"weights": str(sd_folder), "resolution": 32, **more},
            "train": {"steps": 2, "batch": 2},
            "runtime": {"device": "cpu"},
        }
        pairs = str(root / "pairs")
        list(fit(FitConfig("sd", (NORMALS, DEPTH), pairs=pairs, validation=1, settings=settings), root / name))
    return root


def test_a_fit_with_it_says_so(fitted, tiny_folder):
    records = {
        n: json.loads((fitted / n / "run.json").read_text())["generator"]["provenance"] for n in ("plain", "quick")
    }
    assert records["quick"]["tiny_vae"] == {"weights": str(tiny_folder), "served_by": "local folder"}
    assert "tiny_vae" not in records["plain"]
    assert "tiny_vae" in write_fit_report(fitted / "quick", {}).read_text()


def test_an_adapter_fitted_without_it_is_drawn_with_it(fitted, tiny_folder):
    picture = make_scenes(32, 32).pictures[:1]
    plain = Predictor(find_artefacts(fitted / "plain"), runtime=CPU)(picture)
    quick = Predictor(find_artefacts(fitted / "plain"), runtime=CPU, settings={"tiny_vae": str(tiny_folder)})(picture)
    asked = Predictor(find_artefacts(fitted / "quick"), runtime=CPU)(picture)
    for name in ("normals", "depth"):
        torch.testing.assert_close(quick[name], asked[name])
        assert not torch.allclose(quick[name], plain[name], atol=1e-2)


def test_predict_says_what_decoded(fitted, tiny_folder, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO, logger="ilora")
    Image.new("RGB", (40, 32), (200, 10, 10)).save(tmp_path / "p.png")
    arguments = ["predict", str(tmp_path / "p.png"), "-a", str(fitted / "plain"), "--device", "cpu", "--json"]
    assert main([*arguments, "-o", str(tmp_path / "quick"), "--set", f"generator.tiny_vae={tiny_folder}"]) == 0
    assert json.loads(capsys.readouterr().out)["generator"]["tiny_vae"]["weights"] == str(tiny_folder)
    assert f"maps are decoded by the tiny VAE {tiny_folder}" in caplog.text
    caplog.clear()
    assert main([*arguments, "-o", str(tmp_path / "plain")]) == 0
    assert "tiny_vae" not in json.loads(capsys.readouterr().out)["generator"]
    assert "tiny VAE" not in caplog.text
