"""Counts of the published model, every one of its tensors, and what a configuration may say."""

import copy

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import WeightsError
from ilora_core.plan import count
from ilora_core.plugins import load_plugins
from ilora_vqgan.architecture import FFHQ, from_shapes, from_yaml, reconcile
from ilora_vqgan.factories import skeleton
from ilora_vqgan.key_map import dropped, map_first_stage, map_prior
from ilora_vqgan.loading import empty_networks


def _size(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_ffhq_model_has_the_published_counts():
    generator = skeleton()
    assert _size(generator.net) + _size(generator.encoder) == 72_141_699
    assert _size(generator.prior) == 801_798_400
    assert generator.resolution == (256, 256)
    assert generator.stride == 16


def test_rank_eight_has_the_papers_count():
    _, about = count(load_plugins(), "vqgan-ffhq", {"adapter": {"rank": 8}})
    assert (about["sites"], about["parameters"]) == (16, 131_072)


def test_convolutions_add_what_the_checkpoints_shapes_say(ffhq_layout):
    _, about = count(load_plugins(), "vqgan-ffhq", {"generator": {"adapt": "convolutions"}, "adapter": {"rank": 8}})
    shapes = [v for k, v in ffhq_layout.items() if k.startswith("first_stage_model.decoder.") and len(v) == 4]
    assert about["sites"] == len(shapes)
    assert about["parameters"] == sum(8 * (out + into * height * width) for out, into, height, width in shapes)
    assert about["parameters"] > 8 * 131_072


@pytest.mark.parametrize("adapt", ["attention", "convolutions"])
def test_an_adapter_sits_in_the_decoder_alone(adapt):
    generator = skeleton(adapt=adapt)
    LoraAdapter(rank=2).attach(generator.net, generator.targets)
    sites = [name for name, module in generator.net.named_modules() if hasattr(module, "lora_A")]
    convolutions = [n for n, m in generator.net.named_modules() if isinstance(m, torch.nn.Conv2d) and "lora" not in n]
    assert all(name.startswith("decoder.") for name in sites)
    inside = {n.removesuffix(".base_layer") for n in convolutions if n.startswith("decoder.")}
    assert inside <= set(sites) if adapt == "convolutions" else not inside & set(sites)


def test_every_tensor_of_the_published_checkpoint_is_mapped_or_dropped_on_purpose(ffhq_layout):
    assert len(ffhq_layout) == 756
    kept = {k: torch.empty(v, device="meta") for k, v in ffhq_layout.items() if not dropped(k)}
    assert len(ffhq_layout) - len(kept) == 24  # the causal masks
    first_stage, prior = empty_networks(FFHQ)
    stage = {k.removeprefix("first_stage_model."): v for k, v in kept.items() if k.startswith("first_stage_model.")}
    minds = {k.removeprefix("transformer."): v for k, v in kept.items() if k.startswith("transformer.")}
    assert len(stage) + len(minds) == len(kept)
    for network, (mapped, unknown) in ((first_stage, map_first_stage(stage, 5)), (prior, map_prior(minds))):
        wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert not unknown
        assert {key: tuple(value.shape) for key, value in mapped.items()} == wanted


def test_shapes_tell_the_whole_ffhq_architecture(ffhq_layout):
    kept = {key: shape for key, shape in ffhq_layout.items() if not dropped(key)}
    assert from_shapes(kept, "here") == FFHQ


def test_shapes_and_yaml_agree_on_the_small_model(oracle):
    kept = {key: tuple(value.shape) for key, value in oracle.state.items() if not dropped(key)}
    said, found = from_yaml(oracle.facts["config"], "a.yaml"), from_shapes(kept, "here")
    assert said.first_stage == found.first_stage
    assert found.prior.heads == 0  # no tensor tells
    assert reconcile(said, found, "a.yaml") == said


def _changed(oracle, path: str, value):
    config = copy.deepcopy(oracle.facts["config"])
    *groups, last = path.split("/")
    inner = config["model"]["params"]
    for group in groups:
        inner = inner[group]
    inner[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("first_stage_config/params/ddconfig/double_z", True, "double_z"),
        ("first_stage_config/params/ddconfig/resamp_with_conv", False, "without convolutions"),
        ("first_stage_config/params/ddconfig/in_channels", 182, "three channels"),
        ("first_stage_config/target", "taming.models.vqgan.GumbelVQ", "GumbelVQ"),
        ("first_stage_config/target", "ldm.models.autoencoder.AutoencoderKL", "KL autoencoder"),
        ("transformer_config/params", {"vocab_size": 64}, "block_size"),
        ("first_stage_config/params", {}, "ddconfig"),
    ],
)
def test_what_this_plugin_cannot_hold_is_refused_by_name(oracle, path, value, told):
    with pytest.raises(WeightsError, match=told):
        from_yaml(_changed(oracle, path, value), "a.yaml")


@pytest.mark.parametrize("config", [None, [], "text", {"model": None}, {"model": {"params": {}}}])
def test_a_yaml_of_something_else_is_one_clear_error(config):
    with pytest.raises(WeightsError, match="not the configuration of a VQGAN"):
        from_yaml(config, "a.yaml")


def test_a_conditional_prior_is_left_out_and_said_so(oracle):
    config = _changed(oracle, "cond_stage_config", {"target": "taming.models.vqgan.VQModel", "params": {}})
    made = from_yaml(config, "a.yaml")
    assert made.prior is None
    assert "conditional" in made.without_prior


def test_a_yaml_of_another_model_is_refused_by_the_field_that_differs(oracle):
    kept = {key: tuple(value.shape) for key, value in oracle.state.items() if not dropped(key)}
    said = from_yaml(_changed(oracle, "first_stage_config/params/n_embed", 128), "a.yaml")
    with pytest.raises(WeightsError, match="n_embed is 128, but in the checkpoint it is 64"):
        reconcile(said, from_shapes(kept, "here"), "a.yaml")
