"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest


def _helpers():
    import importlib.util

    spec = importlib.util.spec_from_file_location("fit_helpers", Path(__file__).with_name("fit_helpers.py"))
    module = importlib.util.module_from_spec(spec)
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
