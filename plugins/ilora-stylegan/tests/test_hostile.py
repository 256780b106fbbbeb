"""Hostile and broken files: nothing runs, memory stays bounded, and there is one clear error.

A canary is a file that a payload would write. `test_the_canaries_sing` shows that ordinary unpickling does write it.
"""

import builtins
import os
import pickle
import re
import resource
import struct
import tracemalloc

import pytest

from ilora_core.errors import WeightsError
from ilora_stylegan.checkpoints import read_checkpoint
from ilora_stylegan.pickles import read_pickle

MEGABYTE = 1 << 20
BOUND = 64 * MEGABYTE
SENTINEL = "ilora_hostile_sentinel"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def blob(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(path: str) -> bytes:
    return "c{}\n{}\n".format(*path.rsplit(".", 1)).encode()


def call(path: str, *args: bytes) -> bytes:
    return name(path) + tuple_of(*args) + b"R"


def dict_of(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def stream(kind: bytes, count: int, data: bytes, *, root: bytes | None = None) -> bytes:
    """torch.save's layout of one storage."""
    identity = tuple_of(text("storage"), kind, text("0"), text("cpu"), number(count)) + b"Q"
    parts = [number(0x1950A86A20F9469CFC6C), number(1001), dict_of(little_endian=b"\x88"), root or identity]
    parts.append(b"](" + text("0") + b"e")
    return b"".join(b"\x80\x02" + part + b"." for part in parts) + struct.pack("<q", min(count, 2**62)) + data


def storage(count: int = 4, data: bytes = bytes(16), kind: str = "torch.FloatStorage") -> bytes:
    return call("torch.storage._load_from_bytes", blob(stream(name(kind), count, data)))


def tensor(offset: bytes = number(0), shape: bytes = tuple_of(number(4)), stride: bytes = tuple_of(number(1)), **of):
    return call("torch._utils._rebuild_tensor_v2", storage(**of), offset, shape, stride, b"\x89", b"}")


def array(dtype: bytes, shape: bytes = tuple_of(number(2)), data: bytes = blob(bytes(8))) -> bytes:
    empty = call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), tuple_of(number(0)), blob(b"b"))
    return empty + tuple_of(number(1), shape, dtype, b"\x89", data) + b"b"


def dtype(code: str = "f4", names: bytes = b"N", order: str = "<") -> bytes:
    made = call("numpy.dtype", text(code), b"\x89", b"\x88")
    return made + tuple_of(number(3), text(order), b"N", names, b"N", number(-1), number(-1), number(0)) + b"b"


WRITE = "__import__('pathlib').Path({path!r}).write_text('sung')"
RUN = f"__import__('builtins').{SENTINEL} = 1"


def inert(canary) -> dict[str, bytes]:
    """Payloads that are well-formed: they become nodes that do nothing. {path!r} is the canary."""
    write = text(WRITE.format(path=str(canary)))
    touch = text(f"touch {canary}")
    opened = call("builtins.open", text(str(canary)), text("w"))
    return {
        "os.system": call("os.system", touch),
        "posix.system": call("posix.system", touch),
        "subprocess": call("subprocess.check_output", b"](" + text("touch") + text(str(canary)) + b"e"),
        "eval": call("builtins.eval", write),
        "exec": call("builtins.exec", write),
        "python 2's eval": call("__builtin__.eval", write),
        "exec sets a global": call("builtins.exec", text(RUN)),
        "compile, then call": name("builtins.eval") + tuple_of(call("builtins.compile", write, text("x"), text("eval"))) + b"R",
        "open": opened,
        "nested in an allowed call": call("torch._utils._rebuild_parameter", call("os.system", touch), b"\x88", b"}"),
        "partial": call("functools.partial", name("os.system"), touch) + b")R",
        "getattr": name("builtins.getattr") + tuple_of(call("builtins.__import__", text("os")), text("system")) + b"R"
        + tuple_of(touch) + b"R",
        "attrgetter": call("operator.attrgetter", text("system")) + tuple_of(name("builtins.os")) + b"R",
        "methodcaller": call("operator.methodcaller", text("system"), touch) + tuple_of(name("os.path")) + b"R",
        "copyreg": call("copyreg._reconstructor", name("os.system"), name("builtins.object"), touch),
        "copyreg adds an extension": call("copyreg.add_extension", text("os"), text("system"), number(77)),
        "NEWOBJ": name("os.system") + tuple_of(touch) + b"\x81",
        "NEWOBJ_EX": name("os.system") + tuple_of(touch) + b"}\x92",
        "INST": b"(" + touch + b"ios\nsystem\n",
        "OBJ": b"(" + name("os.system") + touch + b"o",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + tuple_of(touch) + b"R",
        "__setstate__ in a state": call("somewhere.Thing") + dict_of(__setstate__=call("os.system", touch)) + b"b",
        "__reduce__ of a state": call("somewhere.Thing") + tuple_of(b"N", dict_of(__class__=name("os.system"))) + b"b",
        "attributes of a dict": call("collections.OrderedDict") + dict_of(__class__=name("os.system")) + b"b",
        "attributes of a function": name("os.system") + b")R" + dict_of(__code__=touch) + b"b",
        "runpy": call("runpy.run_path", text(str(canary))),
        "dill loads a type": call("dill._dill._load_type", text("os")) + tuple_of(touch) + b"R",
        "dill's eval": call("dill._dill._eval_repr", write),
        "dill's function": call("dill._dill._create_function", call("dill._dill._create_code", write), b"}") + b")R",
        "dill's type": call("dill._dill._create_type", name("builtins.type"), text("X"), b")", b"}") + b")R",
        "dill's array of a call": call("dill._dill._create_array", name("os.system"), tuple_of(touch), b"N"),
        "pickle in a pickle": call("pickle.loads", blob(pickle.dumps(_System(str(canary))))),
        "torch.load": call("torch.load", opened),
        "numpy reconstructs a class": call("numpy.core.multiarray._reconstruct", name("os.system"), touch, touch),
        "our own names": call("ilora_stylegan.pickles.read_pickle", text(str(canary))),
        "a module's source": call(
            "torch_utils.persistence._reconstruct_persistent_obj",
            dict_of(type=text("class"), class_name=text("G"), module_src=write, state=b"}"),
        ),
        "an evil storage": call(
            "torch.storage._load_from_bytes",
            blob(stream(b"N", 1, bytes(4), root=call("os.system", touch)).replace(b"](" + text("0") + b"e", b"]")),
        ),
        "numpy objects": array(call("numpy.dtype", text("O8")), data=b"](" + touch + b"e"),
        "numpy scalar of an object": call("numpy.core.multiarray.scalar", call("numpy.dtype", text("O8")), opened),
        "a tensor of unknown numbers": call("torch._utils._rebuild_tensor_v2", opened, number(0), b")", b")", b"\x89", b"}"),
        "billion laughs": b"K\x01" + b"2\x86" * 200,
        "deep lists": b"]" * 20_000 + b"a" * 19_999,
        "deep tuples": b")" + b"\x85" * 20_000,
        "a far memo": b"Nr\xff\xff\xff\xff",
    }  # fmt: skip


class _System:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def broken() -> dict[str, bytes]:
    """Payloads that `read_pickle` refuses."""
    deep = b")" + b"\x85" * 100_000
    huge = struct.pack("<Q", 2**62)
    return {
        "protocol 99": b"\x80\x63N",
        "unknown instruction": b"\xff",
        "extension 1": b"\x82\x01",
        "extension 2": b"\x83\x01\x01",
        "extension 4": b"\x84\x01\x01\x01\x01",
        "buffer out of band": b"\x97",
        "text longer than the file": b"\x8d" + huge + b"abc",
        "bytes longer than the file": b"\x8e" + huge + b"abc",
        "byte array longer than the file": b"\x96" + huge + b"abc",
        "integer longer than the file": b"\x8b\xff\xff\xff\x7f" + b"\x01" * 10,
        "integer of negative length": b"\x8b\xff\xff\xff\xff",
        "integer of a megabyte": b"\x8b" + struct.pack("<i", MEGABYTE) + b"\x7f" * MEGABYTE,
        "text integer of a megabyte": b"L" + b"9" * MEGABYTE + b"L\n",
        "line without an end": b"c" + b"a" * (2 * MEGABYTE),
        "text that is no UTF-8": b"X\x02\x00\x00\x00\xff\xfe",
        "name that is no text": b"K\x01K\x02\x93",
        "empty stack": b"0",
        "reduce on nothing": b"R",
        "tuple without a mark": b"t",
        "memory of nothing": b"h\x07",
        "key without value": b"}(" + text("a") + b"u",
        "items of a number": b"K\x01(K\x02e",
        "keys of a list": b"](" + text("a") + b"Nu",
        "members of a list": b"](K\x01\x90",
        "call of a number": b"K\x01)R",
        "arguments that are no tuple": name("os.system") + b"]R",
        "list as a key": b"}]Ns",
        "deep tuple as a key": b"}" + deep + b"Ns",
        "laughing tuple as a key": b"}K\x01" + b"2\x86" * 200 + b"Ns",
        "laughing tuple in a set": b"\x8f(K\x01" + b"2\x86" * 200 + b"\x90",
        "attributes of a list": b"]" + dict_of(append=b"N") + b"b",
        "attributes of a tensor": tensor() + dict_of(load=b"N") + b"b",
        "persistent id": text("storage") + b"Q",
        "persistent text": b"Pstorage\n",
        "ordered dict of a text": call("collections.OrderedDict", text("ab")),
        "ordered dict of singles": call("collections.OrderedDict", b"](" + text("ab") + b"e"),
        "set of a text": call("builtins.set", text("ab")),
        "copies without end": b"](" + b"N" * 50_000 + b"eq\x010" + (name("builtins.set") + b"h\x01\x85R0") * 50 + b"N",
        "encode with a codec": call("_codecs.encode", text("x"), text("rot13")),
        "encode a number": call("_codecs.encode", number(1), text("latin1")),
        "encode what does not fit": call("_codecs.encode", text("😀"), text("latin1")),
        "encode without end": text("a" * MEGABYTE) + b"q\x010" + call("_codecs.encode", b"h\x01", text("latin1")) * 400,
        "storage of nothing": call("torch.storage._load_from_bytes", blob(b"")),
        "storage of garbage": call("torch.storage._load_from_bytes", blob(b"garbage")),
        "storage of a text": call("torch.storage._load_from_bytes", text("x")),
        "storage that promises more": storage(count=2**38),
        "storage that promises absurdly": storage(count=2**100),
        "storage of negative length": storage(count=-4),
        "storage of unknown numbers": storage(kind="torch.ComplexFloatStorage"),
        "storage of a module": storage(kind="os.FloatStorage"),
        "storage of too few bytes": storage(data=bytes(15)),
        "negative stride": tensor(stride=tuple_of(number(-1))),
        "negative offset": tensor(offset=number(-1)),
        "offset out of bounds": tensor(offset=number(1)),
        "stride out of bounds": tensor(stride=tuple_of(number(2))),
        "tensor larger than its storage": tensor(shape=tuple_of(number(2**40)), stride=tuple_of(number(0))),
        "negative shape": tensor(shape=tuple_of(number(-4))),
        "shape and stride apart": tensor(stride=b")"),
        "shape of texts": tensor(shape=tuple_of(text("a"))),
        "a thousand axes": tensor(shape=tuple_of(*[number(1)] * 1000), stride=tuple_of(*[number(1)] * 1000)),
        "tensor without arguments": call("torch._utils._rebuild_tensor_v2"),
        "array of too few bytes": array(dtype(), data=blob(bytes(7))),
        "array of negative shape": array(dtype(), shape=tuple_of(number(-2))),
        "array of absurd shape": array(dtype(), shape=tuple_of(number(2**60))),
        "array of text": array(dtype(), data=text("x" * 8)),
        "array without state": array(dtype()) + b"Nb",
        "dtype with fields": dtype(names=tuple_of(text("a"))),
        "dtype of unknown order": dtype(order="?"),
        "scalar of too few bytes": call("numpy.core.multiarray.scalar", dtype(), blob(b"abc")),
        "record without state": call("torch_utils.persistence._reconstruct_persistent_obj", dict_of(class_name=text("G"))),
        "record of a number": call("torch_utils.persistence._reconstruct_persistent_obj", number(1)),
        "dill's array of nothing": call("dill._dill._create_array"),
    }  # fmt: skip


@pytest.fixture
def canary(tmp_path):
    """A path that must not exist at the end; nor must the sentinel."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()
    assert not hasattr(builtins, SENTINEL)


def test_the_canaries_sing(tmp_path):
    """Ordinary unpickling runs these payloads, so their silence below means something."""
    for case in ("os.system", "eval", "exec", "getattr", "INST", "OBJ", "pickle in a pickle"):
        path = tmp_path / case.replace(" ", "_")
        pickle.loads(inert(path)[case] + b".")
        assert path.exists(), case


@pytest.mark.parametrize("case", inert("x"))
def test_calls_become_nodes(tmp_path, canary, case):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02" + inert(canary)[case] + b".")
    read_pickle(path)  # at most a node
    with pytest.raises(WeightsError, match=r"evil\.pkl"):
        read_checkpoint(path)


@pytest.mark.parametrize("case", inert("x"))
def test_calls_beside_a_generator_are_ignored(tmp_path, canary, oracle, case):
    """As the discriminator of an honest file whose author is not."""
    whole = oracle("sg3_t").path.read_bytes()
    path = tmp_path / "net.pkl"
    path.write_bytes(whole[:-1] + text("D") + inert(canary)[case] + b"s.")
    assert read_checkpoint(path).config.resolution == 64


@pytest.mark.parametrize("case", inert("x"))
def test_calls_as_the_generator_are_refused(tmp_path, canary, case):
    path = tmp_path / "evil.pkl"
    path.write_bytes(dict_of(G_ema=inert(canary)[case]) + b".")
    with pytest.raises(WeightsError, match=r"evil\.pkl"):
        read_checkpoint(path)


BROKEN = broken()


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(tmp_path, canary, case):
    path = tmp_path / "broken.pkl"
    path.write_bytes(BROKEN[case] + b".")
    with pytest.raises(WeightsError, match=r"broken\.pkl cannot be read as a checkpoint: byte \d+") as caught:
        read_checkpoint(path)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "case", [case for case in BROKEN if re.search("longer|promises|absurd|larger|without end|laugh", case)]
)
def test_what_is_declared_is_not_allocated(tmp_path, case):
    """Peak memory: of Python's objects, and of the process."""
    path = tmp_path / "greedy.pkl"
    path.write_bytes(BROKEN[case] + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tracemalloc.start()
    with pytest.raises(WeightsError):
        read_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BOUND
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < BOUND
