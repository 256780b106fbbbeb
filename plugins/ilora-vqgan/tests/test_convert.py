"""A checkpoint, converted once, is the same generator; half a conversion leaves nothing."""

import json

import pytest
import torch

from ilora_core.cards import resolve
from ilora_core.errors import WeightsError
from ilora_core.plugins import load_plugins
from ilora_vqgan.factories import vqgan
from ilora_vqgan.loading import convert, load_components


def test_the_card_names_the_converter():
    assert resolve(load_plugins().card("generators", "vqgan").convert) is convert


@pytest.mark.parametrize("source", ["folder", "file"])
def test_a_converted_checkpoint_draws_the_same_bits(project, tmp_path, source):
    facts = convert(project if source == "folder" else project / "checkpoints" / "last.ckpt", tmp_path / "out")
    assert facts["configuration"] == "2021-04-23T18-19-01-project.yaml"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert {p.suffix for p in (tmp_path / "out").rglob("*") if p.is_file()} == {".json", ".safetensors"}
    before, after = vqgan(weights=str(project)), vqgan(weights=str(tmp_path / "out"))
    one, other = before.sample(2, seed=3), after.sample(2, seed=3)
    assert torch.equal(one["codes"], other["codes"])
    assert torch.equal(before.picture(one), after.picture(other))
    assert after.resolution == (32, 32)
    for part, module in (("first_stage", (before.net, before.encoder)), ("prior", (before.prior,))):
        own = sum(p.numel() for m in module for p in m.parameters())
        assert facts[f"{part} parameters"] == own


def test_a_first_stage_alone_is_converted_and_says_why_it_draws_nothing(oracle, tmp_path):
    prefix = "first_stage_model."
    state = {k.removeprefix(prefix): v for k, v in oracle.state.items() if k.startswith(prefix)}
    facts = convert(oracle.save(tmp_path / "one", state=state, config=False), tmp_path / "out")
    assert "first stage alone" in facts["prior"]
    assert not (tmp_path / "out" / "prior").exists()
    assert vqgan(weights=str(tmp_path / "out")).prior is None


def test_a_conversion_that_fails_leaves_nothing_and_one_that_works_replaces(project, tmp_path):
    out = tmp_path / "out"
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError):
        convert(broken, out)
    assert not out.exists()
    out.mkdir()
    (out / "old").write_text("")
    convert(project, out)
    assert sorted(p.name for p in out.iterdir()) == ["first_stage", "prior"]


def test_a_start_token_survives_the_conversion(oracle, tmp_path):
    project = oracle.save(tmp_path / "one")
    path = next((project / "configs").iterdir())
    path.write_text(path.read_text().replace("first_stage_key: image", "first_stage_key: image\n    sos_token: 5"))
    convert(project, tmp_path / "out")
    assert load_components(str(project)).start == load_components(str(tmp_path / "out")).start == 5


def test_a_folder_with_a_tensor_less_or_another_models_prior_is_refused(project, tmp_path):
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    convert(project, out)
    config = out / "prior" / "config.json"
    data = json.loads(config.read_text())
    weights = next((out / "first_stage").glob("*.safetensors"))
    tensors = load_file(weights)
    del tensors["decoder.conv_in.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, decoder\.conv_in\.bias"):
        load_components(str(out))
    convert(project, out)
    vocabulary = load_file(out / "prior" / "model.safetensors")
    for key in ("transformer.wte.weight", "lm_head.weight"):
        vocabulary[key] = vocabulary[key][:32].clone()
    save_file(vocabulary, out / "prior" / "model.safetensors", metadata={"format": "pt"})
    config.write_text(json.dumps({**data, "vocab_size": 32}))
    with pytest.raises(WeightsError, match="the prior knows 32 codes, the codebook has 64"):
        load_components(str(out))


@pytest.mark.parametrize("place", ["", "vqvae", "first_stage"])
def test_a_diffusers_folder_loads_wherever_it_keeps_its_model(project, tmp_path, place):
    first_stage = load_components(str(project)).first_stage
    first_stage.save_pretrained(tmp_path / place)
    components = load_components(str(tmp_path))
    assert components.prior is None
    for key, value in components.first_stage.state_dict().items():
        assert torch.equal(value, first_stage.state_dict()[key])
