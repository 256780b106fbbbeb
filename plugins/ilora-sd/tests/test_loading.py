"""Folders and the hub: which place served, what is refused, and what an error says."""

import hashlib
import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.registry import Weights, load_registry
from ilora_sd import hub
from ilora_sd.factories import stable_diffusion, tiny_components
from ilora_sd.loading import find_weights, load_components, load_folder

UNET = "unet/diffusion_pytorch_model.safetensors"


def save(folder, components=None):
    """A diffusers folder of tiny random parts."""
    parts = components or tiny_components()
    parts.unet.save_pretrained(folder / "unet")
    parts.vae.save_pretrained(folder / "vae")
    parts.text_encoder.save_pretrained(folder / "text_encoder")
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(parts.scheduler_config), default=str))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "abc123")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


@pytest.fixture
def mirrors(monkeypatch):
    """Replaces the hub: `mirrors[id]` is a folder, or an exception to raise. Gives the calls that were made."""
    served, calls = {}, []

    def snapshot_download(source, **options):
        calls.append((source, options))
        answer = served.get(source, FileNotFoundError(f"404: no {source}"))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return served, calls


@pytest.fixture
def registered(monkeypatch):
    """Puts weights called `toy` with two mirrors into the registry, with the digests given."""

    def register(**digests):
        registry = load_registry()
        toy = Weights("toy", ("first/toy", "second/toy"), "none", revision="main", sha256=digests.get("sha256", {}))
        known = type(registry)(registry.plugins, {**registry.weights, "toy": toy}, registry.presets)
        monkeypatch.setattr(hub, "load_registry", lambda: known)

    return register


def test_a_folder_gives_the_saved_networks(folder):
    loaded, made = load_folder(folder), tiny_components()
    for part in ("unet", "vae", "text_encoder"):
        for one, other in zip(getattr(loaded, part).parameters(), getattr(made, part).parameters(), strict=True):
            assert torch.equal(one, other)
    assert loaded.timesteps == 1000
    assert find_weights(str(folder))[1] == {"weights": str(folder), "served_by": "local folder"}


def test_the_second_mirror_serves_and_is_named(mirrors, registered, original, caplog):
    registered()
    mirrors[0]["second/toy"] = original
    with caplog.at_level(logging.INFO, logger="ilora"):
        components = load_components("toy")
    found = components.provenance
    assert (found["served_by"], found["revision"]) == ("second/toy", "abc123")
    assert found["failed"] == ["first/toy: FileNotFoundError: 404: no first/toy"]
    assert "weights toy: served by second/toy, revision abc123" in caplog.text
    assert [source for source, _ in mirrors[1]] == ["first/toy", "second/toy"]
    assert {options["revision"] for _, options in mirrors[1]} == {"main"}


def test_all_mirrors_fail_in_one_error(mirrors, registered):
    registered()
    with pytest.raises(WeightsError) as caught:
        load_components("toy")
    for part in ("first/toy: FileNotFoundError: 404", "second/toy: FileNotFoundError: 404", "generator.weights=PATH"):
        assert part in str(caught.value)


def test_a_digest_on_record_is_checked(mirrors, registered, original):
    digest = hashlib.sha256((original / UNET).read_bytes()).hexdigest()
    registered(sha256={UNET: digest, "not-fetched.safetensors": "0" * 64})
    mirrors[0]["first/toy"] = original
    assert load_components("toy").provenance["verified"] == [UNET]


def test_wrong_bytes_are_refused_and_the_next_mirror_tried(mirrors, registered, original, folder):
    digest = hashlib.sha256((original / UNET).read_bytes()).hexdigest()
    registered(sha256={UNET: digest})
    state = load_file(folder / UNET)
    save_file({key: value + 1 for key, value in state.items()}, folder / UNET)
    mirrors[0]["first/toy"] = folder
    with pytest.raises(WeightsError, match=r"(?s)first/toy: .*unet/diffusion_pytorch_model\.safetensors has SHA-256"):
        load_components("toy")
    mirrors[0]["second/toy"] = original
    assert load_components("toy").provenance["served_by"] == "second/toy"


def test_digests_belong_to_the_registered_revision(mirrors, registered, original):
    registered(sha256={UNET: "0" * 64})
    mirrors[0]["first/toy"] = original
    assert load_components("toy", revision="other").provenance["verified"] == []


def test_local_only_is_passed_on_and_explained(mirrors, registered):
    registered()
    with pytest.raises(WeightsError, match="only the local cache was searched"):
        load_components("toy", local_only=True)
    assert all(options["local_files_only"] for _, options in mirrors[1])


def test_a_hub_id_is_one_place(mirrors, original):
    mirrors[0]["someone/model"] = original
    assert load_components("someone/model").provenance["served_by"] == "someone/model"


def test_a_repository_without_weights_is_not_accepted(mirrors, folder):
    (folder / UNET).unlink()
    mirrors[0]["someone/model"] = folder
    with pytest.raises(WeightsError, match=r"it has no weights in unet/\n"):
        load_components("someone/model")
    patterns = [options["allow_patterns"] for _, options in mirrors[1]]
    assert any("unet/diffusion_pytorch_model.bin" in p for p in patterns[1:])
    assert not any(p.endswith(".bin") for p in patterns[0])


def test_pickled_weights_are_used_where_there_are_no_others(mirrors, folder):
    torch.save(load_file(folder / UNET), folder / "unet" / "diffusion_pytorch_model.bin")
    torch.save(load_file(folder / "vae" / UNET.split("/")[1]), folder / "vae" / "diffusion_pytorch_model.bin")
    torch.save(load_file(folder / "text_encoder/model.safetensors"), folder / "text_encoder" / "pytorch_model.bin")
    for path in folder.glob("*/*.safetensors"):
        path.unlink()
    mirrors[0]["someone/model"] = folder
    loaded, made = load_components("someone/model"), tiny_components()
    assert torch.equal(loaded.unet.conv_in.weight, made.unet.conv_in.weight)


def test_no_such_name():
    with pytest.raises(WeightsError, match=r"neither a folder.*known name \(.*sd15"):
        load_components("sd115")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(part, folder):
    shutil.rmtree(folder / part)
    with pytest.raises(WeightsError, match=rf"it lacks {part}/"):
        load_folder(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_truncated_weights_are_named(part, folder):
    (path,) = (folder / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=rf"cannot load .*{part}.*incomplete"):
        load_folder(folder)


def test_missing_tensors_are_not_drawn_at_random(folder):
    state = load_file(folder / UNET)
    save_file({k: v for k, v in state.items() if k != "conv_in.weight"}, folder / UNET, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, conv_in\.weight"):
        load_folder(folder)


def test_an_empty_tokenizer_is_refused(folder):
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(WeightsError, match="there is no vocabulary"):
        load_folder(folder)


def test_parts_of_different_models_are_refused(folder):
    def changed(network, **values):
        kept = {k: v for k, v in network.config.items() if k != "_use_default_values"}  # those would be reset
        return type(network).from_config({**kept, **values})

    made = tiny_components()
    changed(made.vae, latent_channels=8).save_pretrained(folder / "vae")
    with pytest.raises(WeightsError, match="the VAE's latents have 8"):
        load_folder(folder)
    made.vae.save_pretrained(folder / "vae")
    changed(made.unet, in_channels=9).save_pretrained(folder / "unet")
    with pytest.raises(WeightsError, match="takes 9"):
        load_folder(folder)
    changed(made.unet, cross_attention_dim=24).save_pretrained(folder / "unet")
    with pytest.raises(WeightsError, match="prompts of width 24"):
        load_folder(folder)


def test_the_factory_checks_the_timestep(folder):
    with pytest.raises(ConfigError, match="0 … 999"):
        stable_diffusion(weights=str(folder), timestep=1000)
    assert stable_diffusion(weights=str(folder), timestep=500).timestep == 500
