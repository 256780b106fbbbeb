"""Reading checkpoints: what training tools leave in them, what an attacker might, and what is broken."""

import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from ilora_core.checkpoints import LEFTOVERS, read_checkpoint, read_tensors
from ilora_core.errors import WeightsError
from ilora_core.testing.foreign import foreign_class

LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


class _Attack:
    """Pickles as a call that would leave a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _is_the_state(found) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "legacy", "safetensors"])
def test_every_wrapping_gives_the_same_tensors(tmp_path, wrapping):
    path = tmp_path / ("w.safetensors" if wrapping == "safetensors" else "w.pth")
    if wrapping == "safetensors":
        save_file(STATE, path)
    else:
        data = {"state_dict": STATE, "epoch": 3} if wrapping == "state_dict" else STATE
        torch.save(data, path, _use_new_zipfile_serialization=wrapping != "legacy")
    assert _is_the_state(read_tensors(path))


def test_tensors_lie_where_one_says_and_nothing_else_is_one(tmp_path):
    torch.save({"model": {**STATE, 7: torch.zeros(1), "epoch": 3}, "optimizer": None}, tmp_path / "w.pt")
    assert _is_the_state(read_tensors(tmp_path / "w.pt", under="model"))
    assert read_tensors(tmp_path / "w.pt") == {}
    torch.save([1, 2], tmp_path / "list.pt")
    assert read_tensors(tmp_path / "list.pt") == {}
    assert read_checkpoint(tmp_path / "list.pt") == [1, 2]


def test_classes_that_lightning_leaves_do_not_stop_it_and_run_nothing(tmp_path):
    ran, path = [], tmp_path / "last.ckpt"
    with foreign_class(LIGHTNING) as callback, foreign_class("omegaconf.dictconfig.DictConfig") as settings:
        settings.__setstate__ = lambda self, state: ran.append(state)
        instance = settings()
        instance.depth = 3
        torch.save(
            {"callbacks": {callback: {"best": torch.tensor(0.5)}, settings: instance}, "state_dict": STATE}, path
        )
        assert _is_the_state(read_tensors(path))  # also where the classes are installed
    assert _is_the_state(read_tensors(path))
    assert not ran
    with pytest.raises(WeightsError, match=r"holds more than weights.*omegaconf\.dictconfig\.DictConfig"):
        read_tensors(path, leftovers=())


def test_another_class_is_refused_by_name_unless_it_is_expected(tmp_path):
    path = tmp_path / "last.ckpt"
    with foreign_class("somebodys.code.Settings") as kind:
        torch.save({"state_dict": STATE, "settings": kind()}, path)
    with pytest.raises(WeightsError, match=r"last\.ckpt holds more than weights.*somebodys\.code\.Settings.*Do not"):
        read_tensors(path)
    assert _is_the_state(read_tensors(path, leftovers=(*LEFTOVERS, "somebodys.")))
    assert _is_the_state(read_tensors(path, leftovers=("somebodys.code.Settings",)))
    assert _is_the_state(read_tensors(path, strangers=True))
    with pytest.raises(WeightsError, match="somebodys"):  # a name is not the beginning of one
        read_tensors(path, leftovers=("somebodys.code.Set", "somebodys"))


def test_old_files_are_known_by_the_usual_names_alone(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": STATE, "hp": argparse.Namespace(lr=1)}, path, _use_new_zipfile_serialization=False)
    assert _is_the_state(read_tensors(path, strangers=True))
    with pytest.raises(WeightsError, match=r"asks to run argparse\.Namespace"):
        read_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("function", ["system", "eval"])
def test_a_checkpoint_that_would_run_something_is_refused_unrun(tmp_path, function, top, zipped):
    mark, path = tmp_path / "ran", tmp_path / "last.ckpt"
    call = {"system": (os.system, f"touch {mark}"), "eval": (eval, f"open({str(mark)!r}, 'w')")}[function]
    data = _Attack(*call) if top else {"state_dict": STATE, "callbacks": {"x": _Attack(*call)}}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    for options in ({}, {"strangers": True}, {"leftovers": (*LEFTOVERS, "posix.", "nt.", "builtins.", "__builtin__.")}):
        with pytest.raises(WeightsError, match=rf"last\.ckpt holds more than weights.*{function}.*Do not tr") as caught:
            read_tensors(path, **options)
        assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()


def test_a_plain_pickle_is_no_checkpoint(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    for data in ({"state_dict": {}}, {"state_dict": _Attack(os.system, f"touch {mark}")}):
        path.write_bytes(pickle.dumps(data))
        with pytest.raises(WeightsError, match=r"w\.pth"):
            read_tensors(path, strangers=True)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_half_a_file_is_called_incomplete(tmp_path, suffix):
    whole, half = tmp_path / f"whole{suffix}", tmp_path / f"half{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(STATE, whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(WeightsError, match=rf"half\{suffix} cannot be read: .*[^.]\. It is .*download it again\.$"):
        read_tensors(half)


def test_what_is_not_there_or_no_checkpoint_is_one_clear_line(tmp_path):
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"text\.pt cannot be read") as caught:
        read_tensors(tmp_path / "text.pt")
    assert len(str(caught.value).splitlines()) == 1
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(WeightsError, match=f"there is no file {path}"):
            read_tensors(path)
