"""The restricted reader gives back what an ordinary pickle holds, without importing or calling anything."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_stylegan.pickles import Dead, Global, Record, StoredArray, StoredTensor, read_pickle

PROTOCOLS = range(2, 6)


@pytest.fixture
def read(tmp_path):
    """An object, or a pickle's bytes -> what the reader makes of it."""

    def write_and_read(content, protocol=4):
        path = tmp_path / "file.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        return read_pickle(path)

    return write_and_read


@pytest.fixture
def stubs(monkeypatch):
    """Makes "module.name" importable, so that pickle writes it by name."""

    def make(path, value):
        module, _, name = path.rpartition(".")
        for part in (module.rpartition(".")[0], module):
            if part and part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        value.__module__, value.__qualname__, value.__name__ = module, name, name
        monkeypatch.setattr(sys.modules[module], name, value, raising=False)
        return value

    return make


class _Call:
    """Pickles as a call that was not made yet."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(read, protocol):
    shared = ["x", {"y": (1, 2)}]
    value = {
        "none": None,
        "flags": [True, False],
        "numbers": [0, -1, 255, 65536, 2**31, -(2**70), 1.5, float("inf")],
        "texts": ["", "naïve", "😀" * 300],
        "bytes": [b"", b"\x00\xff", bytes(range(256)) * 40],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), tuple(range(10))],
        "sets": [set(), {1, 2}],
        ("a", (1, None)): "nested key",
        "twice": [shared, shared],
        "long": list(range(2500)),
    }
    found = read(value, protocol)
    found["bytes"] = [bytes(part) for part in found["bytes"]]
    assert found == value
    assert found["twice"][0] is found["twice"][1]


def test_a_list_that_holds_itself_comes_back(read):
    value: list = [1]
    value.append(value)
    found = read(value)
    assert found[0] == 1
    assert found[1] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool],
)
def test_tensors_of_every_dtype_come_back(read, dtype, protocol):
    value = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    found = read({"t": value}, protocol)["t"]
    assert isinstance(found, StoredTensor)
    assert found.dtype == dtype
    assert torch.equal(found.load(), value)


def test_shapes_strides_and_offsets_come_back(read):
    base = torch.arange(120.0)
    values = {
        "single": torch.tensor(2.5),
        "empty": torch.empty(0),
        "empty with axes": torch.empty(3, 0, 2),
        "transposed": base.reshape(10, 12).T,
        "channels last": torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "part": base[17:50:3],
        "expanded": torch.ones(1).expand(1, 1),
        "overlapping": base.as_strided((4, 3), (2, 1), 5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    found = read(values)
    for name, value in values.items():
        loaded = found[name].load()
        assert torch.equal(loaded, value.detach()), name
        assert loaded.is_contiguous(), name
    assert found["parameter"].shape == (2,)


def _stored_on(value, device):
    """How torch reduces a tensor, its storage said to be on `device`."""
    stream = io.BytesIO()
    torch.save(torch.storage.TypedStorage(wrap_storage=value.untyped_storage(), dtype=value.dtype, _internal=True), stream,
               _use_new_zipfile_serialization=False)  # fmt: skip
    named = stream.getvalue().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00" + device.encode())
    assert device.encode() in named
    return _Call(torch.storage._load_from_bytes, named)


def test_the_device_does_not_matter_and_a_storage_may_be_shared(read):
    base = torch.arange(12.0)
    storage = _stored_on(base, "cuda:1")
    rebuild = torch._utils._rebuild_tensor_v2
    found = read(
        [
            _Call(rebuild, storage, 2, (2, 3), (3, 1), False, OrderedDict()),
            _Call(rebuild, storage, 0, (12,), (1,), False, OrderedDict()),
        ]
    )
    assert torch.equal(found[0].load(), base[2:8].reshape(2, 3))
    assert torch.equal(found[1].load(), base)
    assert found[0].storage is found[1].storage


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_comes_back_as_numbers(read, protocol):
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">i4"),
        "flags": np.array([True, False]),
        "single": np.array(1.5, np.float16),
        "none": np.empty((0, 3)),
    }
    scalars = {"f": np.float64(0.1), "i": np.int32(-5), "b": np.bool_(True)}
    found = read({"arrays": arrays, "scalars": scalars}, protocol)
    for name, value in arrays.items():
        assert isinstance(found["arrays"][name], StoredArray)
        np.testing.assert_array_equal(found["arrays"][name].load(), value)
    assert found["scalars"] == {"f": 0.1, "i": -5, "b": True}
    assert found["scalars"]["b"] is True


def test_arrays_of_anything_but_numbers_stay_shut(read):
    found = read([np.array(["a", None], dtype=object), np.array(["text"]), np.zeros(2, [("a", "f4"), ("b", "i4")])])
    for array in found:
        with pytest.raises(ValueError, match="dtype is not a plain number"):
            array.load()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_records_and_unknown_classes(read, stubs, protocol):
    record = stubs("torch_utils.persistence._reconstruct_persistent_obj", lambda meta: None)
    easy = stubs("dnnlib.util.EasyDict", type("EasyDict", (dict,), {}))
    other = stubs("somewhere.Other", type("Other", (), {}))
    thing = other()
    thing.size = 3
    meta = easy(type="class", version=6, module_src="raise SystemExit", class_name="Net", state={"a": 1, "b": thing})
    found = read(_Call(record, meta), protocol)
    assert isinstance(found, Record)
    assert (found.class_name, found.state["a"]) == ("Net", 1)
    dead = found.state["b"]
    assert isinstance(dead, Dead)
    assert (dead.name, dead.state) == ("somewhere.Other", {"size": 3})
    assert "raise SystemExit" not in repr(vars(found))


def test_what_dill_writes(read, stubs):
    types_by_name = stubs("dill._dill._load_type", lambda name: None)
    array = stubs("dill._dill._create_array", lambda *args: None)
    function = stubs("dill._dill._create_function", lambda *args: None)
    values = np.arange(3.0)
    build, args, state = values.__reduce__()
    found = read(
        {
            "set": _Call(_Named(types_by_name, "set"), [1, 2]),
            "array": _Call(array, build, args, state, None),
            "function": _Call(function, b"code", {"__name__": "x"}, state={"__doc__": None}),
        }
    )
    assert found["set"] == {1, 2}
    np.testing.assert_array_equal(found["array"].load(), values)
    assert isinstance(found["function"], Dead)


class _Named:
    """dill's way to name a type: a call that gives it. Callable, because pickle asks for that."""

    def __init__(self, function, name):
        self.parts = (function, (name,))

    def __call__(self):
        raise AssertionError

    def __reduce__(self):
        return self.parts


def test_instances_of_unknown_lists_and_dicts_are_inert(read, stubs):
    strange = stubs("somewhere.List", type("List", (list,), {}))
    odd = stubs("somewhere.Dict", type("Dict", (dict,), {}))
    found = read([strange([1, 2]), odd(a=1), strange])
    assert [type(item) for item in found] == [Dead, Dead, Global]


@pytest.mark.parametrize("archive", [True, False])
def test_both_layouts_of_torch_save(tmp_path, archive):
    shared = torch.arange(10.0)
    content = {"a": shared[2:5], "b": OrderedDict(c=shared.half(), d=shared.view(2, 5).T), "e": [1, "two"]}
    path = tmp_path / "file.bin"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    found = read_pickle(path)
    assert found["e"] == [1, "two"]
    assert torch.equal(found["a"].load(), content["a"])
    assert torch.equal(found["b"]["c"].load(), content["b"]["c"])
    assert torch.equal(found["b"]["d"].load(), content["b"]["d"])
    assert found["a"].storage.data is not None
    assert len(found["a"].storage.data) == 40


def test_a_big_endian_archive_is_refused(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as source, zipfile.ZipFile(tmp_path / "big.pt", "w") as target:
        for name in source.namelist():
            target.writestr(name, b"big" if name.endswith("byteorder") else source.read(name))
    with pytest.raises(WeightsError, match="big-endian"):
        read_pickle(tmp_path / "big.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"\xff\xd8\xff\xe0", "byte 0"),
    ],
)
def test_files_of_another_kind(tmp_path, content, words):
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        read_pickle(path)
    assert "net.pkl" in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        read_pickle(tmp_path / "none.pkl")
    with pytest.raises(WeightsError, match="cannot read"):
        read_pickle(tmp_path)


def test_the_place_of_the_damage_is_named(read):
    data = pickle.dumps({"a": [1, 2, 3], "b": "x" * 50}, protocol=2)
    with pytest.raises(WeightsError, match=r"byte \d+, at or after \w+: .*Nothing in it was executed"):
        read(data[:-10])


def test_a_file_stays_on_the_disk_until_a_tensor_is_loaded(tmp_path):
    path = Path(tmp_path / "large.pkl")
    path.write_bytes(pickle.dumps({"t": torch.zeros(100_000)}, protocol=4))
    found = read_pickle(path)["t"]
    assert found.storage.data.obj is not None
    assert found.storage.data.readonly
