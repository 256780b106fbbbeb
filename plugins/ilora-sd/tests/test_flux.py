"""FLUX.1: called as its own pipeline calls it, the same maps in plain diffusers, samples, counts."""

import json

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.testing.exercise import attach_lora, disturb
from ilora_core.testing.scenes import make_scenes
from ilora_sd.factories_flux import flux_skeleton, tiny_flux1, tiny_flux1_schnell
from ilora_sd.flux import Flux, pack, places, unpack

PROMPT = NORMALS.prompt
BOTH = pytest.mark.parametrize("make", [tiny_flux1, tiny_flux1_schnell], ids=["dev", "schnell"])
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # diffusers' own


def pipeline(generator) -> FluxPipeline:
    """diffusers' own pipeline of the same parts."""
    ((t5,), (words,)) = generator.more_text_encoders, generator.more_tokenizers
    clip, letters = generator.text_encoder, generator.tokenizer
    pipe = FluxPipeline(generator._scheduler(), generator.vae, clip, letters, t5, words, generator.unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, latent, *, steps: int = 1, prompt: str = PROMPT, **options):
    """What the pipeline makes of a latent (B,C,H,W) as if it were noise."""
    batch, channels, height, width = latent.shape
    return pipe(
        prompt=[prompt] * batch,
        latents=pipe._pack_latents(latent, batch, channels, height, width),
        height=height * pipe.vae_scale_factor,
        width=width * pipe.vae_scale_factor,
        num_inference_steps=steps,
        max_sequence_length=16,
        **options,
    ).images


def watch(network) -> list[tuple[dict, torch.Tensor]]:
    """The network's inputs by name and its output, for each call from now on."""
    seen = []

    def hook(_, arguments, options, output):
        assert not arguments
        seen.append((options, output[0]))

    network.register_forward_hook(hook, with_kwargs=True)
    return seen


def with_adapter(generator) -> LoraAdapter:
    return disturb(attach_lora(generator))


def test_full_size_counts(large):
    generator = flux_skeleton(resolution=1024)
    assert (generator.resolution, generator.stride) == ((1024, 1024), 16)
    assert (generator.scale, generator.shift, generator.guidance) == (0.3611, 0.1159, 3.5)
    assert sum(p.numel() for p in generator.vae.parameters()) == 83_819_683
    assert sum(p.numel() for p in generator.more_text_encoders.parameters()) == 4_762_310_656
    assert large.count(generator) == (11_901_408_320, 9_338_880, 190)
    assert large.count(flux_skeleton(added_projections=True)) == (11_901_408_320, 13_074_432, 266)
    schnell = flux_skeleton(architecture="flux1-schnell")
    assert schnell.resolution == (1024, 1024)
    assert schnell.guidance is None
    assert large.count(schnell) == (11_891_178_560, 9_338_880, 190)


def test_full_size_prompts_have_the_networks_widths():
    for name, length in (("flux1-dev", 512), ("flux1-schnell", 256)):
        conditions = flux_skeleton(architecture=name).to("meta")._conditions("depth map")
        assert conditions["prompt"].shape == (1, length, 4096)
        assert conditions["pooled"].shape == (1, 768)


@BOTH
def test_prompts_are_its_pipelines(make):
    generator = make()
    pipe = pipeline(generator)
    for text in (PROMPT, ""):
        with torch.no_grad():
            tokens, pooled, _ = pipe.encode_prompt(text, max_sequence_length=16)
        found = generator._conditions(text)
        assert torch.equal(found["prompt"], tokens)
        assert torch.equal(found["pooled"], pooled)
        assert tokens.shape == (1, 16, 24)


def test_packing_is_the_pipelines():
    latent = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    tokens = FluxPipeline._pack_latents(latent, 2, 4, 6, 10)
    assert torch.equal(pack(latent), tokens)
    assert torch.equal(unpack(tokens, 3, 5), latent)
    assert torch.equal(places(3, 5), FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32))


@BOTH
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (48, 32)])
def test_the_network_is_called_as_its_pipeline_calls_it(make, size):
    generator = make()
    with_adapter(generator)
    codes = generator.encode(make_scenes(*size).pictures)
    seen = watch(generator.unet)
    picture = generator.render(codes, NORMALS)
    expected = draw(pipeline(generator), codes["latent"], output_type="pt")
    (ours, velocity), (theirs, other) = seen
    names = {"hidden_states", "timestep", "guidance", "pooled_projections", "encoder_hidden_states"}
    for name in names | {"txt_ids", "img_ids"}:
        if theirs[name] is None:
            assert ours[name] is None
        else:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)
    assert (theirs["guidance"] is None) is (make is tiny_flux1_schnell)
    assert theirs["timestep"].tolist() == [1, 1]
    torch.testing.assert_close(velocity, other, atol=1e-5, rtol=0)
    assert picture.shape == (2, 3, *size)
    torch.testing.assert_close(picture, expected, atol=1e-5, rtol=0)


def test_a_map_at_another_timestep(large):
    made = tiny_flux1()
    plain = {**made.scheduler_config, "use_dynamic_shifting": False, "shift": 1.0}
    parts = large.components_of(made, scheduler_config=plain)
    generator = Flux(parts, timestep=500, guidance=2.0)
    latent = generator.encode(make_scenes(64, 64).pictures)["latent"]
    conditions = generator._conditions(PROMPT)
    seen = watch(generator.unet)
    pipe = pipeline(generator)
    expected = draw(pipe, latent, sigmas=[0.5], guidance_scale=2.0, output_type="latent")
    with torch.no_grad():
        found, velocity = generator._map(latent, conditions), generator._predict(latent, conditions)
        raw = Flux(parts, timestep=500, guidance=2.0, output="raw")._map(latent, conditions)
    for options, _ in seen:
        assert options["timestep"].tolist() == [0.5, 0.5]
        assert options["guidance"].tolist()[0] == 2
    torch.testing.assert_close(pack(found), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found, latent - 0.5 * velocity)
    assert torch.equal(raw, velocity)


def test_guidance_and_both_prompts_matter(large):
    generator = tiny_flux1()
    codes = generator.encode(make_scenes(64, 64).pictures)
    latent, conditions = codes["latent"], dict(generator._conditions(PROMPT))
    stronger = Flux(large.components_of(generator), guidance=7.0)
    with torch.no_grad():
        first = generator._map(latent, conditions)
        assert torch.equal(Flux(large.components_of(generator), guidance=3.5)._map(latent, conditions), first)
        assert not torch.equal(stronger._map(latent, conditions), first)
        for name, value in generator._conditions(DEPTH.prompt).items():
            assert not torch.equal(generator._map(latent, {**conditions, name: value}), first)


def test_settings_are_checked(large):
    for strength in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="0 or more"):
            Flux(large.components_of(tiny_flux1()), guidance=strength)
    with pytest.raises(ConfigError, match="takes none"):
        Flux(large.components_of(tiny_flux1_schnell()), guidance=3.5)
    with pytest.raises(ConfigError, match="flux1-dev, flux1-schnell, not 'sd1'"):
        flux_skeleton(architecture="sd1")


def test_latents_have_shift_and_scale():
    generator = tiny_flux1()
    pictures = make_scenes(64, 64).pictures
    codes = generator.encode(pictures)
    mode = generator.vae.encode(pictures * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(codes["latent"], (mode - 0.1159) * 0.3611)
    expected = (generator.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.picture(codes), expected, atol=1e-5, rtol=0)


@BOTH
def test_its_own_samples_are_the_pipelines(make, large):
    generator = make()
    pipe = pipeline(generator)
    noise = noise_like(torch.empty(2, 4, 16, 16), [mix_seeds(4, 0), mix_seeds(4, 1)])
    expected = draw(pipe, noise, steps=30, prompt="", output_type="latent")
    found = pack(generator.sample(2, seed=4)["latent"])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    fixed = {**generator.scheduler_config, "use_dynamic_shifting": False, "shift": 1.0}
    other = pack(Flux(large.components_of(generator, scheduler_config=fixed)).sample(2, seed=4)["latent"])
    assert torch.equal(other, found) is (make is tiny_flux1_schnell)


@BOTH
@pytest.mark.parametrize("added", [False, True])
def test_plain_diffusers_reads_the_adapter(make, added, large, tmp_path):
    trained = Flux(large.components_of(make()), added_projections=added)
    other = pipeline(make())
    adapter = LoraAdapter(rank=2, alpha=3)
    adapter.attach(trained.net, trained.targets)
    disturb(adapter)
    ((name, (tensors, header)),) = trained.layouts(adapter.state_dict(), adapter.config()).items()
    assert name == "pytorch_lora_weights.safetensors"
    assert all(key.startswith("transformer.") for key in tensors)
    assert any(".add_q_proj." in key for key in tensors) is added
    assert json.loads(header["lora_adapter_metadata"])["transformer.lora_alpha"] == 3
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name, metadata=dict(header))
    codes = trained.encode(make_scenes(64, 96).pictures)
    expected = trained.render(codes, NORMALS)
    plain = draw(other, codes["latent"], output_type="pt")
    other.load_lora_weights(tmp_path)
    found = draw(other, codes["latent"], output_type="pt")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (expected - plain).abs().max() > 1e-3


def test_the_text_encoders_leave_the_device():
    generator, moves = tiny_flux1(), []
    generator._device = torch.device("meta")  # stands for a GPU
    for module in (generator.text_encoder, *generator.more_text_encoders, generator.vae):
        module.to = lambda device, module=module: moves.append((type(module).__name__, str(device)))
    generator.park()
    assert moves == [("CLIPTextModel", "cpu"), ("T5EncoderModel", "cpu"), ("AutoencoderKL", "cpu")]
