"""The weights of sg2_a in the layouts of NVIDIA's TensorFlow code and of rosinality/stylegan2-pytorch."""

import argparse
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_stylegan.checkpoints import read_checkpoint


class Network:
    """Stands for dnnlib's: its state is what it was given."""

    def __init__(self, **state):
        self.__dict__.update(state)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """pickle writes the class by its official name."""
    for module in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    monkeypatch.setattr(sys.modules["dnnlib.tflib.network"], "Network", Network, raising=False)
    monkeypatch.setattr(Network, "__module__", "dnnlib.tflib.network")


def _variable(key, value):
    """A torch key's TensorFlow name and array."""
    value = value.numpy()
    if key == "mapping.w_avg":
        return "dlatent_avg", value
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(\w+)", key):
        return f"mapping/Dense{found[1]}/{found[2]}", value.T
    side, layer, part = re.fullmatch(r"synthesis\.b(\d+)\.(\w+)\.?(.*)", key).groups()
    if layer == "const":
        return "synthesis/4x4/Const/const", value[None]
    if part == "noise_const":
        level = int(side).bit_length() - 1  # noise0 at 4, then two at each resolution
        number = 0 if side == "4" else 2 * level - (5 if layer == "conv0" else 4)
        return f"synthesis/noise{number}", value[None, None]
    name = {"conv0": "Conv0_up", "torgb": "ToRGB"}.get(layer, "Conv" if side == "4" else "Conv1")
    if part == "weight":
        value = value.transpose(2, 3, 1, 0)
        value = value[::-1, ::-1] if layer == "conv0" else value
    elif part.startswith("affine"):
        value = value.T if part.endswith("weight") else value - np.float32(1)
        part = part.replace("affine.", "mod_")
    return f"synthesis/{side}x{side}/{name}/{part}", value[()] if value.ndim == 0 else np.ascontiguousarray(value)


def _networks(state, **settings):
    """(G, D, Gs), as the TensorFlow code pickled them."""
    variables = dict(_variable(key, value) for key, value in state.items() if not key.endswith("resample_filter"))

    def network(prefix, **components):
        own = [(name[len(prefix) :], value) for name, value in variables.items() if name.startswith(prefix)]
        own = own if prefix else [("lod", np.float32(0)), ("dlatent_avg", variables["dlatent_avg"])]
        return Network(
            version=4,
            name=prefix or "Gs",
            static_kwargs={"fmap_base": 512, "resolution": 32, **settings} if not prefix else {},
            components=components,
            build_module_src="raise SystemExit",
            build_func_name="G_main",
            variables=own,
        )

    return None, None, network("", mapping=network("mapping/"), synthesis=network("synthesis/"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensorflow_weights_come_back(oracle, tmp_path, protocol):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(_networks(oracle("sg2_a").state), protocol=protocol))
    found, wanted = read_checkpoint(path), read_checkpoint(oracle("sg2_a").path)
    assert found.config == wanted.config
    assert (found.about["format"], found.about["class"]) == ("tensorflow", "G_main")
    assert {*found.state} == {*wanted.state}
    for key, value in wanted.state.items():
        if key.endswith("affine.bias"):  # 1 was taken off and put back
            torch.testing.assert_close(found.state[key], value, rtol=0, atol=2e-7)
        else:
            assert torch.equal(found.state[key], value), key


def test_tensorflow_settings(oracle, tmp_path):
    path = tmp_path / "net.pkl"
    settings = {"conv_clamp": 256, "resample_kernel": [1, 2, 1], "num_fp16_res": 4}
    path.write_bytes(pickle.dumps(_networks(oracle("sg2_a").state, **settings)))
    found = read_checkpoint(path).config
    assert (found.clamp, found.resample_kernel) == (256.0, (1.0, 2.0, 1.0))


@pytest.mark.parametrize("said", [True, False])
def test_tensorflow_without_noise(oracle, tmp_path, said):
    """Only a network that says so may lack it."""
    networks = _networks(oracle("sg2_a").state, **({"use_noise": False} if said else {}))
    synthesis = networks[2].components["synthesis"]
    synthesis.variables = [pair for pair in synthesis.variables if "noise" not in pair[0]]
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(networks))
    if said:
        assert read_checkpoint(path).state["synthesis.b8.conv0.noise_strength"] == 0
    else:
        with pytest.raises(WeightsError, match=r"14 weights are missing, synthesis\.b4\.conv1\.noise_strength"):
            read_checkpoint(path)


def _renamed(networks, pattern, replacement):
    synthesis = networks[2].components["synthesis"]
    synthesis.variables = [(re.sub(pattern, replacement, name), value) for name, value in synthesis.variables]


def test_tensorflow_output_layers_by_level_of_detail(oracle, tmp_path):
    """32x32/ToRGB is ToRGB_lod0: only that one is used."""
    networks = _networks(oracle("sg2_a").state)
    _renamed(networks, r"^(\d+)x\d+/ToRGB", lambda found: f"ToRGB_lod{5 - int(found[1]).bit_length() + 1}")
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(networks))
    found, wanted = read_checkpoint(path), read_checkpoint(oracle("sg2_a").path)
    assert found.config.architecture == "orig"
    assert torch.equal(found.state["synthesis.b32.torgb.weight"], wanted.state["synthesis.b32.torgb.weight"])
    assert "synthesis.b8.torgb.weight" not in found.state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nets: setattr(nets[2], "version", 3), "version 3"),
        (lambda nets: nets[2].static_kwargs.update(mapping_nonlinearity="relu"), "mapping_nonlinearity = 'relu'"),
        (lambda nets: nets[2].static_kwargs.update(architecture="x"), "architecture is 'x'"),
        (lambda nets: nets[2].static_kwargs.update(conv_clamp="x"), "conv_clamp is no number"),
        (lambda nets: nets[2].components.pop("mapping"), "lacks"),
        (lambda nets: nets[2].components.update(other=nets[2]), "no network of its own"),
        (lambda nets: nets[2].components.update(other=None), "no network of its own"),
        (lambda nets: nets[2].variables.pop(), "lacks dlatent_avg"),
        (lambda nets: _renamed(nets, "^8x8/Conv0_up/bias", "x"), r"missing, synthesis\.b8\.conv0\.bias"),
        (lambda nets: nets[2].variables.append(("dlatent_avg", np.array([None]))), "plain number"),
        (lambda nets: nets[2].variables.append("x"), "without a proper name"),
    ],
)
def test_other_tensorflow_networks_are_refused(oracle, tmp_path, change, words):
    networks = _networks(oracle("sg2_a").state)
    change(networks)
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(networks))
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "net.pkl")


@pytest.fixture
def rosinality(oracle):
    """The file of sg2_a, and its contents by torch.load."""
    path = oracle("sg2_a").path.with_name("sg2_a_rosinality.pt")
    return path, torch.load(path, weights_only=True)


def _agree(found, wanted):
    """Equal up to the fan-in that demodulation takes out again."""
    assert {*found} == {*wanted}
    for key, value in wanted.items():
        if re.search(r"conv[01]\.weight$", key):
            torch.testing.assert_close(found[key] * value[0].numel() ** 0.5, value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(found[key], value), key


def test_rosinality_weights_come_back(oracle, rosinality):
    found, wanted = read_checkpoint(rosinality[0]), read_checkpoint(oracle("sg2_a").path)
    assert found.config == wanted.config
    assert (found.about["format"], "needs_w_avg" in found.about) == ("rosinality", False)
    _agree(found.state, wanted.state)


@pytest.mark.parametrize("archive", [True, False])
def test_rosinality_training_files_say_that_the_mean_is_missing(oracle, rosinality, tmp_path, archive):
    state = rosinality[1]["g_ema"]
    content = {"g": state, "d": {}, "g_ema": state, "g_optim": {"state": {0: {"step": 1}}, "param_groups": [{}]}}
    content |= {"d_optim": {}, "args": argparse.Namespace(size=32, channel_multiplier=1), "ada_aug_p": 0.0}
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=archive)
    found = read_checkpoint(tmp_path / "net.pt")
    assert found.about["needs_w_avg"] is True
    wanted = read_checkpoint(oracle("sg2_a").path).state
    assert found.state["mapping.w_avg"].count_nonzero() == 0
    _agree(found.state, {**wanted, "mapping.w_avg": torch.zeros(64)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("noises.noise_3"), r"missing, synthesis\.b16\.conv0\.noise_const"),
        (lambda state: state.pop("style.1.weight"), "lacks style"),
        (lambda state: state.update({"stem.weight": torch.ones(1)}), "'stem.weight'"),
        (lambda state: state.update({"input.input": 3}), "no tensor, but 3"),
        (lambda state: state.update({"conv1.noise.weight": torch.ones(2)}), "axes"),
        (lambda state: state.update({"convs.0.conv.blur.kernel": torch.eye(4)}), "not the product"),
        (lambda state: state.update({"convs.0.conv.blur.kernel": torch.ones(2, 2)}), "different resampling filters"),
    ],
)
def test_other_state_dicts_are_refused(rosinality, tmp_path, change, words):
    change(rosinality[1]["g_ema"])
    torch.save(rosinality[1], tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "net.pt")


def test_weights_that_share_one_storage_over_and_over_are_refused(rosinality, tmp_path):
    """The sum of all tensors is bounded by the file."""
    state = rosinality[1]["g_ema"]
    largest = state["convs.0.conv.weight"]
    for name in [name for name, value in state.items() if value.shape == largest.shape]:
        state[name] = largest
    torch.save({"g_ema": state}, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="they overlap"):
        read_checkpoint(tmp_path / "net.pt")
