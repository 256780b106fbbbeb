"""The baselines of a sweep on the three families of generators, as a user would run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SAMPLED = ("--source", "rooms-samples", "--set", "source.n=10", "--test", "rooms-samples:seed=1000:4")
RENDERED = ("--source", "rooms", "--set", "source.n=10", "--test", "rooms:test:4")
CASES = {
    "rooms": (RENDERED, "probe,picture,ceiling,prompt"),
    "rooms-vqgan": (RENDERED, "probe,picture,ceiling"),
    "rooms-stylegan2": (SAMPLED, "probe,picture"),
}


@pytest.mark.parametrize("generator", CASES)
def test_baselines_of_every_family(tmp_path, generator):
    where, methods = CASES[generator]
    command = [sys.executable, "-m", "ilora_cli.main", "sweep", "--generator", generator, *where, "--validation", "2"]
    command += ["--intrinsic", "albedo", "--vary", f"method=mean-map,{methods}", "--device", "cpu", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    rms = {row["labels"]["method"]: next(iter(row["figures"]["albedo"].values()))["value"] for row in results["rows"]}
    assert set(rms) == {"mean-map", *methods.split(",")}
    assert len(set(rms.values())) == len(rms)
    assert rms["probe"] < rms["mean-map"]  # a room's own colours are in any features
    if "ceiling" in rms:
        assert rms["ceiling"] == min(rms.values())
