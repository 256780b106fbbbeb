"""Networks from a folder: what is refused, the libraries' bars, and what a fingerprint tells apart."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ilora_core.errors import WeightsError
from ilora_core.pretrained import fingerprint, load_pretrained, misfits, no_progress_bars


def kind(*, library="diffusers.models", error=None, **report):
    """A class whose `from_pretrained` gives this report, or raises; `asked` are its arguments."""

    def from_pretrained(folder, **options):
        asked.update(folder=folder, **options)
        if error:
            raise error
        return nn.Linear(2, 2), report

    asked = {}
    return type("Net", (), {"__module__": library, "from_pretrained": from_pretrained, "asked": asked})


def test_it_comes_from_local_files_as_float32_in_eval_mode(tmp_path):
    made = kind(missing_keys=[], unexpected_keys=["surplus"])
    network = load_pretrained(made, tmp_path, options={"variant": "fp16"})
    assert not network.training
    usual = {"folder": tmp_path, "output_loading_info": True, "local_files_only": True}
    assert made.asked == {**usual, "torch_dtype": torch.float32, "variant": "fp16"}
    newer = type("Ours", (kind(library="transformers.models.clip", missing_keys=set()),), {"__module__": "ours"})
    load_pretrained(newer, tmp_path)
    assert newer.asked == {**usual, "dtype": torch.float32}


def test_missing_tensors_are_refused_and_others_where_one_says_so(tmp_path):
    with pytest.raises(WeightsError, match=rf"{tmp_path} lacks 2 tensors, a\.bias among them"):
        load_pretrained(kind(missing_keys={"b.bias", "a.bias"}), tmp_path)
    with pytest.raises(WeightsError, match=rf"{tmp_path} has 1 tensors too many, x among them"):
        load_pretrained(kind(missing_keys=[], unexpected_keys=["x"]), tmp_path, exact=True)
    with pytest.raises(WeightsError, match=rf"cannot load {tmp_path}: broken\. The files may be incomplete"):
        load_pretrained(kind(error=OSError("broken.\nmore")), tmp_path)
    with pytest.raises(WeightsError, match="KeyError"):
        load_pretrained(kind(error=KeyError()), tmp_path)


def test_bars_are_off_inside_and_back_to_what_they_were_after(monkeypatch):
    def library(on):
        made = SimpleNamespace(on=on, is_progress_bar_enabled=lambda: made.on)
        made.disable_progress_bar = lambda: setattr(made, "on", False)
        made.enable_progress_bar = lambda: setattr(made, "on", True)
        return made

    one, other = library(True), library(False)
    monkeypatch.setitem(sys.modules, "diffusers.utils.logging", one)
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", other)

    def use():
        with no_progress_bars():
            assert (one.on, other.on) == (False, False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert (one.on, other.on) == (True, False)
    monkeypatch.delitem(sys.modules, "transformers.utils.logging")
    with no_progress_bars():  # a library that is not there is none of its business
        assert not one.on
    assert "transformers.utils.logging" not in sys.modules


def test_misfits_name_what_is_missing_unknown_and_odd():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(1, 1))
    assert misfits(network, network.state_dict()) == []
    tensors = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "z": torch.zeros(1)}
    assert misfits(network, tensors, unknown=["w"]) == [
        "lacks 1.bias, 1.weight, 2.bias and 1 more",
        "has the unknown w, z",
        "has another shape of 0.bias (4,)",
    ]


def test_a_fingerprint_follows_from_values_types_and_what_stands_beside():
    network = nn.Linear(2, 2)
    first = fingerprint(network)
    assert len(first) == 64
    assert first == fingerprint(network.eval())
    others = [fingerprint(network, network), fingerprint(network, beside={"b": 1}), fingerprint(nn.Linear(2, 2).half())]
    with torch.no_grad():
        network.bias[0] += 1
    others.append(fingerprint(network))
    assert len({first, *others}) == 5
    assert fingerprint(network, beside={"a": 1, "b": 2}) == fingerprint(network, beside={"b": 2, "a": 1})
