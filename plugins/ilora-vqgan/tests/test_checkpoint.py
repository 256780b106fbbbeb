"""Reading checkpoints: what Lightning leaves in them, what an attacker might, and what is broken or lacking."""

import os

import pytest
import torch
import yaml

from ilora_core.errors import ConfigError, WeightsError
from ilora_core.testing.foreign import foreign_class
from ilora_vqgan.checkpoint import find_config, read_checkpoint
from ilora_vqgan.loading import load_checkpoint, load_components

LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"


class _Attack:
    """Pickles as a call of os.system that would leave a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_classes_that_training_leaves_do_not_stop_it(oracle, tmp_path):
    with foreign_class(LIGHTNING) as kind, foreign_class("taming.modules.losses.Loss") as loss:
        noted = {"best_model_score": torch.tensor(0.5), "best_model_path": "somewhere/last.ckpt"}
        project = oracle.save(tmp_path / "one", callbacks={kind: noted, "loss": loss()})
    state = read_checkpoint(project / "checkpoints" / "last.ckpt")
    assert set(state) == set(oracle.state)
    assert all(torch.equal(state[key], value) for key, value in oracle.state.items())
    assert load_components(str(project)).prior is not None


def test_a_checkpoint_that_would_run_something_is_refused_unrun(oracle, tmp_path):
    mark = tmp_path / "ran"
    project = oracle.save(tmp_path / "one", callbacks={"x": _Attack(mark)})
    with pytest.raises(WeightsError, match=r"last\.ckpt holds more than weights.*system.*Do not trust"):
        load_components(str(project))
    assert not mark.exists()


def test_a_class_of_somebody_else_is_refused(oracle, tmp_path):
    with foreign_class("somebodys.code.Settings") as kind:
        project = oracle.save(tmp_path / "one", callbacks={"settings": kind()})
    with pytest.raises(WeightsError, match=r"somebodys\.code\.Settings"):
        load_components(str(project))


def test_half_a_file_is_called_incomplete(project, tmp_path):
    whole = (project / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "half.ckpt"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"half\.ckpt .*download it again"):
        load_components(str(path))


def test_a_yaml_that_would_run_something_is_refused_unrun(oracle, tmp_path):
    project = oracle.save(tmp_path / "one", config=False)
    (project / "configs").mkdir()
    (project / "configs" / "x-project.yaml").write_text(f"!!python/object/apply:os.system ['touch {tmp_path}/ran']")
    with pytest.raises(WeightsError, match=r"x-project\.yaml cannot be read"):
        load_components(str(project))
    assert not (tmp_path / "ran").exists()


def test_missing_unknown_and_odd_tensors_are_named_in_one_error(oracle, tmp_path):
    state = dict(oracle.state)
    del state["first_stage_model.decoder.mid.attn_1.k.bias"], state["transformer.blocks.1.attn.key.weight"]
    state["first_stage_model.decoder.mid.attn_1.r.bias"] = torch.zeros(1)
    state["transformer.ln_f.weight"] = torch.zeros(65)
    project = oracle.save(tmp_path / "one", state=state)
    with pytest.raises(WeightsError) as caught:
        load_components(str(project))
    told = str(caught.value)
    for name in (
        "decoder.mid_block.attentions.0.to_k.bias",
        "decoder.mid.attn_1.r.bias",
        "transformer.h.1.attn.c_attn.weight",
        "transformer.ln_f.weight (65,)",
    ):
        assert name in told


def test_losses_and_masks_are_dropped_without_a_word(oracle, tmp_path):
    state = {**oracle.state, "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(3)}
    assert load_components(str(oracle.save(tmp_path / "one", state=state))).prior is not None


def test_without_a_yaml_only_the_number_of_heads_is_asked_for(oracle, project, tmp_path):
    bare = oracle.save(tmp_path / "one", config=False)
    with pytest.raises(WeightsError, match=r"how many heads.*generator\.config"):
        load_components(str(bare))
    config = find_config(project / "checkpoints" / "last.ckpt")
    components = load_components(str(bare), config=str(config))
    assert components.prior.config.n_head == 4


def test_a_first_stage_alone_needs_no_yaml(oracle, tmp_path):
    prefix = "first_stage_model."
    state = {k.removeprefix(prefix): v for k, v in oracle.state.items() if k.startswith(prefix)}
    components = load_components(str(oracle.save(tmp_path / "one", state=state, config=False)))
    assert components.prior is None
    assert "first stage alone" in components.without_prior
    assert components.provenance["config"] == "inferred from shapes"
    assert components.first_stage.config.block_out_channels == [32, 64, 128]


def test_a_conditional_prior_is_left_out_with_what_it_was_conditioned_on(oracle, tmp_path):
    state = {**oracle.state, "cond_stage_model.encoder.conv_in.weight": torch.zeros(3)}
    project = oracle.save(tmp_path / "one", state=state)
    path = next((project / "configs").iterdir())
    with pytest.raises(
        WeightsError, match=r"unknown cond_stage_model\.encoder"
    ):  # an unconditional one has no such thing
        load_components(str(project))
    path.write_text(path.read_text().replace("__is_unconditional__", "{target: taming.models.vqgan.VQModel}"))
    components = load_components(str(project))
    assert components.prior is None
    assert "conditional (taming.models.vqgan.VQModel)" in components.without_prior


def test_a_first_stages_yaml_beside_a_transformer_is_the_wrong_one(oracle, tmp_path):
    project = oracle.save(tmp_path / "one")
    alone = {"model": oracle.facts["config"]["model"]["params"]["first_stage_config"]}
    next((project / "configs").iterdir()).write_text(yaml.safe_dump(alone))
    with pytest.raises(WeightsError, match="the checkpoint holds a transformer"):
        load_components(str(project))


def test_the_last_of_several_runs_yamls_counts(oracle, tmp_path):
    project = oracle.save(tmp_path / "one")
    later = project / "configs" / "2021-05-01T00-00-00-project.yaml"
    later.write_text(yaml.safe_dump(oracle.facts["config"]))
    (project / "configs" / "2021-06-01T00-00-00-lightning.yaml").write_text("lightning: {}")
    assert find_config(project / "checkpoints" / "last.ckpt") == later


def test_several_checkpoints_and_no_last_one_is_a_question(project, tmp_path):
    for name in ("a.ckpt", "b.ckpt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"several checkpoints \(a\.ckpt, b\.ckpt\)"):
        load_components(str(tmp_path))


def test_an_empty_folder_and_a_missing_file_say_what_was_looked_for(tmp_path):
    with pytest.raises(WeightsError, match="first_stage/"):
        load_components(str(tmp_path))
    with pytest.raises(WeightsError, match="there is no VQGAN at"):
        load_components(str(tmp_path / "nowhere.ckpt"))
    with pytest.raises(WeightsError, match="there is no file"):
        load_checkpoint(tmp_path / "nowhere.ckpt")


def test_the_papers_card_says_where_to_get_it():
    with pytest.raises(WeightsError, match=r"2021-04-23T18-19-01_ffhq_transformer.*generator\.weights=FOLDER"):
        load_components("vqgan-ffhq", local_only=True)
    with pytest.raises(WeightsError, match=r"generator\.weights=FILE"):
        load_components("")


def test_a_hub_id_that_is_not_in_the_cache_is_reported_with_its_reason():
    with pytest.raises(WeightsError, match="no place could serve 'nobody/nothing'"):
        load_components("nobody/nothing", local_only=True)


def test_a_yaml_for_a_folder_that_has_its_own_is_a_mistake(tmp_path):
    (tmp_path / "first_stage").mkdir()
    (tmp_path / "first_stage" / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ConfigError, match=r"its own config\.json"):
        load_components(str(tmp_path), config="x.yaml")
