"""The shell around the commands: exit codes, messages, settings, JSON."""

import json
import os
import subprocess
import sys

import pytest

from ilora_cli import console, main
from ilora_core import __version__
from ilora_core.errors import ConfigError, DataError, IloraError


def ilora(*arguments, **environment):
    command = [sys.executable, "-m", "ilora_cli.main", *arguments]
    return subprocess.run(
        command, env={**os.environ, "ILORA_PLUGINS": "", **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["train.lr=1e-4"], {"train": {"lr": 1e-4}}),
        (["train.steps=20", "train.batch=2"], {"train": {"steps": 20, "batch": 2}}),
        (["generator.weights=a/b"], {"generator": {"weights": "a/b"}}),
        (["generator.weights=C:\\models\\x"], {"generator": {"weights": "C:\\models\\x"}}),
        (["a.b.c=true", "a.b.d=none"], {"a": {"b": {"c": True, "d": None}}}),
        (["adapter.targets=['to_q', 'to_k']"], {"adapter": {"targets": ["to_q", "to_k"]}}),
        (["x.size=[64, 64]", 'x.text="12"'], {"x": {"size": [64, 64], "text": "12"}}),
        (["x.a=.5", "x.b=1.", "x.c=-2", "x.d=1_000"], {"x": {"a": 0.5, "b": 1.0, "c": -2, "d": 1000}}),
        (["x.a=1 # two", "x.b=2024-01-02", "x.c=k=v"], {"x": {"a": "1 # two", "b": "2024-01-02", "c": "k=v"}}),
        (["x.a=1", "x.a=2"], {"x": {"a": 2}}),
        (["x.a=", "gradient-checkpointing=true"], {"x": {"a": ""}, "gradient_checkpointing": True}),
        (["x.a=1\ny = 2"], {"x": {"a": "1\ny = 2"}}),
        ([], {}),
    ],
)
def test_settings_are_typed(items, expected):
    assert console.parse_settings(items) == expected


@pytest.mark.parametrize("items", [["lr"], ["=1"], ["train.=1"], ["train.l r=1"], ["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_wrong_settings_are_refused(items):
    with pytest.raises(ConfigError):
        console.parse_settings(items)


def test_nested_settings_come_from_presets_too():
    assert console.nest_settings({"train.lr": 1.0, "adapter.rank": 8}) == {"train": {"lr": 1.0}, "adapter": {"rank": 8}}


def test_version_and_help():
    assert ilora("--version").stdout.strip() == f"ilora {__version__}"
    shown = ilora("--help")
    assert shown.returncode == 0
    assert "list-plugins" in shown.stdout
    assert ilora().returncode == 2


@pytest.mark.parametrize("arguments", [["no-such-command"], ["list-plugins", "--no-such-option"], ["show"]])
def test_usage_errors_exit_with_2(arguments):
    done = ilora(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_expected_errors_are_one_message_on_stderr():
    done = ilora("show", "no-such-thing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing is called 'no-such-thing'.")
    assert done.stdout == ""
    assert "Traceback" in ilora("show", "no-such-thing", ILORA_DEBUG="1").stderr


def raising(error):
    def command(arguments, prog_name):
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("the file is broken."), 1, "error: the file is broken."),
        (ConfigError("no such setting."), 2, "error: no such setting."),
        (IloraError("general."), 1, "error: general."),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "`ilora fit` needs the package 'torch'"),
        (OutOfMemoryError("CUDA out of memory."), 1, "ilora plan"),
        (ZeroDivisionError("division by zero"), 1, "ILORA_DEBUG=1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, text):
    monkeypatch.delenv("ILORA_DEBUG", raising=False)
    monkeypatch.setattr(main, "app", raising(error))
    assert main.main(["fit", "--x"]) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


def test_predict_out_of_memory_is_told_its_own_options(monkeypatch, capsys):
    monkeypatch.setattr(main, "app", raising(OutOfMemoryError("CUDA out of memory.")))
    assert main.main(["predict", "in"]) == 1
    shown = capsys.readouterr().err
    assert "--one-by-one" in shown
    assert "train.batch" not in shown


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -m ilora_cli.main list-plugins --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "ILORA_PLUGINS": ""}, capture_output=True, text=True
    )
    assert done.stdout == "{"
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_list_plugins_as_json_and_as_table():
    data = json.loads(ilora("list-plugins", "--json").stdout)
    assert {"plugins", "cards", "broken", "missing"} == set(data)
    assert "lora" in [card["name"] for card in data["cards"]["adapters"]]
    missing = {entry["name"]: entry for entry in data["missing"]}
    assert "pip install" in missing["ilora-sd"]["how"]
    table = ilora("list-plugins").stdout
    assert "lora" in table
    assert "ilora-stylegan" in table


def test_show_a_card_with_its_settings(capsys, monkeypatch):
    monkeypatch.setenv("ILORA_PLUGINS", "")
    assert main.main(["show", "lora"]) == 0  # in this process: the factory's settings need torch
    shown = capsys.readouterr().out
    assert "ilora_core.adapters:LoraAdapter" in shown
    assert "rank  8" in shown


def test_show_weights_and_presets():
    [entry] = json.loads(ilora("show", "sd15", "--json").stdout)
    assert entry["kind"] == "weights"  # the plugin is not loaded here, the registry knows the weights
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in entry["sources"]
    assert "1234" in ilora("show", "readme-sd15").stdout
    assert "Did you mean" in ilora("show", "paper-sd51").stderr


def test_brackets_in_a_licence_are_printed(capsys):
    from ilora_cli.fit import _say

    _say("licences: generator flux1-dev: FLUX.1 [dev] Non-Commercial", quiet=False)
    assert "FLUX.1 [dev] Non-Commercial" in capsys.readouterr().err
