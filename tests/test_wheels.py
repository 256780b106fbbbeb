"""Every workspace package builds to a wheel; alone in an empty environment it lists plugins and says what is missing.

The quick tests need no network: pip installs our wheels without dependencies, and the light ones (typer, rich, pluggy) are
linked in from this environment. With ILORA_SLOW_TESTS=1 the light ones come from the package index instead, as a user's
would. torch is never installed here: it is what `ilora fit` must name.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")))
LIGHT = ("typer", "rich", "pluggy", "packaging", "jinja2")
slow = pytest.mark.skipif(os.environ.get("ILORA_SLOW_TESTS", "") in ("", "0"), reason="ILORA_SLOW_TESTS is not set")


def run(*command, cwd=None):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ILORA", "VIRTUAL_ENV"))}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Distribution -> its wheel."""
    out = tmp_path_factory.mktemp("wheels")
    for package in PACKAGES:
        done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, package)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in out.glob("*.whl")}


def test_every_package_builds(wheels):
    names = {tomllib.loads((path / "pyproject.toml").read_text())["project"]["name"] for path in PACKAGES}
    assert set(wheels) == names


def test_core_wheel_carries_registry_templates_viewer_and_licence(wheels):
    names = zipfile.ZipFile(wheels["ilora"]).namelist()
    assert "ilora_core/registry.toml" in names
    assert "ilora_cli/templates/LICENSE.txt" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    viewer = {name.removeprefix("ilora_core/viewer/") for name in names if name.startswith("ilora_core/viewer/")}
    assert viewer >= {"three/three.bundle.min.js", "three/LICENSE", "three/README.md", "page/page.html", "page/main.js"}
    assert {f"page/{path.name}" for path in (ROOT / "ilora_core/viewer/page").iterdir()} <= viewer
    assert not any(re.match(r"tests?/|plugins/|bench/", name) for name in names)


def test_plugin_wheels_carry_licence_and_entry_point(wheels):
    for name in sorted(set(wheels) - {"ilora"}):
        archive = zipfile.ZipFile(wheels[name])
        names = archive.namelist()
        assert any(n.endswith("licenses/LICENSE") for n in names), name
        assert not any("/tests/" in n or n.startswith("tests/") for n in names), name
        [points] = [n for n in names if n.endswith("entry_points.txt")]
        assert f"{name} = " in archive.read(points).decode()


class Environment:
    """An empty virtual environment and the commands in it."""

    def __init__(self, folder: Path, *, with_pip: bool):
        venv.create(folder, with_pip=with_pip)
        self.python = folder / "bin" / "python"
        found = run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        self.packages = Path(found.stdout.strip())

    def install(self, *wheels: Path, pip=None):
        pip = pip or (sys.executable, "-m", "pip", "--python", self.python)
        done = run(*pip, "install", "--no-index", "--no-deps", "--quiet", *wheels)
        assert done.returncode == 0, done.stderr

    def link_light_dependencies(self):
        here = Path(sysconfig.get_path("purelib"))
        for name in sorted(closure(LIGHT)):
            files = importlib.metadata.distribution(name).files or ()
            for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
                if (here / top).exists() and not (self.packages / top).exists():
                    (self.packages / top).symlink_to(here / top)

    def ilora(self, *arguments):
        return run(self.python.parent / "ilora", *arguments)


def closure(roots) -> set[str]:
    """The distributions that these need here, by their metadata."""
    from packaging.requirements import Requirement

    found, open_ = set(), list(roots)
    while open_:
        name = open_.pop()
        if name in found:
            continue
        found.add(name)
        needs = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
        open_ += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def require_it_lists_and_explains(environment: Environment, plugins: set[str]) -> None:
    shown = environment.ilora("list-plugins")
    assert shown.returncode == 0, shown.stderr
    assert "Traceback" not in shown.stderr
    assert "broken" not in shown.stderr
    assert "lora" in shown.stdout
    assert ("Stable Diffusion 1.5" in shown.stdout) == ("ilora-sd" in plugins)
    done = environment.ilora("fit", "--generator", "sd15", "--intrinsic", "normals", "--pairs", ".", "--out", "out")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "pip install" in done.stderr
    assert "torch" in done.stderr or ("ilora-sd" in done.stderr and "ilora-sd" not in plugins)


@pytest.mark.parametrize("plugins", [set(), {"ilora-sd"}], ids=["core", "core+sd"])
def test_empty_environment_lists_and_explains(wheels, tmp_path, plugins):
    environment = Environment(tmp_path / "env", with_pip=False)
    environment.install(*(wheels[name] for name in ("ilora", *plugins)))
    environment.link_light_dependencies()
    require_it_lists_and_explains(environment, plugins)


@slow
@pytest.mark.slow
def test_plain_pip_from_the_index(wheels, tmp_path):
    environment = Environment(tmp_path / "env", with_pip=True)
    pip = (environment.python, "-m", "pip")
    environment.install(wheels["ilora"], pip=pip)
    done = run(*pip, "install", "--quiet", *LIGHT)
    assert done.returncode == 0, done.stderr
    require_it_lists_and_explains(environment, set())
    environment.install(wheels["ilora-sd"], pip=pip)
    require_it_lists_and_explains(environment, {"ilora-sd"})
