"""`ilora predict` with several adapters: one pass for all maps gives what one pass per map gives, compiled too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ilora_cli.main import main
from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig, RuntimeConfig
from ilora_core.fit import fit
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.predict import Predictor


def fit_some(model: Path, pairs: Path, out: Path, **settings) -> Path:
    given = {
        "generator": {"weights": str(model), "resolution": 32},
        "train": {"steps": 3, "batch": 2, "lr": 1e-2},
        "runtime": {"device": "cpu"},
        **settings,
    }
    list(fit(FitConfig("sd", (NORMALS, DEPTH), pairs=str(pairs), validation=2, settings=given), out))
    return out


@pytest.fixture(scope="module")
def fitted(tiny_model, tiny_pairs, tmp_path_factory) -> Path:
    return fit_some(tiny_model, tiny_pairs, tmp_path_factory.mktemp("fitted") / "out")


class Counted:
    """A predictor, and how often network and decoder were called, and on how many rows."""

    def __init__(self, artefacts, **options):
        self.drawer = Predictor(artefacts, runtime=RuntimeConfig(device="cpu"), **options)
        self.rows: dict[str, list[int]] = {"net": [], "decoder": []}
        generator = self.drawer.generator
        for name, module in (("net", generator.net), ("decoder", generator.vae.decoder)):
            module.register_forward_pre_hook(lambda _, given, name=name: self.rows[name].append(len(given[0])))

    def __call__(self, pictures, **options):
        self.rows.update(net=[], decoder=[])
        return self.drawer(pictures, **options)


def some_pictures(n, *size):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


ALLOWED = {"depth": 1e-5, "normals": 1e-3}
"""An untrained network draws nearly grey pictures, whose vectors are short: making them unit vectors enlarges the rounding."""


def close(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=ALLOWED[name], rtol=0)


def test_one_pass_and_one_decode_for_all_maps(fitted):
    artefacts = find_artefacts(fitted)
    together, apart = Counted(artefacts), Counted(artefacts, one_by_one=True)
    for pictures, process in ((some_pictures(1, 32, 32), "native"), (some_pictures(3, 40, 50), "full")):
        n = len(pictures)
        close(together(pictures, process=process), apart(pictures, process=process))
        assert together.rows == {"net": [2 * n], "decoder": [2 * n]}
        assert apart.rows == {"net": [n, n], "decoder": [n, n]}


def test_tiles_too(fitted):
    artefacts, picture = find_artefacts(fitted), some_pictures(1, 48, 64)
    together, apart = Counted(artefacts), Counted(artefacts, one_by_one=True)
    close(together(picture, process="tile", batch=4), apart(picture, process="tile", batch=4))
    assert together.rows["net"] == [2, 8, 8, 8]  # the whole picture, then twelve tiles, four at once


def test_a_single_map_is_drawn_as_ever(fitted):
    alone = Counted(find_artefacts(fitted / "depth"))
    alone(some_pictures(2, 32, 32))
    assert alone.rows == {"net": [2], "decoder": [2]}
    assert not any("+" in name for name, _ in alone.drawer.generator.net.named_modules())


def test_adapters_that_cannot_be_mixed_take_turns(tiny_model, tiny_pairs, tmp_path):
    out = fit_some(tiny_model, tiny_pairs, tmp_path / "dora", adapter={"dora": True})
    drawer = Counted(find_artefacts(out))
    assert set(drawer(some_pictures(1, 32, 32))) == {"depth", "normals"}
    assert drawer.rows == {"net": [1, 1], "decoder": [1, 1]}


def test_one_by_one_from_the_command_line(fitted, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    for out, more in (("together", []), ("apart", ["--one-by-one"])):
        command = ["predict", str(tmp_path / "p.png"), "-a", str(fitted), "-o", str(tmp_path / out), "--device", "cpu"]
        assert main([*command, *more]) == 0
    for name, allowed in ALLOWED.items():
        one, other = (np.load(tmp_path / out / name / "p.npy") for out in ("together", "apart"))
        np.testing.assert_allclose(one, other, atol=allowed)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("ILORA_SLOW_TESTS", "") in ("", "0"), reason="compiles for minutes on two cores")
def test_compiled_maps_are_the_same(tiny_model, tiny_pairs, tmp_path):
    """Other batches, sizes and ways in between: no graph may be taken for another adapter's."""
    artefacts = find_artefacts(fit_some(tiny_model, tiny_pairs, tmp_path / "out"))
    plain = Predictor(artefacts, runtime=RuntimeConfig(device="cpu"))
    runtime = RuntimeConfig(device="cpu", compile=True)
    together, apart = (Predictor(artefacts, runtime=runtime, one_by_one=one_by_one) for one_by_one in (False, True))
    for n, size in ((1, 32), (3, 32), (1, 48), (1, 32)):
        pictures = some_pictures(n, size, size)
        wanted = plain(pictures, process="full")
        for drawer in (together, apart):
            for name, value in drawer(pictures, process="full").items():
                torch.testing.assert_close(value, wanted[name], atol=1e-4, rtol=0)
