"""FLUX.1 from folders and from the hub: what is loaded, what is refused and how it is said."""

import shutil

import pytest
import torch
from transformers import T5TokenizerFast

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.intrinsics import NORMALS
from ilora_core.testing.scenes import make_scenes
from ilora_sd.factories_flux import flux, tiny_flux1, tiny_flux1_schnell, tiny_t5
from ilora_sd.factories_large import sd3, tiny_sd3
from ilora_sd.loading import load_tokenizer


def unigrams() -> T5TokenizerFast:
    """T5's tokenizer of single letters; it pads with 0, where the letters' CLIP tokenizer pads with 1."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    letters = [(letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5TokenizerFast(vocab=[*words, *letters], extra_ids=0, model_max_length=512)


@pytest.fixture(scope="module")
def folder(large, tmp_path_factory):
    made = tiny_flux1()
    made.more_tokenizers = (unigrams(),)
    return large.save(made, "flux1-dev", tmp_path_factory.mktemp("flux") / "dev")


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the folder, to break."""
    return shutil.copytree(folder, tmp_path / "broken")


def test_a_folder_gives_the_saved_networks(folder, large):
    loaded, made = flux(weights=str(folder)), tiny_flux1()
    assert isinstance(loaded.more_tokenizers[0], T5TokenizerFast)
    assert loaded.length == 512
    indices = loaded._tokens("ab", loaded.more_tokenizers[0], loaded.length)
    assert indices[0, :4].tolist() == [3, 4, 5, 1]
    assert not indices[0, 4:].any()
    made = type(made)(large.components_of(made, further=((made.more_text_encoders[0], unigrams()),)))
    codes = made.encode(make_scenes(64, 96).pictures)
    torch.testing.assert_close(loaded.render(codes, NORMALS), made.render(codes, NORMALS), atol=1e-5, rtol=0)
    for one, other in zip(loaded.unet.parameters(), made.unet.parameters(), strict=True):
        assert torch.equal(one, other)
    assert loaded.provenance["served_by"] == "local folder"
    assert (loaded.resolution, loaded.stride) == ((64, 64), 8)
    control = flux(weights=str(folder), random_unet=True, seed=3)
    assert control.provenance["random_unet"] == 3
    assert not torch.equal(control.render(codes, NORMALS), made.render(codes, NORMALS))


def test_half_the_memory(folder):
    whole, half = flux(weights=str(folder)), flux(weights=str(folder), dtype="bfloat16")
    assert half.unet.dtype == half.more_text_encoders[0].dtype == torch.bfloat16
    assert half.vae.dtype == half.text_encoder.dtype == torch.float32
    codes = whole.encode(make_scenes(64, 64).pictures)
    drawn = half.render(codes, NORMALS)
    assert drawn.dtype == torch.float32
    assert 0 < (drawn - whole.render(codes, NORMALS)).abs().mean() < 0.02
    for rounded, exact in zip(half.unet.parameters(), whole.unet.parameters(), strict=True):
        assert torch.equal(rounded, exact.bfloat16())
    with pytest.raises(ConfigError, match="float32, bfloat16, not 'int8'"):
        flux(weights=str(folder), dtype="int8")


def test_the_other_architecture_is_named_before_anything_is_loaded(folder, large, tmp_path, monkeypatch):
    other = large.save(tiny_sd3(), "sd3", tmp_path / "sd3")
    monkeypatch.setattr("ilora_sd.loading_large.load_part", lambda *_, **__: pytest.fail("a part was loaded"))
    needs = "transformer/ holds SD3Transformer2DModel, but flux1-dev needs FluxTransformer2DModel"
    with pytest.raises(WeightsError, match=needs):
        flux(weights=str(other))
    with pytest.raises(WeightsError, match="holds FluxTransformer2DModel, but sd3 needs SD3Transformer2DModel"):
        sd3(weights=str(folder))


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2", "tokenizer_2", "scheduler"])
def test_a_folder_without_a_part(part, changed):
    shutil.rmtree(changed / part)
    with pytest.raises(WeightsError, match=f"complete folder of flux1-schnell: it lacks {part}/"):
        flux(weights=str(changed), architecture="flux1-schnell")


def test_a_part_without_its_files(changed):
    for name in ("tokenizer.json", "spiece.model"):
        (changed / "tokenizer_2" / name).unlink(missing_ok=True)
    with pytest.raises(WeightsError, match=r"tokenizer_2: there is no vocabulary \(spiece.model, or tokenizer.json\)"):
        load_tokenizer(changed / "tokenizer_2", clip=False)
    (changed / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"cannot load .*text_encoder_2"):
        flux(weights=str(changed))
    (changed / "transformer" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"cannot load .*transformer"):
        flux(weights=str(changed))


def test_parts_of_different_models(changed):
    tiny_t5(32).save_pretrained(changed / "text_encoder_2")
    with pytest.raises(WeightsError, match="tokens of width 24, but CLIP gives 16 and T5 32"):
        flux(weights=str(changed))
    vae = tiny_flux1().vae
    type(vae).from_config({**vae.config, "latent_channels": 8}).save_pretrained(changed / "vae")
    with pytest.raises(WeightsError, match="16 channels, but the VAE's latents have 8, 4 of which make a token"):
        flux(weights=str(changed))


def test_a_network_that_reads_more_than_a_latent(changed):
    net = tiny_flux1().unet
    given = {key: value for key, value in net.config.items() if not key.startswith("_")}
    wider = type(net)(**{**given, "in_channels": 32, "out_channels": 16})  # as FLUX.1 Fill, Canny and Depth
    wider.save_pretrained(changed / "transformer")
    with pytest.raises(WeightsError, match=r"takes 32 and gives 16 channels.* plain text-to-image network"):
        flux(weights=str(changed))


def test_a_tokenizer_with_more_words_than_its_encoder_knows(changed):
    words = unigrams()
    words.add_tokens([f"word{i}" for i in range(40)])
    words.save_pretrained(changed / "tokenizer_2")
    with pytest.raises(WeightsError, match="tokenizer has 70 words, its text encoder 60"):
        flux(weights=str(changed))


def test_single_files_are_refused():
    with pytest.raises(WeightsError, match="single files"):
        flux(weights="flux1-dev.safetensors")


def test_the_hub_is_asked_for_every_part(monkeypatch, folder):
    asked = []

    def snapshot_download(source, **options):
        asked.append((source, options["revision"], options["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert flux(weights="flux1-dev").provenance["served_by"] == "black-forest-labs/FLUX.1-dev"
    ((source, revision, patterns),) = asked
    assert (source, revision) == ("black-forest-labs/FLUX.1-dev", "main")
    sharded = {"transformer/diffusion_pytorch_model-*-of-*.safetensors", "text_encoder_2/model-*-of-*.safetensors"}
    assert sharded | {"tokenizer*/*", "*/*.json", "text_encoder/model.safetensors"} <= set(patterns)


def test_settings_are_checked_before_anything_is_fetched(monkeypatch, folder, large, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr("ilora_sd.factories_flux.load_large", lambda *_, **__: pytest.fail("weights were asked for"))
        for timestep in (0, 1001, -1):
            with pytest.raises(ConfigError, match="1 … 1000"):
                flux(weights="flux1-dev", timestep=timestep)
        with pytest.raises(ConfigError, match="flux1-dev, flux1-schnell, not 'sd3'"):
            flux(weights="flux1-dev", architecture="sd3")
        with pytest.raises(ConfigError, match="takes none"):
            flux(weights="flux1-schnell", architecture="flux1-schnell", guidance=3.5)
    assert flux(weights=str(folder), timestep=1).timestep == 1
    assert flux(weights=str(folder)).timestep == 1000
    schnell = large.save(tiny_flux1_schnell(), "flux1-schnell", tmp_path / "schnell")
    assert flux(weights=str(schnell)).guidance is None
    with pytest.raises(ConfigError, match="takes none"):
        flux(weights=str(schnell), guidance=3.5)
