"""Reading checkpoints: every wrapping, what training and attackers leave, the wrong network; and where weights come from."""

import hashlib
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from ilora_core.errors import WeightsError
from ilora_core.registry import load_registry
from ilora_core.testing.foreign import foreign_class
from ilora_omnidata import weights
from ilora_omnidata.labeler import normal
from ilora_omnidata.network import TINY
from ilora_omnidata.pictures import TASKS
from ilora_omnidata.weights import convert_depth, convert_normal, find_file, load_network


class _Attack:
    """Pickles as a call of os.system that would leave a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def _same(net, state) -> bool:
    loaded = net.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "wrapping", ["lightning", "plain", "module.", "module.model.", "half", "legacy", "safetensors"]
)
def test_every_wrapping_gives_the_same_network(oracle, lightning, tmp_path, wrapping):
    state = oracle.states["normal"]
    path = tmp_path / ("w.safetensors" if wrapping == "safetensors" else "w.pth")
    if wrapping == "lightning":
        path = lightning(state)
    elif wrapping == "safetensors":
        save_file(state, path)
    elif wrapping == "half":
        state = {key: value.half() for key, value in state.items()}
        torch.save(state, path)
        state = {key: value.float() for key, value in state.items()}
    else:
        prefix = wrapping if wrapping.startswith("module") else ""
        wrapped = {prefix + key: value for key, value in state.items()}
        torch.save(wrapped, path, _use_new_zipfile_serialization=wrapping != "legacy")
    net, digest = load_network(path, TASKS["normal"], TINY)
    assert _same(net, state)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not net.training


def test_classes_that_training_left_are_not_needed(oracle, lightning):
    with foreign_class("somebodys.code.Settings") as settings:
        path = lightning(oracle.states["depth"], callbacks={"settings": settings()})
    net, _ = load_network(path, TASKS["depth"], TINY)
    assert _same(net, oracle.states["depth"])


def test_a_hostile_checkpoint_is_refused_unrun(oracle, lightning, tmp_path):
    mark = tmp_path / "ran"
    path = lightning(oracle.states["normal"], callbacks={"x": _Attack(mark)})
    with pytest.raises(WeightsError, match=r"last\.ckpt holds more than weights.*system.*Do not trust"):
        load_network(path, TASKS["normal"], TINY)
    assert not mark.exists()


def test_the_other_task_s_network_is_named(oracle, lightning):
    with pytest.raises(WeightsError, match="use --labeler omnidata-depth"):
        load_network(lightning(oracle.states["depth"]), TASKS["normal"], TINY)


def test_missing_unknown_and_odd_tensors_are_named_in_one_error(oracle, lightning):
    state = dict(oracle.states["normal"])
    del state["scratch.layer1_rn.weight"]
    state["scratch.layer9_rn.weight"] = torch.zeros(1)
    state["scratch.refinenet1.out_conv.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        load_network(lightning(state), TASKS["normal"], TINY)
    for name in ("layer1_rn.weight", "layer9_rn.weight", "refinenet1.out_conv.bias (3,)"):
        assert name in str(caught.value)


def test_other_networks_are_not_taken(tmp_path):
    torch.save({"down1.weight": torch.zeros(2)}, tmp_path / "unet.pth")
    with pytest.raises(WeightsError, match="no DPT-hybrid of Omnidata"):
        load_network(tmp_path / "unet.pth", TASKS["normal"], TINY)


def test_a_folder_gives_its_file(tmp_path):
    with pytest.raises(WeightsError, match="holds no"):
        find_file(tmp_path, "normal")
    for name in ("omnidata_dpt_depth_v2.ckpt", "omnidata_dpt_normal_v2.ckpt"):
        (tmp_path / name).touch()
    assert find_file(tmp_path, "depth").name == "omnidata_dpt_depth_v2.ckpt"
    with pytest.raises(WeightsError, match="several weights"):
        find_file(tmp_path, "")
    (tmp_path / "model.safetensors").touch()
    assert find_file(tmp_path, "").name == "model.safetensors"


def test_a_converted_checkpoint_is_the_same_network(oracle, lightning, tmp_path, monkeypatch):
    tiny = weights.empty_network(TASKS["depth"], TINY)
    monkeypatch.setattr(weights, "empty_network", lambda task: tiny)
    facts = convert_depth(lightning(oracle.states["depth"]), tmp_path / "out")
    assert facts["task"] == "depth"
    assert facts["parameters"] == sum(t.numel() for t in oracle.states["depth"].values())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    written = load_file(find_file(tmp_path / "out", "depth"))
    assert all(torch.equal(written[key], value) for key, value in oracle.states["depth"].items())
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError):
        convert_depth(tmp_path / "broken.pth", tmp_path / "out2")
    with pytest.raises(WeightsError, match="use --labeler omnidata-depth"):
        convert_normal(tmp_path / "out", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_without_weights_the_error_says_where_they_are(tmp_path):
    with pytest.raises(WeightsError, match=r"omnidata_dpt_normal_v2\.ckpt.*zenodo.*labeler\.weights=FILE"):
        normal(weights=str(tmp_path / "nothing.ckpt"), local_only=True)
    with pytest.raises(WeightsError, match="no place could serve 'nobody/nothing'"):
        normal(weights="nobody/nothing", local_only=True)


@pytest.mark.parametrize("task", ["normal", "depth"])
def test_without_a_name_the_registry_s_place_is_asked(tmp_path, monkeypatch, task):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **_: (asked.append(a), str(tmp_path))[1])
    path, told = weights.find_network("", task)
    assert (path, told["weights"]) == (tmp_path, f"omnidata-{task}")
    assert asked == [(load_registry().weights[f"omnidata-{task}"].sources[0],)]
