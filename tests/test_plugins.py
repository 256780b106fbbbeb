"""The plugin host: isolation, names, limits, settings. Distributions are faked by dist-info folders on sys.path."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ilora_core.errors import ConfigError, MissingDependency, PluginError, UnknownName
from ilora_core.plugins import KINDS, load_plugins

CARD = 'Card("{name}", "A test card", "MIT", "{module}:make", "{module}:make"{more})'
GOOD = """
from ilora_core import Card, hookimpl

def make(*, rank: int = 8, size=3): return ("made", rank, size)

@hookimpl
def ilora_generators():
    yield {card}
"""
BROKEN = {
    "bad-import": "import a_package_that_is_not_there\n",
    "bad-syntax": "def broken(:\n",
    "bad-signature": "from ilora_core import hookimpl\n@hookimpl\ndef ilora_generators(unknown_argument):\n    yield 1\n",
    "bad-raise": "from ilora_core import hookimpl\n@hookimpl\ndef ilora_generators():\n    raise ValueError('on purpose')\n",
    "bad-card": "from ilora_core import hookimpl\n@hookimpl\ndef ilora_generators():\n    yield 'not a card'\n",
}
STAGES = {
    "bad-import": "load",
    "bad-syntax": "load",
    "bad-signature": "register",
    "bad-raise": "ilora_generators",
    "bad-card": "ilora_generators",
}


def install(folder: Path, name: str, code: str, *, target: str = "") -> str:
    """A fake distribution; returns its module's name."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ilora]\n{name} = {target or module}\n")
    return module


def good(name: str, module: str, more: str = "") -> str:
    return GOOD.format(card=CARD.format(name=name, module=module, more=more))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Install fake plugins and load only them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def load(plugins: dict[str, str], *, only=None):
        for name, code in plugins.items():
            install(tmp_path, name, code)
        return load_plugins(only=only if only is not None else plugins)

    yield load
    for name in set(sys.modules) - before:
        if name.startswith(("bad_", "good_", "other_")):
            del sys.modules[name]


def test_core_provides_its_own_cards():
    host = load_plugins(only=())
    assert [plugin.name for plugin in host.plugins] == ["ilora"]
    assert ("ilora", "lora") in [(owner, card.name) for owner, card in host.cards("adapters")]
    assert host.broken == ()


def test_hosts_are_remembered():
    assert load_plugins(only=()) is load_plugins(only=())


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_plugin_is_recorded_with_its_stage(fake, name):
    host = fake({name: BROKEN[name], "good-one": good("fine", "good_one")})
    assert [(b.plugin, b.stage) for b in host.broken] == [(name, STAGES[name])]
    assert host.broken[0].reason
    assert host.card("generators", "fine").summary == "A test card"


def test_other_hooks_of_a_plugin_with_one_broken_hook_stay(fake):
    code = good("fine", "good_half") + "\n@hookimpl\ndef ilora_metrics():\n    return None or 3\n"
    host = fake({"good-half": code})
    assert [b.stage for b in host.broken] == ["ilora_metrics"]
    assert host.make("generators", "fine") == ("made", 8, 3)


def test_unknown_hook_is_named(fake):
    host = fake({"bad-hook": "from ilora_core import hookimpl\n@hookimpl\ndef ilora_genrators():\n    yield 1\n"})
    assert host.broken[0].stage == "hooks"
    assert "ilora_genrators" in host.broken[0].reason


def test_other_api_version_is_refused(fake):
    host = fake({"bad-api": "ILORA_API = 99\n" + good("x", "bad_api")})
    assert (host.broken[0].stage, "API 99" in host.broken[0].reason) == ("API", True)


def test_module_that_exits_is_only_broken(fake):
    host = fake({"bad-exit": "import sys\nsys.exit(3)\n"})
    assert host.broken[0].stage == "load"


def test_damaged_metadata_hides_nobody(fake, tmp_path):
    info = tmp_path / "damaged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ilora]\nno equals sign here\n")
    host = fake({"good-two": good("fine", "good_two")})
    assert "damaged-1.0.dist-info" in [b.plugin for b in host.broken]
    assert host.card("generators", "fine")


def test_clash_is_an_error_only_when_used_and_names_both(fake):
    host = fake({"good-a": good("same", "good_a"), "good-b": good("same", "good_b"), "good-c": good("alone", "good_c")})
    assert [owner for owner, card in host.cards("generators") if card.name == "same"] == ["good-a", "good-b"]
    assert host.card("generators", "alone")
    with pytest.raises(ConfigError, match="good-a/same or good-b/same"):
        host.card("generators", "same")
    assert host.card("generators", "good-b/same").factory == "good_b:make"


def test_two_cards_of_one_name_in_one_plugin(fake):
    code = good("same", "good_twice").rstrip() + "\n    yield " + CARD.format(name="same", module="x", more="")
    assert "two cards" in fake({"good-twice": code}).broken[0].reason


def test_unknown_name_says_nearest_installed_and_broken(fake):
    host = fake({"good-near": good("bedroom", "good_near"), "bad-raise": BROKEN["bad-raise"]})
    with pytest.raises(UnknownName) as caught:
        host.card("generators", "bedrom")
    text = str(caught.value)
    assert "Did you mean bedroom" in text
    assert "Installed: bedroom" in text
    assert "bad-raise (ilora_generators: ValueError: on purpose)" in text


def test_known_but_missing_gives_the_install_line():
    host = load_plugins(only=())
    with pytest.raises(UnknownName, match=r"plugin ilora-sd provides it.*pip install \. \./plugins/ilora-sd"):
        host.card("generators", "sd15")
    with pytest.raises(UnknownName, match=r"pip install \. \./plugins/ilora-sd"):
        host.card("generators", "ilora-sd/sd15")


def test_planned_plugin_has_no_install_line(monkeypatch, tmp_path):
    from ilora_core import plugins
    from ilora_core.registry import _parse

    path = tmp_path / "registry.toml"
    path.write_text('[plugins.ilora-later]\nstatus = "planned"\nsummary = "x"\nlabelers = ["someday"]\n')
    monkeypatch.setattr(plugins, "load_registry", lambda: _parse(path))
    with pytest.raises(UnknownName, match=r"planned for the plugin ilora-later and not there yet") as caught:
        load_plugins(only=()).card("labelers", "someday")
    assert "pip install" not in str(caught.value)


def test_environment_limits_what_is_loaded(fake, monkeypatch):
    fake({"good-in": good("inside", "good_in"), "good-out": good("outside", "good_out")})
    monkeypatch.setenv("ILORA_PLUGINS", "good-in, not-here")
    host = load_plugins()
    assert [plugin.name for plugin in host.plugins] == ["ilora", "good-in"]
    assert [(b.plugin, b.stage) for b in host.broken] == [("not-here", "find")]
    monkeypatch.setenv("ILORA_PLUGINS", "")
    assert [plugin.name for plugin in load_plugins().plugins] == ["ilora"]


def test_strict_raises_at_once(fake, monkeypatch):
    monkeypatch.setenv("ILORA_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="on purpose"):
        fake({"bad-raise": BROKEN["bad-raise"]})


def test_broken_plugins_are_logged_once(fake, caplog):
    fake({"bad-once": BROKEN["bad-card"]})
    sys.path.append("/a/folder/more")  # what a library may do; the plugins are read again, and mentioned no more
    load_plugins(only={"bad-once"})
    sys.path.remove("/a/folder/more")
    assert [r.getMessage() for r in caplog.records if "bad-once" in r.getMessage()] == [
        "plugin bad-once is broken and was left out: ilora_generators: it must yield Cards, and gave str 'not a card'"
    ]


def test_unknown_kind():
    with pytest.raises(ConfigError, match=", ".join(KINDS)):
        load_plugins(only=()).cards("painters")


def test_make_overlays_options_and_checks_settings(fake):
    host = fake({"good-make": good("fine", "good_make", ", options={'rank': 2}")})
    assert host.make("generators", "fine") == ("made", 2, 3)
    assert host.make("generators", "fine", rank=4, size=5) == ("made", 4, 5)
    with pytest.raises(ConfigError, match=r"has no setting 'rnak'. Did you mean 'rank'\? It takes: rank, size"):
        host.make("generators", "fine", rnak=4)
    assert host.make_tiny("generators", "fine") == ("made", 8, 3)


def test_make_names_a_required_setting_that_is_missing(fake):
    code = good("needy", "good_needy").replace("*, rank: int = 8", "*, rank")
    with pytest.raises(ConfigError, match="needs the setting 'rank'"):
        fake({"good-needy": code}).make("generators", "needy")


def test_settings_are_checked_against_what_the_factory_states_without_making_anything(fake):
    code = good("typed", "good_typed").replace("*, rank: int = 8", "*, rank: 'int | None' = 8, ratio: float = 1.0")
    host = fake({"good-typed": code})
    for fine in ({}, {"rank": 3}, {"rank": None, "ratio": 2}, {"ratio": 0.5}):
        host.check_settings("generators", "typed", fine)
    for wrong, words in (
        ({"rank": "3"}, "rank is int | None, not '3'"),
        ({"rank": True}, "rank is int | None, not True"),
        ({"ratio": None}, "ratio is float, not None"),
        ({"ratoi": 1.0}, "Did you mean 'ratio'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            host.check_settings("generators", "typed", wrong)


@pytest.mark.parametrize("where", ["body", "module"])
def test_missing_package_is_named(fake, tmp_path, where):
    (tmp_path / "good_heavy.py").write_text(
        "import skimagee\ndef make(): pass\n" if where == "module" else "def make():\n    import skimagee\n"
    )
    host = fake({"good-lazy": good("lazy", "good_heavy")})
    with pytest.raises(MissingDependency, match=r"generator 'lazy' \(plugin good-lazy\).*pip install skimagee"):
        host.make("generators", "lazy")
    sys.modules.pop("good_heavy", None)


def test_skeleton_is_made_or_refused(fake):
    host = fake({"good-thin": good("thin", "good_thin", ", skeleton='good_thin:make', options={'rank': 1}")})
    assert host.make_skeleton("generators", "thin", size=9) == ("made", 1, 9)
    host = fake({"good-thick": good("thick", "good_thick")})
    with pytest.raises(PluginError, match="no skeleton"):
        host.make_skeleton("generators", "thick")


COMMANDS = [["--help"], ["--version"], ["list-plugins"], ["list-plugins", "--json"], ["show", "paper-sd15"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_works_beside_broken_plugins_and_names_them(tmp_path, command):
    for name, code in BROKEN.items():
        install(tmp_path, name, code)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ILORA_PLUGINS": ",".join(BROKEN)}
    done = subprocess.run(
        [sys.executable, "-m", "ilora_cli.main", *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if command[0].startswith("--"):  # loads no plugin
        return
    for name in BROKEN:
        assert done.stderr.count(f"plugin {name} is broken") == 1
    if command[0] == "list-plugins":
        assert all(name in done.stdout for name in BROKEN)
