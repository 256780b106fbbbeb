"""SDXL and Stable Diffusion 3: prompts as their own pipelines make them, the flow's output, counts, folders."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from ilora_core.cards import Card
from ilora_core.errors import ConfigError, DataError, WeightsError
from ilora_core.intrinsics import NORMALS
from ilora_core.plugins import load_plugins
from ilora_core.testing.exercise import attach_lora, disturb
from ilora_core.testing.scenes import make_scenes
from ilora_sd.architectures_large import LARGE
from ilora_sd.factories_flux import tiny_t5
from ilora_sd.factories_large import sd3, sd3_skeleton, sdxl, sdxl_skeleton, tiny_sd3, tiny_sdxl
from ilora_sd.large import StableDiffusion3
from ilora_sd.loading_large import load_large

PROMPT = "surface normal"


@pytest.fixture(scope="module")
def folders(large, tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    return {
        "sdxl": large.save(tiny_sdxl(), "sdxl", root / "xl"),
        "sd3": large.save(tiny_sd3(), "sd3", root / "three"),
    }


def pipeline(generator):
    """diffusers' own pipeline of the same parts."""
    first, scheduler, words = generator.text_encoder, generator._scheduler(), generator.tokenizer
    encoders, tokenizers = generator.more_text_encoders, generator.more_tokenizers
    if generator.network == "unet":
        return StableDiffusionXLPipeline(
            generator.vae, first, encoders[0], words, tokenizers[0], generator.unet, scheduler
        )
    third = (encoders[1], tokenizers[1]) if len(encoders) > 1 else (None, None)
    return StableDiffusion3Pipeline(
        generator.unet, scheduler, generator.vae, first, words, encoders[0], tokenizers[0], *third
    )


def test_full_size_counts(large):
    generator = sdxl_skeleton(resolution=1024)
    assert sum(p.numel() for p in generator.vae.parameters()) == 83_653_863
    assert (generator.resolution, generator.stride, generator.scale) == ((1024, 1024), 32, 0.13025)
    assert large.count(generator) == (2_567_463_684, 11_612_160, 560)
    generator = sd3_skeleton()
    assert (generator.resolution, generator.stride) == ((1024, 1024), 16)
    assert large.count(generator) == (2_028_328_000, 2_359_296, 96)
    assert large.count(sd3_skeleton(added_projections=True)) == (2_028_328_000, 4_694_016, 191)


def test_full_size_prompts_have_the_networks_widths():
    for generator, width, pooled in ((sdxl_skeleton(), 2048, 1280), (sd3_skeleton(), 4096, 2048)):
        conditions = generator.to("meta")._conditions("depth map")
        assert conditions["prompt"].shape == (1, 77 if width == 2048 else 77 + 256, width)
        assert conditions["pooled"].shape == (1, pooled)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # diffusers' own
def test_sdxl_prompts_are_its_pipelines():
    generator = tiny_sdxl()
    with torch.no_grad():
        tokens, blank, pooled, blank_pooled = pipeline(generator).encode_prompt(PROMPT)
    assert torch.equal(generator._conditions(PROMPT)["prompt"], tokens)
    assert torch.equal(generator._conditions(PROMPT)["pooled"], pooled)
    assert torch.equal(generator._conditions("")["prompt"], blank)
    assert torch.equal(generator._conditions("")["pooled"], blank_pooled)
    assert tokens.any()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # diffusers' own
@pytest.mark.parametrize("with_t5", [False, True])
def test_sd3_prompts_are_its_pipelines(large, with_t5):
    generator = tiny_sd3()
    if with_t5:
        further = tuple(zip(generator.more_text_encoders, generator.more_tokenizers, strict=True))
        generator = StableDiffusion3(
            large.components_of(generator, further=(*further, (tiny_t5(40), generator.tokenizer)))
        )
    pipe = pipeline(generator)
    with torch.no_grad():
        tokens, _, pooled, _ = pipe.encode_prompt(PROMPT, None, None, do_classifier_free_guidance=False)
    assert torch.equal(generator._conditions(PROMPT)["prompt"], tokens)
    assert torch.equal(generator._conditions(PROMPT)["pooled"], pooled)
    assert bool(tokens[:, 16:].any()) is with_t5


def _clip(width: int):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=60, max_position_embeddings=16, **sizes))


def test_sdxl_reads_sizes():
    generator, seen = tiny_sdxl(), []
    forward = generator.unet.forward

    def call(*arguments, **options):
        seen.append(options["added_cond_kwargs"])
        return forward(*arguments, **options)

    generator.unet.forward = call
    pictures = make_scenes(64, 96).pictures
    generator.render(generator.encode(pictures), NORMALS)
    assert seen[0]["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 2
    assert seen[0]["text_embeds"].shape == (2, 24)


def test_a_flows_map_is_the_latent_minus_its_velocity(large):
    generator = tiny_sd3()
    disturb(attach_lora(generator))
    codes = generator.encode(make_scenes(64, 64).pictures)
    conditions = generator._conditions(NORMALS.prompt)
    assert generator.timestep == 1000
    with torch.no_grad():
        velocity = generator.unet(
            codes["latent"],
            timestep=torch.tensor([1000, 1000]),
            encoder_hidden_states=conditions["prompt"].expand(2, -1, -1),
            pooled_projections=conditions["pooled"].expand(2, -1),
        ).sample
        torch.testing.assert_close(generator._map(codes["latent"], conditions), codes["latent"] - velocity)
        half = StableDiffusion3(large.components_of(generator), timestep=500)
        found = half._map(codes["latent"], conditions)
        torch.testing.assert_close(found, codes["latent"] - 0.5 * half._predict(codes["latent"], conditions))
        raw = StableDiffusion3(large.components_of(generator), output="raw")
        torch.testing.assert_close(raw._map(codes["latent"], conditions), velocity)


def test_latents_have_shift_and_scale():
    generator = tiny_sd3()
    pictures = make_scenes(64, 64).pictures
    codes = generator.encode(pictures)
    mode = generator.vae.encode(pictures * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(codes["latent"], (mode - 0.0609) * 1.5305)
    expected = (generator.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.picture(codes), expected, atol=1e-5, rtol=0)
    prepared = generator.prepare(codes, NORMALS, pictures, torch.ones_like(pictures[:, :1], dtype=torch.bool))
    torch.testing.assert_close(prepared["target"], codes["latent"])
    std = generator.vae.encode(pictures * 2 - 1).latent_dist.std
    torch.testing.assert_close(prepared["target_std"], std * 1.5305)


def test_a_picture_beyond_the_table_of_places_is_refused():
    with pytest.raises(DataError, match=r"2048×64 .* \(256 pixels a side\)"):
        tiny_sd3().encode(torch.zeros(1, 3, 64, 2048))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # diffusers' own
@pytest.mark.parametrize(("make", "network"), [(tiny_sdxl, "unet"), (tiny_sd3, "transformer")])
def test_plain_diffusers_reads_the_adapter(make, network, tmp_path):
    trained, other = make(), make()
    adapter = disturb(attach_lora(trained))
    ((name, (tensors, header)),) = trained.layouts(adapter.state_dict(), adapter.config()).items()
    assert all(key.startswith(f"{network}.") for key in tensors)
    assert all(key.startswith(f"{network}.") for key in json.loads(header["lora_adapter_metadata"]))
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name, metadata=dict(header))
    codes = trained.encode(make_scenes(64, 64).pictures)
    plain = other.render(codes, NORMALS)
    pipeline(other).load_lora_weights(tmp_path)
    expected = trained.render(codes, NORMALS)
    torch.testing.assert_close(other.render(codes, NORMALS), expected, atol=1e-5, rtol=0)
    assert (expected - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "factory", "make"), [("sdxl", sdxl, tiny_sdxl), ("sd3", sd3, tiny_sd3)])
def test_a_folder_gives_the_saved_networks(name, factory, make, folders):
    loaded, made = factory(weights=str(folders[name])), make()
    codes = made.encode(make_scenes(64, 64).pictures)
    torch.testing.assert_close(loaded.render(codes, NORMALS), made.render(codes, NORMALS), atol=1e-5, rtol=0)
    for one, other in zip(loaded.unet.parameters(), made.unet.parameters(), strict=True):
        assert torch.equal(one, other)
    assert loaded.provenance["served_by"] == "local folder"
    control = factory(weights=str(folders[name]), random_unet=True, seed=3)
    assert control.provenance["random_unet"] == 3
    assert not torch.equal(control.render(codes, NORMALS), made.render(codes, NORMALS))


def test_incomplete_and_foreign_folders_are_named(folders, tmp_path):
    folder = shutil.copytree(folders["sd3"], tmp_path / "sd3")
    with pytest.raises(WeightsError, match=r"complete folder of sdxl: it lacks unet/"):
        load_large(str(folder), LARGE["sdxl"])
    with pytest.raises(WeightsError, match=r"lacks text_encoder_3, tokenizer_3/"):
        sd3(weights=str(folder), t5=True)
    wide = shutil.copytree(folders["sdxl"], tmp_path / "sdxl")
    shutil.rmtree(wide / "text_encoder_2")
    _clip(24).save_pretrained(wide / "text_encoder_2")
    with pytest.raises(WeightsError, match="prompts of width 32, but the two CLIP encoders give 40"):
        load_large(str(wide), LARGE["sdxl"])
    shutil.rmtree(folder / "vae")
    vae = tiny_sd3().vae
    type(vae).from_config({**vae.config, "latent_channels": 8}).save_pretrained(folder / "vae")
    with pytest.raises(WeightsError, match="the VAE's latents have 8"):
        load_large(str(folder), LARGE["sd3"])
    with pytest.raises(WeightsError, match="single files"):
        sdxl(weights="model.safetensors")


def test_the_hub_is_asked_for_the_parts_of_the_model(monkeypatch, folders):
    asked = []

    def snapshot_download(source, **options):
        asked.append(options["allow_patterns"])
        return str(folders["sd3"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert sd3(weights="someone/sd3").provenance["served_by"] == "someone/sd3"
    wanted = {pattern for pattern in asked[0] if pattern.endswith(".safetensors")}
    assert {"transformer/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors"} <= wanted
    assert not any("text_encoder_3" in pattern for pattern in wanted)
    with pytest.raises(WeightsError, match="it has no weights in text_encoder_3/"):
        sd3(weights="someone/sd3", t5=True)
    assert "text_encoder_3/model-*-of-*.safetensors" in asked[1]


def test_timesteps_are_checked(folders):
    with pytest.raises(ConfigError, match="1 … 1000"):
        sd3(weights=str(folders["sd3"]), timestep=0)
    with pytest.raises(ConfigError, match="0 … 999"):
        sdxl(weights=str(folders["sdxl"]), timestep=1000)


def test_the_cards():
    cards = {
        card.name: card for owner, card in load_plugins(only={"ilora-sd"}).cards("generators") if owner == "ilora-sd"
    }
    series = {"sd", "sd11", "sd12", "sd14", "sd15", "sd21", "sd21-base", "sd-turbo"}
    large = {"sdxl", "sdxl-turbo", "sd3-medium", "flux1-dev", "flux1-schnell"}
    assert set(cards) == series | large | {"sd15-aug", "sd21-aug"}
    for card in cards.values():
        assert isinstance(card, Card)
        assert _offers_the_random_control(card), card.name
    assert cards["sdxl"].licence == "CreativeML-OpenRAIL++-M"
    assert "Non-Commercial" in cards["sdxl-turbo"].licence
    assert cards["sd3-medium"].licence == "Stability AI Community"
    assert cards["flux1-dev"].licence == "FLUX.1 [dev] Non-Commercial"
    assert cards["flux1-schnell"].licence == "Apache-2.0"


def _offers_the_random_control(card: Card) -> bool:
    from ilora_core.factories import options_of

    return {"random_unet", "seed"} <= {option.name for option in options_of(card.factory)}
