"""What `ilora new-plugin` writes passes `ilora check-plugin` untouched; planted faults are caught by it."""

import itertools
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ilora_cli.main import main
from ilora_cli.new_plugin import KINDS

ROOT = Path(__file__).parents[1]
COUNTER = itertools.count()


class Shell:
    """`ilora` in this process, which has torch already; every plugin gets a name of its own, as imports are remembered."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch

    def __call__(self, *arguments):
        code = main(list(map(str, arguments)))
        return code, *self.capsys.readouterr()

    def make(self, kind: str) -> Path:
        name = f"ilora-toy{next(COUNTER)}"
        code, _, error = self("new-plugin", name, "--kind", kind, "--dir", self.folder)
        assert code == 0, error
        return self.folder / name

    def check(self, plugin: Path, match: str = ""):
        self.monkeypatch.setenv("ILORA_PLUGINS", plugin.name)
        code, output, error = self("check-plugin", plugin, "--json", "--match", match)
        assert output, error
        report = json.loads(output)
        return code, {c["check"]: c for c in report["checks"]}, report


@pytest.fixture
def ilora(tmp_path, capsys, monkeypatch):
    return Shell(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_output_passes_every_check(ilora, kind):
    plugin = ilora.make(kind)
    code, checks, report = ilora.check(plugin)
    assert [f"{name}: {c['reason']}" for name, c in checks.items() if c["status"] == "failed"] == []
    assert code == 0
    assert report["passed"] >= 8
    assert report["plugin"] == plugin.name


@pytest.mark.parametrize("kind", KINDS)
def test_package_is_complete_and_short(ilora, kind):
    plugin = ilora.make(kind)
    module = plugin.name.replace("-", "_")
    names = {str(path.relative_to(plugin)) for path in plugin.rglob("*") if path.is_file()}
    assert names == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        f"src/{module}/__init__.py",
        f"src/{module}/model.py",
        "tests/test_conforms.py",
    }
    assert (plugin / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert tomllib.loads((plugin / "pyproject.toml").read_text())["project"]["name"] == plugin.name
    code = (plugin / "src" / module / "model.py").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) < 50
    assert not any("$" in path.read_text() for path in plugin.rglob("*.*") if path.suffix in (".py", ".toml", ".md"))


def test_generated_tests_run_under_pytest(ilora):
    plugin = ilora.make("metric")
    name, module = plugin.name, plugin.name.replace("-", "_")
    info = plugin.parent / f"{module}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[ilora]\n{name} = {module}\n")
    path = os.pathsep.join([str(plugin.parent), str(plugin / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=plugin,
        env={**os.environ, "PYTHONPATH": path, "ILORA_PLUGINS": name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


FAULTS = {
    "wrong range": (
        "generator",
        "model.py",
        {"torch.sigmoid(": "torch.tanh("},
        "check_pictures_in_range",
        "spans -",
    ),
    "leaking gradients": (
        "generator",
        "model.py",
        {
            ".eval().requires_grad_(False)": ".eval().requires_grad_(False)\n        self.gain = nn.Parameter(torch.ones(1))",
            "torch.sigmoid(": "torch.sigmoid(self.gain * ",
        },
        "check_gradient_reaches_adapter_only",
        "gain",
    ),
    "flipped axis": (
        "labeler",
        "model.py",
        {'"opengl"': '"directx"'},
        "check_axes_point_our_way",
        "y (down) is flipped",
    ),
    "heavy import": (
        "metric",
        "__init__.py",
        {"from ilora_core import Card": "import torch\nfrom ilora_core import Card"},
        "check_import_is_light",
        "imports torch",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(ilora, fault):
    kind, file, replacements, name, reason = FAULTS[fault]
    plugin = ilora.make(kind)
    path = plugin / "src" / plugin.name.replace("-", "_") / file
    text = path.read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    code, checks, _ = ilora.check(plugin, name)
    assert code == 1
    assert checks[name]["status"] == "failed"
    assert reason in checks[name]["reason"]


def test_check_plugin_runs_without_pytest(ilora):
    plugin = ilora.make("metric")
    code = "import sys; sys.modules['pytest'] = None; from ilora_cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "check-plugin", str(plugin)],
        env={**os.environ, "ILORA_PLUGINS": plugin.name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout


def test_refuses_bad_names_kinds_and_existing_folders(ilora, tmp_path):
    assert ilora("new-plugin", "Bad_Name", "--dir", tmp_path)[0] == 2
    assert ilora("new-plugin", "good-name", "--kind", "painter", "--dir", tmp_path)[0] == 2
    assert ilora("new-plugin", "good-name", "--kind", "metric", "--dir", tmp_path)[0] == 0
    code, _, error = ilora("new-plugin", "good-name", "--kind", "metric", "--dir", tmp_path)
    assert code == 2
    assert "exists already" in error


def test_check_plugin_says_what_is_no_plugin(ilora, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    code, _, error = ilora("check-plugin", tmp_path)
    assert (code, "new-plugin" in error) == (2, True)
    monkeypatch.setenv("ILORA_PLUGINS", "")
    code, _, error = ilora("check-plugin", "not-installed")
    assert (code, "no plugin called 'not-installed'" in error) == (2, True)
