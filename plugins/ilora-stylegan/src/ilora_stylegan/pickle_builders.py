"""The few constructors that checkpoints need, each with a counterpart that only arranges checked data.

This table is the whole of what a pickle can bring about. What is not in it, or comes with arguments of another form than its
own writer gives, becomes `Dead` or an error; nothing is looked up in a module.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ilora_stylegan.pickle_machine import Builder, Machine
from ilora_stylegan.pickle_nodes import (
    Broken,
    Dead,
    DType,
    Global,
    Record,
    Storage,
    StoredArray,
    StoredTensor,
    check_key,
)

__all__ = ["CHECKPOINT", "STATE_DICT", "storage_from_bytes"]


def _mapping(machine: Machine, args: tuple[Any, ...]) -> Any:
    """OrderedDict() and EasyDict(), filled later, or from pairs as Python 2 wrote them."""
    if not args:
        return {}
    pairs = list(args[0].items()) if isinstance(args[0], dict) else args[0]
    if len(args) > 1 or not isinstance(pairs, list):
        raise Broken("an ordered dict is made of something other than pairs")
    machine.pay(len(pairs))
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise Broken("an ordered dict is made of something other than pairs")
    return {check_key(key): value for key, value in pairs}


def _set(machine: Machine, args: tuple[Any, ...]) -> Any:
    items = args[0] if args else []
    if len(args) > 1 or not isinstance(items, list | tuple):
        raise Broken("a set is made of something other than a list")
    machine.pay(len(items))
    return set(map(check_key, items))


def _encoded(machine: Machine, args: tuple[Any, ...]) -> Any:
    """Bytes, as protocol 2 writes them: a text and the word latin1."""
    if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
        raise Broken("bytes are written in an unknown way")
    machine.pay(len(args[0]))
    return args[0].encode("latin-1")


def _no_bytes(machine: Machine, args: tuple[Any, ...]) -> Any:
    """bytes() is how protocol 2 writes none."""
    if args:
        raise Broken("bytes are written in an unknown way")
    return b""


def _record(machine: Machine, args: tuple[Any, ...]) -> Any:
    meta = args[0] if len(args) == 1 else None
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise Broken("a persistent object has no class name")
    if meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Broken("a persistent object has no state")
    return Record(meta["class_name"], meta["state"])


def _old_style(machine: Machine, args: tuple[Any, ...]) -> Any:
    """copyreg._reconstructor(class, base, value), of protocols 0 and 1."""
    return machine.call(args[0], ()) if args and isinstance(args[0], Global) else Dead(_RECONSTRUCTOR, args)


def _dill_type(machine: Machine, args: tuple[Any, ...]) -> Any:
    """dill's short names for built-in types; still only a name."""
    if len(args) != 1 or not isinstance(args[0], str):
        raise Broken("dill names a type by something other than a text")
    return Global("builtins", args[0])


def _dill_array(machine: Machine, args: tuple[Any, ...]) -> Any:
    """dill's (constructor, its arguments, state, attributes)."""
    if len(args) not in (3, 4):
        raise Broken("dill writes an array in an unknown way")
    array = machine.call(args[0], args[1])
    if not isinstance(array, StoredArray):
        return Dead(Global("dill._dill", "_create_array"), args)
    machine.fill(array, args[2])
    return array


def _array(machine: Machine, args: tuple[Any, ...]) -> Any:
    """An empty array, whose contents come as its state."""
    plain = len(args) == 3 and isinstance(args[0], Global) and args[0].name == "ndarray" and args[1] == (0,)
    return StoredArray() if plain else Dead(Global("numpy", "_reconstruct"), args)


def _array_from_buffer(machine: Machine, args: tuple[Any, ...]) -> Any:
    """Protocol 5: (bytes, dtype, shape, order)."""
    if len(args) != 4:
        raise Broken("a numpy array is written in an unknown way")
    array = StoredArray()
    machine.fill(array, (args[2], args[1], args[3] == "F", args[0]))
    return array


def _dtype(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (DType.known(args[0]) if args else None) or Dead(Global("numpy", "dtype"), args)


def _scalar(machine: Machine, args: tuple[Any, ...]) -> Any:
    """A plain Python number."""
    if len(args) != 2 or not isinstance(args[0], DType) or not isinstance(args[1], bytes):
        return Dead(Global("numpy", "scalar"), args)
    dtype = args[0].numpy()
    if len(args[1]) != dtype.itemsize:
        raise Broken(f"a numpy scalar of {dtype} has {len(args[1])} bytes")
    return np.frombuffer(args[1], dtype)[0].item()


def storage_from_bytes(machine: Machine, args: tuple[Any, ...]) -> Any:
    """torch.storage._load_from_bytes: a torch.save stream of one storage, read with an empty table of constructors."""
    from ilora_stylegan.torch_files import read_stream

    if len(args) != 1 or not isinstance(args[0], bytes | bytearray | memoryview):
        raise Broken("a storage is not made of bytes")
    machine.pay(len(args[0]))
    root = read_stream(memoryview(args[0]), {})
    return root if isinstance(root, Storage | Dead) else Dead(_LOAD_FROM_BYTES, ())


def _tensor(machine: Machine, args: tuple[Any, ...]) -> Any:
    """(storage, offset, shape, stride, requires_grad, hooks, …)."""
    if len(args) < 4:
        raise Broken("a tensor is written in an unknown way")
    if not isinstance(args[0], Storage):  # numbers of an unknown kind
        return Dead(Global("torch._utils", "_rebuild_tensor_v2"), args)
    return StoredTensor(*args[:4])


def _parameter(machine: Machine, args: tuple[Any, ...]) -> Any:
    """The tensor itself: what makes it a parameter is where its module keeps it."""
    if not args:
        raise Broken("a parameter without a tensor")
    return args[0]


_RECONSTRUCTOR = Global("copyreg", "_reconstructor")
_LOAD_FROM_BYTES = Global("torch.storage", "_load_from_bytes")
_TENSORS: dict[tuple[str, str], Builder] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("collections", "OrderedDict"): _mapping,
}
STATE_DICT = _TENSORS
"""What torch.save needs for dicts of tensors."""

CHECKPOINT: dict[tuple[str, str], Builder] = {
    **_TENSORS,
    ("dnnlib.util", "EasyDict"): _mapping,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _record,
    ("torch.storage", "_load_from_bytes"): storage_from_bytes,
    ("copyreg", "_reconstructor"): _old_style,
    ("copy_reg", "_reconstructor"): _old_style,
    ("_codecs", "encode"): _encoded,
    **{(module, "set"): _set for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
    **{(module, "_load_type"): _dill_type for module in ("dill._dill", "dill.dill")},
    **{(module, "_create_array"): _dill_array for module in ("dill._dill", "dill.dill")},
    **{(f"{numpy}.multiarray", "_reconstruct"): _array for numpy in ("numpy.core", "numpy._core")},
    **{(f"{numpy}.multiarray", "scalar"): _scalar for numpy in ("numpy.core", "numpy._core")},
    **{(f"{numpy}.numeric", "_frombuffer"): _array_from_buffer for numpy in ("numpy.core", "numpy._core")},
    ("numpy", "dtype"): _dtype,
}
"""What NVIDIA's pickles need, plain or by dill, in protocols 0 to 5."""
