"""The quickstart, small: every method is scored, every file is there, and a second run does not overwrite the first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest


@pytest.fixture
def ilora(tmp_path):
    def run(*arguments):
        environment = {**os.environ, "ILORA_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "ilora_cli.main", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_quickstart(ilora, tmp_path):
    small = ("quickstart", "--steps", "3", "--labels", "6", "--test", "3", "--device", "cpu", "--controls")
    done = ilora(*small, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name, figure in (("normals", "mean_deg"), ("depth", "rms01")):
        assert list(result[name]) == ["mean map", "linear probe", "codec ceiling", "adapter", "random init"]
        for method, figures in result[name].items():
            value = figures[figure]
            assert value["low"] <= value["value"] <= value["high"], method
        assert result[name]["codec ceiling"][figure]["value"] < result[name]["mean map"][figure]["value"]
    html = (tmp_path / "quickstart" / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']https?://", html)
    for word in ("codec ceiling", "linear probe", "random init", "Apache-2.0"):
        assert word in html
    scenes = re.findall(r'<script type="application/json" id="scene-[\d-]+">(.*?)</script>', html)
    titles = {scene["title"].partition(": ")[2]: scene for scene in map(json.loads, scenes)}
    assert len(scenes) == 4
    assert titles["truth"]["depth"]["kind"] == "metric"
    assert titles["truth"]["agreement"]["sentence"] == "Normals and depth agree."
    assert titles["adapters"]["depth"]["kind"] == "affine_depth"
    assert len(html) < 2_000_000
    assert (tmp_path / "quickstart" / "normals.png").stat().st_size > 1000
    again = ilora(*small)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
