"""Other writers' layouts of the same weights: variations of NVIDIA's pickles, TensorFlow's, rosinality's."""

import argparse
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_stylegan.checkpoints import read_checkpoint
from ilora_stylegan.folding import fold_stylegan2
from ilora_stylegan.pickles import Dead, Record, StoredArray, StoredTensor, read_pickle


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a checkpoint's code ran")


def _create_function(*args):
    raise AssertionError("a checkpoint's code ran")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """pickle writes these by the names that the official files use."""
    for module, value in (
        ("torch_utils.persistence", _reconstruct_persistent_obj),
        ("dill._dill", _create_function),
    ):
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(parts[count - 1]))
        setattr(sys.modules[module], value.__name__, value)
        monkeypatch.setattr(value, "__module__", module)


class Persistent:
    """A module as torch_utils.persistence pickles it."""

    def __init__(self, class_name, state):
        self.class_name, self.state = class_name, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": self.class_name}
        return _reconstruct_persistent_obj, ({**meta, "state": self.state},)

    def part(self, path):
        found = self
        for name in path.split("."):
            found = found.state["_modules"][name]
        return found

    def everywhere(self):
        """Itself and all its parts."""
        yield self
        for child in self.state["_modules"].values():
            if isinstance(child, Persistent):
                yield from child.everywhere()


def revived(node):
    """What the reader made -> objects that pickle as the originals did."""
    if isinstance(node, Record):
        return Persistent(node.class_name, revived(node.state))
    if isinstance(node, StoredTensor | StoredArray):
        return node.load()
    if isinstance(node, Dead):
        assert node.name == "torch.nn.modules.sparse.Embedding"
        table = torch.nn.Embedding.__new__(torch.nn.Embedding)
        table.__dict__.update(revived(node.state))
        return table
    if isinstance(node, dict):
        return {key: revived(value) for key, value in node.items()}
    return type(node)(map(revived, node)) if isinstance(node, list | tuple | set) else node


@pytest.fixture
def edited(oracle, tmp_path):
    """A case's generator, changed, and what else the file holds -> the checkpoint that is read."""

    def make(case, change=lambda generator: None, protocol=4, **others):
        generator = revived(read_pickle(oracle(case).path)["G_ema"])
        change(generator)
        path = tmp_path / "net.pkl"
        path.write_bytes(pickle.dumps({"G": None, "D": None, "G_ema": generator, **others}, protocol=protocol))
        return read_checkpoint(path)

    return make


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("case", ["sg2_b", "sg3_t", "xl_super"])
def test_every_protocol(oracle, edited, case, protocol):
    found, wanted = edited(case, protocol=protocol), read_checkpoint(oracle(case).path)
    assert found.config == wanted.config
    assert all(torch.equal(found.state[key], value) for key, value in wanted.state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(oracle, edited, dtype):
    def change(generator):
        for module in generator.everywhere():
            for name, value in module.state["_parameters"].items():
                module.state["_parameters"][name] = torch.nn.Parameter(value.to(dtype))

    found, wanted = edited("sg3_t", change).state, read_checkpoint(oracle("sg3_t").path).state
    assert {value.dtype for value in found.values()} == {torch.float32}
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=2e-2, atol=1e-5)


def test_stylegan2_of_the_stylegan3_repository(oracle, edited):
    """Flat constructor arguments, more attributes, a clamp of 256 and fp16 blocks."""

    def change(generator):
        generator.state["_init_kwargs"] = {"z_dim": 1, "channel_base": 2, "fused_modconv_default": "inference_only"}
        for module in generator.everywhere():
            module.state["in_features"] = -1
            if "conv_clamp" in module.state:
                module.state["conv_clamp"] = 256
            if module.class_name == "SynthesisLayer":
                weight = module.state["_parameters"]["weight"]
                module.state["_parameters"]["weight"] = weight.to(memory_format=torch.channels_last)

    found, wanted = edited("sg2_a", change), read_checkpoint(oracle("sg2_a").path)
    assert found.config.clamp == 256
    assert found.config.channels == wanted.config.channels
    assert all(torch.equal(found.state[key], value) for key, value in wanted.state.items())


def test_progress_and_a_discriminator_with_closures(edited):
    class Closure:
        def __reduce__(self):
            return _create_function, (b"\x00code", {"os": None}, "hook", None, (1,))

    discriminator = {"hooks": [Closure()], "types": {torch.float32: np.array([None, "x"], dtype=object)}}
    found = edited("xl_stem", progress={"cur_nimg": torch.LongTensor([4000]), "best_fid": 2.5}, D=discriminator)
    assert found.about["cur_nimg"] == 4000
    assert edited("sg3_t", progress={"cur_nimg": 7}).about["cur_nimg"] == 7
    assert "cur_nimg" not in edited("sg3_t", progress={"cur_nimg": "many"}).about


def test_a_table_of_classes_may_be_there_unused(oracle, edited):
    """StyleGAN-XL without classes: the table of embeddings is in the file and nothing reads it."""

    def change(generator):
        mapping = generator.part("mapping")
        mapping.state["c_dim"] = 0
        del mapping.state["_modules"]["embed_proj"]
        weight = mapping.part("fc0").state["_parameters"]["weight"]
        mapping.part("fc0").state["_parameters"]["weight"] = weight[:, :16].clone()
        mapping.part("fc0").state["weight_gain"] = 0.01 / 4
        mapping.state["_buffers"]["w_avg"] = mapping.state["_buffers"]["w_avg"][0].clone()

    found = edited("xl_super", change)
    table = oracle("xl_super").state["mapping.embed.weight"]
    assert (found.config.mapping.c_dim, found.config.mapping.embed, found.config.mapping.embed_dim) == (0, "table", 0)
    assert found.config.mapping.table == tuple(table.shape)
    assert torch.equal(found.state["mapping.embed.weight"], table)


@pytest.mark.parametrize("noted", [True, False])
def test_the_learning_rate_multiplier_of_the_mapping(oracle, edited, noted):
    def change(generator):
        for module in generator.part("mapping").state["_modules"].values():
            if noted:
                module.state["bias_gain"], module.state["weight_gain"] = 0.02, 0.02 / 64**0.5
            else:
                del module.state["bias_gain"], module.state["weight_gain"]

    found = edited("sg2_a", change).state
    wanted = fold_stylegan2(oracle("sg2_a").state, mapping_lr=0.02 if noted else 0.01)
    for key in ("mapping.fc0.weight", "mapping.fc7.bias"):
        assert torch.equal(found[key], wanted[key])


def test_a_layer_without_noise_has_silent_noise(edited):
    def change(generator):
        layer = generator.part("synthesis.b8.conv1")
        layer.state["use_noise"] = False
        del layer.state["_parameters"]["noise_strength"], layer.state["_buffers"]["noise_const"]

    found = edited("sg2_a", change).state
    assert found["synthesis.b8.conv1.noise_strength"] == 0
    assert found["synthesis.b8.conv1.noise_const"].shape == (8, 8)


def _residual(generator):
    """resnet: a shortcut per block, to RGB only at the end."""
    for side in (4, 8, 16, 32):
        block = generator.part(f"synthesis.b{side}")
        block.state["architecture"] = "resnet"
        if side < 32:
            del block.state["_modules"]["torgb"]
        if side > 4:
            shape = block.part("conv0").state["_parameters"]["weight"].shape[:2]
            parameters = {"weight": torch.ones(*shape, 1, 1)}
            state = {"_parameters": parameters, "_buffers": {"resample_filter": torch.ones(4, 4)}, "_modules": {}}
            state["_buffers"]["resample_filter"] = block.state["_buffers"]["resample_filter"]
            block.state["_modules"]["skip"] = Persistent("Conv2dLayer", state)


def test_the_residual_architecture_folds_its_shortcuts(edited):
    found = edited("sg2_a", _residual)
    assert found.config.architecture == "resnet"
    assert torch.equal(found.state["synthesis.b8.skip.weight"], torch.full((64, 64, 1, 1), 1 / 8))
    assert "synthesis.b8.torgb.weight" not in found.state


def test_another_resampling_kernel(edited):
    def change(generator):
        for module in generator.part("synthesis").everywhere():
            if "resample_filter" in module.state["_buffers"]:
                taps = torch.tensor([1.0, 4, 6, 4, 1])
                module.state["_buffers"]["resample_filter"] = torch.outer(taps, taps) / 256

    assert edited("sg2_a", change).config.resample_kernel == (1, 4, 6, 4, 1)


def test_radial_filters(edited):
    def change(generator):
        buffers = generator.part("synthesis.L2_52_40").state["_buffers"]
        buffers["down_filter"] = torch.outer(buffers["down_filter"], buffers["down_filter"])

    layer = edited("sg3_t", change).config.layers[2]
    assert (layer.down_taps, layer.down_radial, layer.up_radial) == (12, True, False)


def _attribute(path, name, value):
    return lambda generator: generator.part(path).state.__setitem__(name, value)


def _tensor(path, name, value):
    return lambda generator: generator.part(path).state["_parameters"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        ("sg2_a", _attribute("synthesis.b8.conv0", "conv_clamp", 9), "differ in conv_clamp"),
        ("sg2_a", _attribute("synthesis.b8", "architecture", "orig"), "differ in architecture"),
        ("sg2_a", _attribute("synthesis.b8", "architecture", "unet"), "architecture is 'unet'"),
        ("sg2_a", _attribute("synthesis.b8.conv0", "activation", "relu"), "activation is 'relu'"),
        ("sg2_a", _attribute("synthesis.b8.conv0", "up", 4), "does not upsample"),
        ("sg2_a", _attribute("synthesis.b8.conv0.affine", "weight_gain", 1.0), "gains|multiplier"),
        ("sg2_a", _attribute("synthesis.b8.torgb", "weight_gain", 1.0), "unusual gain"),
        ("sg2_a", _attribute("mapping", "z_dim", None), "z_dim is no reasonable count"),
        ("sg2_a", _attribute("mapping", "z_dim", 63), r"mapping\.fc0\.weight \[64, 64\] instead of \[64, 63\]"),
        ("sg2_a", _attribute("mapping.fc0", "bias_gain", 0.5), "do not belong together"),
        ("sg2_a", _tensor("synthesis.b8.conv0", "weight", None), "is missing"),
        ("sg2_a", _tensor("synthesis.b8.conv0", "bias", None), r"missing, synthesis\.b8\.conv0\.bias"),
        ("sg2_a", _tensor("synthesis.b8.conv0", "bias", "text"), "no tensor, but 'text'"),
        ("sg2_a", _tensor("synthesis.b8.conv0", "bias", torch.full((64,), torch.inf)), "not finite"),
        ("sg2_a", _tensor("synthesis.b8.conv0", "extra", torch.ones(1)), r"no place .*b8\.conv0\.extra"),
        ("sg2_a", lambda g: g.state["_modules"].pop("mapping"), "no part called mapping"),
        ("sg2_a", lambda g: g.part("synthesis").state["_modules"].pop("b8"), "not b4, b8, b16"),
        ("sg2_a", lambda g: g.part("synthesis").state["_modules"].pop("b4"), "neither StyleGAN2 nor StyleGAN3"),
        ("sg2_a", lambda g: g.state.pop("_modules"), "no module of torch"),
        ("sg3_t", _attribute("synthesis.L2_52_40", "padding", [1, 2, 3]), "padding is not 4"),
        ("sg3_t", _attribute("synthesis.L2_52_40", "in_size", np.array([36, 40])), "only square"),
        ("sg3_t", _attribute("synthesis", "layer_names", ["L9"]), "no part called L9"),
        ("sg3_t", _attribute("synthesis", "layer_names", []), "no list of names"),
        ("sg3_t", _attribute("synthesis.L2_52_40", "is_torgb", True), "only layer to RGB"),
        ("xl_stem", lambda g: g.part("mapping").state["_modules"].pop("embed"), "no embedding"),
    ],
)
def test_networks_of_another_kind_are_refused(edited, case, change, words):
    with pytest.raises(WeightsError, match=words):
        edited(case, change)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ({"D": 1, "augment_pipe": None}, "'D', 'augment_pipe', without a generator"),
        ({}, "a dict of nothing"),
        ({"g_ema": {"a": 1}}, "'g_ema', without a generator"),
        (argparse.Namespace(coef_=1), r"not made: argparse\.Namespace"),
        ([1, 2, 3], "its content is a list"),
        (None, "its content is None"),
        ({"G_ema": None}, "G_ema is no module of torch, but None"),
    ],
)
def test_pickles_of_something_else(tmp_path, root, words):
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(root))
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "other.pkl")
