"""Nothing heavy behind a name: imports, help and the list of plugins, with a torch that raises when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "diffusers", "transformers", "peft", "accelerate", "PIL", "gradio")
COMMANDS = {
    "import": ["-c", "import ilora_core, ilora_core.plugins, ilora_core.registry"],
    "help": ["-m", "ilora_cli.main", "--help"],
    "list": ["-m", "ilora_cli.main", "list-plugins"],
    "list-json": ["-m", "ilora_cli.main", "list-plugins", "--json"],
    "app-help": ["-m", "ilora_cli.main", "app", "--help"],
    "fit-help": ["-m", "ilora_cli.main", "fit", "--help"],
}
LIMIT_S = 0.5


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Packages that raise when imported, first on the path; a cache of compiled modules that is filled once."""
    fakes = tmp_path_factory.mktemp("fakes")
    for name in HEAVY:
        (fakes / name).mkdir()
        (fakes / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    path = os.pathsep.join([str(fakes), os.environ.get("PYTHONPATH", "")])
    cache = str(tmp_path_factory.mktemp("compiled"))
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "ILORA_PLUGINS")}
    return {**kept, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": cache}


def cpu_seconds(arguments, environment) -> float:
    """User and system time of a child, from the kernel."""
    child = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("name", COMMANDS)
def test_loads_no_torch(name, environment):
    done = subprocess.run([sys.executable, *COMMANDS[name]], env=environment, capture_output=True, text=True)
    if name == "fit-help" and "No such command" in done.stderr:
        pytest.skip("fit is not there yet")
    assert done.returncode == 0, done.stderr
    assert "was imported" not in done.stderr
    assert "broken" not in done.stderr


@pytest.mark.parametrize("name", ["import", "help", "list"])
def test_starts_within_half_a_cpu_second(name, environment):
    cpu_seconds(COMMANDS[name], environment)  # compiles
    took = []
    while len(took) < 20 and (
        not took or min(took) > LIMIT_S
    ):  # work beside it costs CPU time too: one calm run will do
        took.append(cpu_seconds(COMMANDS[name], environment))
    assert min(took) <= LIMIT_S, f"{name} took {min(took):.2f} CPU seconds at best"


def test_command_modules_import_nothing_heavy():
    """Each command's module must be as light as --help, which imports them all."""
    folder = Path(__file__).parents[1] / "cli" / "ilora_cli"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    code = "import sys, importlib\n" + "".join(f"importlib.import_module('ilora_cli.{name}')\n" for name in names)
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
