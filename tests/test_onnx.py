"""`export_onnx`: onnxruntime draws what the Predictor draws; refusals; nothing half-written."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ilora_core import __version__
from ilora_core.adapters import LoraAdapter
from ilora_core.artefact import load_artefact, save_artefact
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ConfigError, IloraError, MissingDependency
from ilora_core.interchange import onnx as exporting
from ilora_core.interchange.onnx import export_onnx
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, Intrinsic
from ilora_core.predict import Predictor

LICENCES = {"generator": "CreativeML-OpenRAIL-M", "pictures": "CC-BY-4.0"}


class Host:
    """Makes one given generator, and LoRA adapters."""

    def __init__(self, generator):
        self.generator = generator

    def make(self, kind, name, /, **settings):
        return self.generator if kind == "generators" else LoraAdapter(**settings)


class Painter:
    """Two convolutions in place of an encoder and a decoder."""

    targets = ("paint",)
    resolution, stride, one_pass = (8, 8), 4, True

    def __init__(self):
        torch.manual_seed(3)
        self.eye = nn.Conv2d(3, 4, 3, padding=1)
        self.net = nn.Sequential()
        self.net.add_module("paint", nn.Conv2d(4, 3, 3, padding=1))
        self.net.requires_grad_(False)

    def to(self, device):
        self.net.to(device)
        return self

    def encode(self, pictures):
        return {"seen": self.eye(pictures)}

    def render(self, codes, intrinsic):
        return self.net(codes["seen"]).sigmoid()

    def layouts(self, state, config):
        return {}


def predictor_of(factory, folder, *intrinsics, runtime=None) -> Predictor:
    """A predictor from saved adapters whose weights are not zero."""
    for intrinsic in intrinsics:
        generator, adapter = factory(), LoraAdapter(rank=2, name=intrinsic.name)
        adapter.attach(generator.net, generator.targets)
        source = torch.Generator().manual_seed(1)
        state = {key: 0.3 * torch.randn(value.shape, generator=source) for key, value in adapter.state_dict().items()}
        record = {"intrinsic": intrinsic.to_json(), "generator": {"name": "toy", "settings": {}}, "licences": LICENCES}
        save_artefact(folder / intrinsic.name, state, adapter.config(), record, generator)
    artefacts = [load_artefact(folder / intrinsic.name) for intrinsic in intrinsics]
    return Predictor(artefacts, host=Host(factory()), runtime=runtime or RuntimeConfig(device="cpu"))


def drawn(path, pictures) -> tuple[torch.Tensor, object]:
    """onnxruntime's map and the session."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"picture": pictures.numpy()})
    return torch.from_numpy(value), session


def pictures_of(n, size, seed=5) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def agrees(predictor, path, pictures, *, atol=1e-4) -> None:
    (wanted,) = predictor(pictures, process="full").values()
    value, _ = drawn(path, pictures)
    assert float(wanted.std()) > 0.01, "a flat map shows nothing"
    torch.testing.assert_close(value, wanted, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """A predictor of albedo on the tiny Stable Diffusion, used before it is exported, and the export."""
    from ilora_sd.factories import tiny

    folder = tmp_path_factory.mktemp("sd")
    predictor = predictor_of(tiny, folder, ALBEDO)
    predictor(pictures_of(1, (64, 64)))
    return predictor, export_onnx(predictor, folder / "out" / "albedo.onnx")


def test_stable_diffusion_draws_the_same_map(stable_diffusion):
    predictor, report = stable_diffusion
    assert report.max_abs_error < 1e-4
    assert report.size_mb == pytest.approx(report.path.stat().st_size / 1e6)
    assert [file.name for file in report.path.parent.iterdir()] == ["albedo.onnx"]
    for n in (1, 2, 5):
        agrees(predictor, report.path, pictures_of(n, (64, 64)))


def test_file_says_what_it_is(stable_diffusion):
    _, report = stable_diffusion
    _, session = drawn(report.path, pictures_of(1, (64, 64)))
    given, got = session.get_inputs()[0], session.get_outputs()[0]
    assert (given.name, given.shape, given.type) == ("picture", ["batch", 3, 64, 64], "tensor(float)")
    assert (got.name, got.shape, got.type) == ("albedo", ["batch", 3, 64, 64], "tensor(float)")
    facts = session.get_modelmeta().custom_metadata_map
    assert Intrinsic.from_json(json.loads(facts["intrinsic"])) == ALBEDO
    assert json.loads(facts["licences"]) == LICENCES
    assert (facts["prompt"], facts["generator"], facts["ilora"]) == ("albedo", "toy", __version__)


def test_text_encoder_is_left_out(stable_diffusion):
    import onnx

    predictor, report = stable_diffusion
    model = onnx.load(report.path)
    onnx.checker.check_model(model)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == report.opset
    words = predictor.generator.text_encoder.get_input_embeddings().weight.shape
    assert not [w.name for w in model.graph.initializer if "text" in w.name or tuple(w.dims) == tuple(words)]


def test_rooms_codec_at_another_size(tmp_path):
    from ilora_rooms.generator import tiny

    predictor = predictor_of(tiny, tmp_path, DEPTH)
    report = export_onnx(predictor, tmp_path / "depth.onnx", size=(32, 64))
    agrees(predictor, report.path, pictures_of(2, (32, 64)))
    _, session = drawn(report.path, pictures_of(1, (32, 64)))
    assert session.get_outputs()[0].shape == ["batch", 1, 32, 64]
    described = Intrinsic.from_json(json.loads(session.get_modelmeta().custom_metadata_map["intrinsic"]))
    assert described.kind == "affine_depth"  # metres are lost on the way through a picture


def test_vqgan_draws_the_same_map_where_codes_are_not_tied(tmp_path):
    """A code is an argmin over distances, which two libraries round differently. Its gap to the runner-up is measured."""
    from ilora_vqgan.factories import tiny

    predictor = predictor_of(tiny, tmp_path, NORMALS)
    report = export_onnx(predictor, tmp_path / "normals.onnx")
    pictures, generator = pictures_of(3, (32, 32)), predictor.generator
    with torch.no_grad():
        rows = generator.encoder(pictures * 2 - 1).movedim(1, -1).flatten(0, 2)
    nearest_two = torch.cdist(rows.double(), generator._codebook.double()).square().topk(2, largest=False).values
    gap = float((nearest_two[:, 1] - nearest_two[:, 0]).min())
    assert gap > 1e-5, "these pictures have a near tie; choose others"
    agrees(predictor, report.path, pictures)


@pytest.fixture
def painter(tmp_path):
    return predictor_of(Painter, tmp_path, ALBEDO)


def test_generator_of_your_own(painter, tmp_path):
    report = export_onnx(painter, tmp_path / "a.onnx", size=(12, 20))
    agrees(painter, report.path, pictures_of(4, (12, 20)), atol=1e-6)


def test_large_weights_lie_beside_the_file(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST_FILE", 500)
    path = tmp_path / "out" / "a.onnx"
    report = export_onnx(painter, path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert report.size_mb == pytest.approx(sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6)
    agrees(painter, path, pictures_of(1, (8, 8)), atol=1e-6)
    monkeypatch.setattr(exporting, "LARGEST_FILE", 10**9)
    export_onnx(painter, path)
    assert [file.name for file in path.parent.iterdir()] == ["a.onnx"]


def test_another_map_leaves_no_file(painter, tmp_path, monkeypatch):
    """The graph is traced from a generator that has changed since the Predictor drew with it."""
    traced = exporting._traced

    def changed(drawing, *rest):
        drawing.generator.net.paint.base_layer.bias.data += 0.1
        return traced(drawing, *rest)

    monkeypatch.setattr(exporting, "_traced", changed)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.onnx").write_text("an earlier export")
    with pytest.raises(IloraError, match=r"differs by up to 0\.0"):
        export_onnx(painter, tmp_path / "out" / "a.onnx")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.onnx"]
    assert (tmp_path / "out" / "a.onnx").read_text() == "an earlier export"


def test_maps_that_are_not_numbers_are_refused(painter, tmp_path):
    painter.generator.net.paint.base_layer.bias.data[:] = torch.nan
    with pytest.raises(IloraError, match="differs by up to inf"):
        export_onnx(painter, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_size_must_fit_the_stride(painter, tmp_path):
    with pytest.raises(ConfigError, match="multiples of 4, and 10×8 pixels"):
        export_onnx(painter, tmp_path / "a.onnx", size=(8, 10))


def test_only_one_adapter(tmp_path):
    predictor = predictor_of(Painter, tmp_path, ALBEDO, NORMALS)
    with pytest.raises(ConfigError, match="one map, and this predictor has albedo, normals"):
        export_onnx(predictor, tmp_path / "a.onnx")


def test_half_precision_is_refused(tmp_path):
    predictor = predictor_of(Painter, tmp_path, ALBEDO, runtime=RuntimeConfig(device="cpu", precision="bf16"))
    with pytest.raises(ConfigError, match="written in float32"):
        export_onnx(predictor, tmp_path / "a.onnx")


def test_gan_is_refused(tmp_path):
    from ilora_stylegan.factories import tiny

    with pytest.raises(ConfigError, match="StyleGAN has no encoder"):
        export_onnx(predictor_of(tiny, tmp_path, NORMALS), tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="by a search"):
        exporting._refuse(SimpleNamespace(inverts=True))


def test_many_steps_are_refused(tmp_path):
    from ilora_sd.factories import tiny_augmented

    with pytest.raises(ConfigError, match="takes several steps"):
        export_onnx(predictor_of(tiny_augmented, tmp_path, NORMALS), tmp_path / "a.onnx")


def test_code_that_cannot_be_traced(painter, tmp_path, monkeypatch):
    def render(self, codes, intrinsic):
        picture = self.net(codes["seen"]).sigmoid()
        return picture if np.asarray(picture.detach()).mean() > 0 else picture * 2

    monkeypatch.setattr(Painter, "render", render)
    with pytest.raises(ConfigError, match="torch cannot write this generator as one graph"):
        export_onnx(painter, tmp_path / "a.onnx")


def test_missing_package(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependency, match=r"needs onnxscript, not installed here: pip install 'ilora\[onnx\]'"):
        export_onnx(painter, tmp_path / "a.onnx")
