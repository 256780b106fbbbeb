"""Reading a checkpoint's pickle as data. Nothing in it is executed, imported or called.

    read_pickle(path)   a plain pickle, or a file of torch.save in either layout, by its content

Tensors and arrays stay in the file until `load()`; what is not on a short list of constructors becomes a `Dead` node. See
`pickle_machine` for why the work is bounded by the file's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ilora_core.errors import WeightsError
from ilora_stylegan.file_bytes import Reader, window
from ilora_stylegan.pickle_builders import CHECKPOINT, STATE_DICT
from ilora_stylegan.pickle_machine import Machine
from ilora_stylegan.pickle_nodes import Broken, Dead, Global, Record, StoredArray, StoredTensor
from ilora_stylegan.torch_files import MAGIC, read_archive, read_stream

__all__ = ["Broken", "Dead", "Global", "Record", "StoredArray", "StoredTensor", "read_pickle"]

_HINTS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself: run `git lfs pull`"),
    (b"<", "it is a web page, not the file itself: download it again, by hand if the site asks for consent"),
    (b"\x1f\x8b", "it is compressed: unpack it with gunzip"),
)


def read_pickle(path: Path) -> Any:
    """The file's contents: plain Python values, `Record`, `Dead`, `Global`, `StoredTensor`, `StoredArray`.

    Raises WeightsError for a file that is missing, damaged or hostile; the message says where it breaks.
    """
    data = window(path)
    for start, hint in _HINTS:
        if bytes(data[:64]).lstrip().startswith(start):
            raise WeightsError(f"{path} is no checkpoint: {hint}.")
    try:
        return _contents(data)
    except Exception as error:  # damage shows in many ways; each means the same to the reader of the message
        cause = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {str(error)[:200]}"
        raise WeightsError(
            f"{path} cannot be read as a checkpoint: {cause}. Nothing in it was executed. The file is damaged or of another "
            "kind: compare its size and SHA-256 with the publisher's, and fetch it again."
        ) from error


def _contents(data: memoryview) -> Any:
    if bytes(data[:4]) == b"PK\x03\x04":
        return read_archive(data, STATE_DICT)
    root = Machine(CHECKPOINT, allowance=len(data)).run(Reader(data))
    return read_stream(data, STATE_DICT) if type(root) is int and root == MAGIC else root
