"""Every checkpoint format against the official numbers, and our own folder against itself."""

import hashlib
import json
import os

import pytest
import torch

from ilora_core.errors import DataError, WeightsError
from ilora_stylegan.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ilora_stylegan.configs import InputConfig, LayerConfig, StyleGAN2Config, StyleGAN3Config
from ilora_stylegan.folding import fold_stylegan2, fold_stylegan3
from ilora_stylegan.layout import layout

STYLEGAN2 = ("sg2_a", "sg2_b")
STYLEGAN3 = ("sg3_t", "xl_stem", "xl_super")
CASES = STYLEGAN2 + STYLEGAN3


def same(found, wanted):
    assert {*found} == {*wanted}
    for key, value in wanted.items():
        assert found[key].shape == value.shape, key
        assert found[key].dtype == torch.float32, key
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("case", CASES)
def test_every_official_weight_comes_back_folded(oracle, case):
    truth = oracle(case)
    official = {key: value for key, value in truth.state.items() if not key.endswith("resample_filter")}
    keys = {entry["key"] for entry in truth.facts["state"] if not entry["key"].endswith("resample_filter")}
    assert keys == {*official}
    found = read_checkpoint(truth.path)
    same(found.state, (fold_stylegan2 if case in STYLEGAN2 else fold_stylegan3)(official))
    assert {key: tuple(value.shape) for key, value in found.state.items()} == layout(found.config)


@pytest.mark.parametrize("case", CASES)
def test_folding_by_hand_agrees(oracle, case):
    """The gains of the facts, not those of `folding`: one layer of each kind."""
    truth = oracle(case)
    found, official = read_checkpoint(truth.path).state, truth.state
    weight = official["mapping.fc0.weight"]
    torch.testing.assert_close(found["mapping.fc0.weight"], weight * 0.01 / weight.shape[1] ** 0.5)
    torch.testing.assert_close(found["mapping.fc0.bias"], official["mapping.fc0.bias"] * 0.01)
    affine = "synthesis.b8.conv0.affine" if case in STYLEGAN2 else "synthesis.input.affine"
    weight = official[f"{affine}.weight"]
    torch.testing.assert_close(found[f"{affine}.weight"], weight / weight.shape[1] ** 0.5)
    assert torch.equal(found[f"{affine}.bias"], official[f"{affine}.bias"])


@pytest.mark.parametrize("case", STYLEGAN2)
def test_configuration_of_a_stylegan2(oracle, case):
    facts = oracle(case).facts
    found = read_checkpoint(oracle(case).path).config
    assert isinstance(found, StyleGAN2Config)
    given = facts["init_kwargs"]["synthesis_kwargs"]
    sides = [4 << level for level in range(found.resolution.bit_length() - 2)]
    assert found.resolution == facts["img_resolution"] == sides[-1]
    assert found.channels == tuple(min(given["channel_base"] // side, given["channel_max"]) for side in sides)
    assert (found.clamp, found.img_channels, found.architecture) == (given.get("conv_clamp"), 3, "skip")
    assert found.resample_kernel == (1.0, 3.0, 3.0, 1.0)
    _mapping(found.mapping, facts, "linear" if facts["c_dim"] else "none")


@pytest.mark.parametrize("case", STYLEGAN3)
def test_configuration_of_a_stylegan3(oracle, case):
    facts = oracle(case).facts
    found = read_checkpoint(oracle(case).path).config
    assert isinstance(found, StyleGAN3Config)
    wanted = dict(facts["layer_attrs"])
    first = wanted.pop("synthesis.input")
    assert found.input == InputConfig(first["channels"], first["size"][0], first["sampling_rate"], first["bandwidth"])
    assert [f"synthesis.{layer.name}" for layer in found.layers] == [*wanted]
    for layer, attributes in zip(found.layers, wanted.values(), strict=True):
        assert layer == _layer(layer.name, attributes)
    assert (found.resolution, found.output_scale) == (facts["img_resolution"], 0.25)
    _mapping(found.mapping, facts, "table" if facts["c_dim"] else "none")


def _layer(name, attributes):
    filtered = not attributes["is_torgb"]
    return LayerConfig(
        name=name,
        in_channels=attributes["in_channels"],
        out_channels=attributes["out_channels"],
        in_size=attributes["in_size"][0],
        out_size=attributes["out_size"][1],
        kernel=attributes["conv_kernel"],
        up=attributes["up_factor"],
        down=attributes["down_factor"],
        padding=tuple(attributes["padding"]),
        up_taps=attributes["up_taps"] if filtered else 0,
        down_taps=attributes["down_taps"] if filtered else 0,
        down_radial=attributes["down_radial"],
        is_torgb=attributes["is_torgb"],
        clamp=attributes["conv_clamp"],
    )


def _mapping(found, facts, embed):
    for name in ("z_dim", "c_dim", "w_dim", "num_ws"):
        assert getattr(found, name) == facts[name]
    stem = facts["stem_chain"][0]["init_kwargs"] if facts["stem_chain"] else facts["init_kwargs"]
    assert found.widths == (facts["w_dim"],) * stem["mapping_kwargs"]["num_layers"]
    shapes = {entry["key"]: entry["shape"] for entry in facts["state"]}
    assert found.embed == embed
    assert found.embed_dim == (facts["w_dim"] if embed == "linear" else facts["z_dim"] if embed == "table" else 0)
    assert list(found.table) == (shapes["mapping.embed.weight"] if embed == "table" else [0, 0])


@pytest.mark.parametrize("case", CASES)
def test_where_it_comes_from_is_kept(oracle, case):
    path = oracle(case).path
    found = read_checkpoint(path).about
    assert found == {
        "format": "nvidia",
        "class": oracle(case).facts["class_name"],
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("case", [*CASES, "sg2_a_rosinality"])
def test_our_own_folder_keeps_every_bit(oracle, tmp_path, case):
    source = oracle("sg2_a").path.parent / (f"{case}.pt" if case.endswith("rosinality") else f"{case}.pkl")
    checkpoint = read_checkpoint(source)
    save_checkpoint(checkpoint, tmp_path / "net")
    found = read_checkpoint(tmp_path / "net")
    assert found.config == checkpoint.config
    assert found.about == checkpoint.about
    same(found.state, checkpoint.state)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "model.safetensors", "net"]


@pytest.fixture
def folder(oracle, tmp_path):
    """A checkpoint in our own format."""
    save_checkpoint(read_checkpoint(oracle("sg2_b").path), tmp_path / "net")
    return tmp_path / "net"


def test_a_folder_is_replaced_whole(oracle, folder):
    (folder / "old.txt").write_text("of before")
    save_checkpoint(read_checkpoint(oracle("sg3_t").path), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert read_checkpoint(folder).config.resolution == 64
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_a_failed_write_leaves_what_was_there(oracle, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        save_checkpoint(read_checkpoint(oracle("sg3_t").path), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_a_state_that_does_not_fit_is_not_written(oracle, tmp_path):
    checkpoint = read_checkpoint(oracle("sg2_a").path)
    state = {key: value for key, value in checkpoint.state.items() if key != "mapping.w_avg"}
    with pytest.raises(WeightsError, match=r"1 weights are missing, mapping\.w_avg"):
        save_checkpoint(Checkpoint(checkpoint.config, state), tmp_path / "net")
    assert not (tmp_path / "net").exists()


def _without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: _without(state, "mapping.w_avg"), r"1 weights are missing, mapping\.w_avg"),
        (lambda state: {**state, "extra": torch.zeros(1)}, "no place in this architecture, extra"),
        (lambda state: {**state, "mapping.w_avg": torch.zeros(3)}, r"mapping\.w_avg \[3\] instead of \[64\]"),
        (lambda state: {**state, "mapping.w_avg": torch.zeros(64).half()}, "in F16"),
        (lambda state: {**state, "mapping.w_avg": torch.full((64,), float("nan"))}, "not finite, mapping"),
    ],
)
def test_weights_of_a_folder_are_checked(folder, change, words):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors")
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: {**content, "version": 9}, "not of format"),
        (lambda content: {**content, "format": "diffusers"}, "not of format"),
        (lambda content: [], "not of format"),
        (lambda content: {**content, "config": {"family": "stylegan9", "mapping": {}}}, "no configuration|no StyleGAN"),
        (lambda content: {**content, "config": None}, "no configuration|TypeError"),
        (lambda content: {**content, "config": {**content["config"], "channels": ["a"]}}, "no usable checkpoint"),
        (lambda content: {key: content[key] for key in ("format", "version")}, "config"),
    ],
)
def test_configuration_of_a_folder_is_checked(folder, change, words):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(content)))
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00", ""])
def test_a_damaged_configuration(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="net"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"has no {name}"):
        read_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_cut_weights_of_a_folder(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="no usable checkpoint"):
        read_checkpoint(folder)


def test_no_file_and_an_empty_folder(tmp_path):
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.pkl")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        read_checkpoint(tmp_path)
