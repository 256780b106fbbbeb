"""Adapters from the hub: addresses, what is fetched and what never is, the cache, `ilora pull`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ilora_cli.main import main
from ilora_core import hub_repository
from ilora_core.adapter_places import find_adapters
from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig
from ilora_core.errors import ArtefactError, ConfigError, HubError, IloraError
from ilora_core.fit import fit
from ilora_core.hub_places import HubPlace
from ilora_core.hub_repository import cached, pull

ALL = [
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "preview.png"),
    *("pytorch_lora_weights.safetensors", "run.json"),
]


@pytest.fixture
def published(hub, pair_of_adapters):
    """me/both holds normals and depth, me/one normals at its root, v1 of it too, beside what should not be fetched."""
    for name in ("normals", "depth"):
        files = {path: (pair_of_adapters / name / path).read_bytes() for path in ALL}
        hub.add("me/both", {f"{name}/{path}": content for path, content in files.items()})
        if name == "normals":
            more = {"optimizer.pt": b"pickle", ".hidden.png": b"", "script.py": b"", "checkpoints/1/run.json": b"{}"}
            hub.add("me/one", files | more)
            hub.add("me/one", files, "v1")
    hub.add("me/both", {"README.md": b"---\nlicense: mit\n---\n", "training.bin": b"pickle"})
    return hub


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://a/b", ("a/b", "", "")),
        ("hf://a/b/", ("a/b", "", "")),
        ("hf://a/b.c-d_e", ("a/b.c-d_e", "", "")),
        ("hf://a/b@v1.0", ("a/b", "", "v1.0")),
        ("hf://a/b/normals", ("a/b", "normals", "")),
        ("hf://a/b/x/y@feature/z", ("a/b", "x/y", "feature/z")),
        ("hf://a/b@v1/normals", ("a/b", "normals", "v1")),
        ("hf://a/b@refs/pr/3/normals", ("a/b", "normals", "refs/pr/3")),
        ("hf://a/b@refs/pr/3", ("a/b", "", "refs/pr/3")),
    ],
)
def test_addresses(text, parts):
    place = HubPlace.parse(text)
    assert (place.repository, place.folder, place.revision) == parts
    if place.folder or "refs" not in text:
        assert HubPlace.parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hf://",
            "hf://a",
            "hf:/a/b",
            "hf:a/b",
            "HF://a/b",
            "hf://a/b@",
            "hf://a//b",
            "hf://a/b/../c",
            "hf://a/b@../../x",
        ),
        *("hf://a/b@v 1", "hf://a b/c", "hf://a/b/c//d", "hf://-a/b", "hf://a/b--c", "hf://a/b/.git"),
    ],
)
def test_addresses_that_are_spelt_wrong(text):
    with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
        find_adapters([text])


def test_what_is_no_place_at_all(tmp_path, pair_of_adapters):
    with pytest.raises(ArtefactError, match="hf://me/both for the repository"):
        find_adapters(["me/both"])
    with pytest.raises(ArtefactError, match=r"written hf://me/both\."):
        find_adapters(["https://huggingface.co/me/both/tree/main"])
    with pytest.raises(ArtefactError, match="no folder"):
        find_adapters([str(pair_of_adapters), str(tmp_path / "nothing")])
    found = find_adapters([str(pair_of_adapters / "normals"), str(pair_of_adapters)])
    assert [artefact.intrinsic.name for artefact in found] == ["normals", "depth", "normals"]


def test_adapters_from_the_hub(published):
    found = find_adapters(["hf://me/both", "hf://me/one@v1", "hf://me/both/depth"])
    assert [artefact.intrinsic.name for artefact in found] == ["depth", "normals", "normals", "depth"]
    assert found[0].tensors()
    asked = {path.rpartition("/")[2] for _, path, _ in published.requests if "/resolve/" in path}
    assert asked == {"adapter_config.json", "adapter_model.safetensors", "run.json"}


def test_the_cache_serves_without_a_network(published, monkeypatch, caplog):
    with pytest.raises(HubError, match="cache"):
        find_adapters(["hf://me/one"], local_only=True)
    find_adapters(["hf://me/one", "hf://me/both/normals"])
    seen = len(published.requests)
    assert find_adapters(["hf://me/one", "hf://me/both/normals"], local_only=True)[0].intrinsic.name == "normals"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_adapters(["hf://me/one"])
    with pytest.raises(HubError, match="me/both/depth"):
        find_adapters(["hf://me/both/depth"])
    assert len(published.requests) == seen
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert find_adapters(["hf://me/one"])
    with pytest.raises(HubError, match="no connection to the hub"):
        find_adapters(["hf://me/other"])


def test_pull_a_set(published, tmp_path, capsys):
    out = tmp_path / "mine"
    assert main(["pull", "hf://me/both", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["adapters"]) == {"normals", "depth"}
    assert told["licences"]["commercial"] == "unclear"
    assert files_of(out) == sorted(["README.md", *(f"{name}/{path}" for name in ("normals", "depth") for path in ALL)])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("place", ["hf://me/one", "hf://me/one@v1", "hf://me/both/normals"])
def test_pull_one(published, tmp_path, place, capsys):
    out = tmp_path / "deep" / "mine"
    assert main(["pull", place, "--out", str(out)]) == 0
    assert files_of(out) == sorted(ALL)
    assert f"--adapter {out}" in capsys.readouterr().out
    assert [artefact.intrinsic.name for artefact in find_artefacts(out)] == ["normals"]


def test_what_exists_is_not_replaced(published, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["pull", "hf://me/one", "--out", str(tmp_path / "mine")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert published.requests == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"adapter_model.bin": b"", "adapter_config.json": b"{}"}, "adapter_model.bin, a pickle"),
        ({"adapter_model.safetensors": b"", "adapter_config.json": b"{}"}, "no run.json"),
        ({"model.safetensors": b""}, "no adapter_model.safetensors"),
        ({"deep/er/adapter_model.safetensors": b"", "deep/er/run.json": b""}, "no artefact"),
        ({}, "holds nothing"),
    ],
)
def test_repositories_that_are_no_artefact(hub, tmp_path, files, told):
    hub.add("me/odd", files)
    with pytest.raises(ArtefactError, match=told):
        pull(HubPlace("me/odd"), tmp_path / "mine")
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]
    assert list(tmp_path.glob("mine*")) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.safetensors", b"\x80\x04pickle"),
        ("pytorch_lora_weights.safetensors", b""),
        ("run.json", b"{}"),
        ("run.json", b"not json"),
        ("run.json", b'{"intrinsic": {"name": "x", "hue": 1}, "generator": {"name": "sd", "settings": {}}}'),
        ("run.json", b'{"intrinsic": 3, "generator": {}}'),
    ],
)
def test_what_only_looks_like_an_artefact_is_not_kept(published, tmp_path, name, content):
    published.add("me/one", {name: content})
    with pytest.raises(IloraError, match=r"run\.json|damaged"):
        pull(HubPlace("me/one"), tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir() if "mine" in path.name) == []


def test_sizes_are_limited_before_anything_is_fetched(published, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_repository, "_LIMIT", 1000)
    with pytest.raises(ArtefactError, match="more than"):
        pull(HubPlace("me/one"), tmp_path / "mine")
    monkeypatch.undo()
    monkeypatch.setattr(hub_repository, "_SMALL_LIMIT", 10)
    with pytest.raises(ArtefactError, match="no file that ilora writes"):
        hub_repository.wanted_files({"run.json": 11, "adapter_model.safetensors": 1}, HubPlace("me/one"))


@pytest.mark.parametrize(
    ("place", "refuse", "told"),
    [
        ("hf://me/nothing", {}, "no such repository"),
        ("hf://me/one@v9", {}, "no such revision"),
        ("hf://me/one", {"/api/models/": (401, "")}, "private"),
        ("hf://me/one", {"/api/models/": (403, "")}, "right to read"),
        ("hf://me/one/normals", {}, "holds nothing"),
    ],
)
def test_errors_of_the_hub(published, tmp_path, place, refuse, told, capsys):
    published.refuse = refuse
    assert main(["pull", place, "--out", str(tmp_path / "mine")]) == 1
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("error: ") == 1
    assert os.environ["HF_TOKEN"] not in shown


def test_cached_returns_the_folder_in_the_repository(published):
    folder = cached(HubPlace("me/both", "depth"))
    assert folder.name == "depth"
    assert folder.is_relative_to(constants.HF_HUB_CACHE)


def test_fitted_published_and_drawn_from_everywhere(hub, tiny_model, tiny_pairs, tmp_path, helpers, monkeypatch):
    """The same map from the run's folder, from the hub, from its cache offline, and from a pulled copy.

    The push is a process of its own, which knows the hub by HF_ENDPOINT alone.
    """
    from ilora_core.intrinsics import NORMALS

    run, mine = str(tmp_path / "run"), str(tmp_path / "mine")
    generator = {"weights": str(tiny_model), "resolution": helpers.SIDE}
    settings = {"generator": generator, "train": {"steps": 2}, "runtime": {"device": "cpu"}}
    config = FitConfig("sd", (NORMALS,), pairs=str(tiny_pairs), validation=2, settings=settings)
    list(fit(config, run))
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ilora_cli.main", "push", run, "me/tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.environ["HF_TOKEN"] not in done.stdout + done.stderr
    assert main(["pull", "hf://me/tiny", "--out", mine]) == 0

    def drawn(adapter, name):
        arguments = [str(tiny_pairs / "pictures" / "000.png"), "--adapter", adapter, "--out", str(tmp_path / name)]
        assert main(["predict", *arguments, "--set", f"generator.weights={tiny_model}", "--device", "cpu"]) == 0
        return (tmp_path / name / "normals" / "000.npy").read_bytes()

    maps = {drawn(run, "a"), drawn("hf://me/tiny", "b"), drawn(mine, "c")}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    maps.add(drawn("hf://me/tiny", "d"))
    assert len(maps) == 1
