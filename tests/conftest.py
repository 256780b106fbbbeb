"""Fixtures that several test modules share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def _helpers(name: str = "fit_helpers"):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def helpers():
    """The module tests/fit_helpers.py."""
    return _helpers()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, helpers) -> Path:
    """A diffusers folder with a tiny random model."""
    return helpers.save_tiny_model(tmp_path_factory.mktemp("model") / "sd")


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory, helpers) -> Path:
    """Ten pictures with normals and depth."""
    return helpers.save_pairs(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(scope="session")
def app_adapters(tmp_path_factory) -> Path:
    """Folders ldm and gan with adapters of the rooms' diffusion model and GAN."""
    return _helpers("app_helpers").fit_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def toys_folder(tmp_path_factory) -> Path:
    """Where the package of tests/label_helpers.py is installed."""
    return _helpers("label_helpers").install(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def toys(toys_folder, tmp_path, monkeypatch):
    """The module of that package, as the only plugin beside the core, with an empty log and an empty label cache."""
    import importlib

    monkeypatch.syspath_prepend(str(toys_folder))
    monkeypatch.setenv("ILORA_PLUGINS", "toys")
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module("toys_plugin")
    module.LOG.clear()
    return module


@pytest.fixture(scope="session")
def sweep_toys_folder(tmp_path_factory) -> Path:
    """Where the package of tests/sweep_helpers.py is installed."""
    return _helpers("sweep_helpers").install(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture
def sweep_toys(sweep_toys_folder, tmp_path, monkeypatch) -> Path:
    """That package as the only plugin beside the core; the file to which every loss adds a line."""
    monkeypatch.syspath_prepend(str(sweep_toys_folder))
    monkeypatch.setenv("ILORA_PLUGINS", "sweep-toys")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "losses.log"))
    return tmp_path / "losses.log"


@pytest.fixture(scope="session")
def pair_of_adapters(tmp_path_factory) -> Path:
    """The folder that a fit of normals and depth leaves, by way of what a fit writes, with small random weights."""
    return _helpers("artefact_helpers").save_set(tmp_path_factory.mktemp("fitted") / "run")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, which huggingface_hub of this process talks to, with a cache and a token of its own."""
    from huggingface_hub import constants

    with _helpers("hub_helpers").FakeHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_" + "Sesame" * 6)
        yield server
