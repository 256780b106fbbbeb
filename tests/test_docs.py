"""The documentation is true: links lead somewhere, commands exist, examples run, the help page is fresh."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.main

from ilora_cli.main import app, main

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md")), *sorted(ROOT.glob("bench/**/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")
WORD = re.compile(r"-{1,2}[a-z][a-z-]*")


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def command_lines(page: Path) -> list[str]:
    """`ilora …` in shell blocks and in back-ticks."""
    text = page.read_text(encoding="utf-8")
    shell = "\n".join(body for kind, body in blocks(page) if kind in ("bash", "sh", "console"))
    shell = shell.replace("\\\n", " ")
    prose = FENCE.sub("", text)
    lines = [line.strip().removeprefix("$ ") for line in shell.splitlines()]
    lines += [" ".join(quoted.split()) for quoted in re.findall(r"`([^`]+)`", prose)]
    found = (re.search(r"(?:^|run |-m )ilora(?:_cli\.main)? (.*)", line) for line in lines)
    return [match[1] for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{page.name}: {target}; there are {sorted(anchors(there))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_commands_exist(page):
    root = typer.main.get_command(app)
    shared = {"-h", "--help"}
    for line in command_lines(page):
        words = shlex.split(re.split(r"\s[|>&]|\s#\s", line)[0].replace("…", " "), comments=True)
        if not words or words[0].startswith("-"):
            assert not words or words[0] in ("--help", "-h", "--version"), line
            continue
        assert words[0] in root.commands, f"{page.name}: ilora {line}"
        command = root.commands[words[0]]
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | shared
        for word in words[1:]:
            if WORD.fullmatch(word.partition("=")[0]):
                assert word.partition("=")[0] in options, f"{page.name}: ilora {line}"


def test_there_are_commands_to_check():
    assert sum(len(command_lines(page)) for page in DOCS) > 30


def test_command_page_is_fresh():
    """Rendered anew in another process and another terminal."""
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    written_with = re.search(r"<!-- typer (\S+) -->", page)[1]
    if written_with != typer.__version__:
        pytest.skip(f"the page was written with typer {written_with}, here is {typer.__version__}")
    command = [sys.executable, str(ROOT / "docs" / "make_commands.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "43"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_settings_in_the_table_exist():
    """Each `train.…` and `runtime.…` row names a setting with its default."""
    from ilora_core.config import RuntimeConfig, TrainConfig

    text = (ROOT / "docs" / "own-pairs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(train|runtime)\.(\w+)` \| (\S+) \|", text, re.MULTILINE)
    known = {"train": TrainConfig(), "runtime": RuntimeConfig()}
    for group, name, default in rows:
        value = getattr(known[group], name)
        shown = str(value).lower() if isinstance(value, bool | str) else float(value)
        assert shown == (default if isinstance(shown, str) else float(default.replace(",", ""))), f"{group}.{name}"
    for group, config in known.items():
        assert {name for g, name, _ in rows if g == group} == set(vars(config)), group


def test_declared_intrinsics_load(tmp_path):
    from ilora_core.folders import load_intrinsic

    names = set()
    for page in DOCS:
        for kind, body in blocks(page):
            if kind == "toml" and "[project]" not in body:
                path = tmp_path / "declared.toml"
                path.write_text(body, encoding="utf-8")
                names.add(load_intrinsic(path).name)
    assert names == {"roughness", "depth"}


def test_python_examples_have_a_file():
    for page in DOCS:
        for kind, body in blocks(page):
            assert kind != "python" or FILE.match(body), f"{page.name}: {body[:60]}"
            if kind == "python":
                assert len(body.splitlines()) <= 50, page.name


@pytest.mark.parametrize("name", ["ilora-mosaic", "ilora-dcgan", "ilora-haze"])
def test_example_plugins_pass_every_check(name, tmp_path, capsys):
    for _, body in blocks(ROOT / "docs" / "plugins.md"):
        if found := FILE.match(body):
            path = tmp_path / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body.removeprefix(found[0]), encoding="utf-8")
    code = main(["check-plugin", f"{tmp_path / name}/", "--json"])
    result = json.loads(capsys.readouterr().out)
    failed = [f"{check['check']}: {check['reason']}" for check in result["checks"] if check["status"] == "failed"]
    assert code == 0
    assert not failed
    assert result["passed"] >= 9
