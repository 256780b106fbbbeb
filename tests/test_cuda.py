"""What only a GPU can show. Skipped without one; `pytest -m cuda` runs these alone."""

import warnings

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.config import RuntimeConfig, TrainConfig
from ilora_core.intrinsics import NORMALS
from ilora_core.runtime import make_accelerator, place
from ilora_core.testing.scenes import make_scenes
from ilora_core.trainer import PreparedSet, Trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
    pytestmark = [
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
        pytest.mark.filterwarnings("default"),  # other libraries' advice on a GPU is not what is tested
    ]


@pytest.fixture(autouse=True)
def _deterministic():
    """Full float32: TensorFloat-32 keeps 10 bits."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


class Run:
    """A tiny model, two analytic scenes, their normals: prepared and ready to train."""

    def __init__(self, device: str, precision: str = "fp32", *, steps: int = 5, lr: float = 1e-3, **train):
        from ilora_sd.factories import tiny

        runtime = RuntimeConfig(device=device, precision=precision)
        accelerator = make_accelerator(runtime)
        self.generator = tiny()
        place(self.generator, runtime, accelerator)
        scenes = make_scenes(64, 64)
        target = NORMALS.to_picture(scenes.maps["normals"], scenes.valid)
        codes = dict(self.generator.encode(scenes.pictures))
        codes |= self.generator.prepare(codes, NORMALS, target, scenes.valid)
        self.adapter = LoraAdapter(rank=4)
        self.adapter.attach(self.generator.net, self.generator.targets)
        data = PreparedSet(["a", "b"], {name: value.cpu() for name, value in codes.items()})
        config = TrainConfig(steps=steps, batch=2, lr=lr, **train)
        self.trainer = Trainer(self.generator, self.adapter, NORMALS, data, config, accelerator)
        self.codes = {name: codes[name] for name in ("latent",)}

    def losses(self) -> list[float]:
        return [float(step.loss) for step in self.trainer]


def test_fp32_is_the_cpu_result():
    runs = [Run(device) for device in ("cpu", "cuda")]
    cpu, gpu = (torch.tensor(run.losses()) for run in runs)
    torch.testing.assert_close(gpu, cpu, atol=1e-5, rtol=1e-4)
    weights = [run.adapter.state_dict() for run in runs]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-3, rtol=0, msg=lambda text, k=key: f"{k}: {text}")
    drawn = [run.generator.render(run.codes, NORMALS).cpu() for run in runs]
    torch.testing.assert_close(drawn[1], drawn[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_loss_decreases(precision):
    run = Run("cuda", precision, steps=60, lr=1e-2)
    losses = run.losses()
    assert all(loss == loss for loss in losses)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert {p.dtype for p in run.adapter.parameters()} == {torch.float32}
    assert (
        run.generator.net.conv_in.weight.dtype
        == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    )


def test_bf16_is_near_fp32():
    full, half = (torch.tensor(Run("cuda", precision).losses()) for precision in ("fp32", "bf16"))
    torch.testing.assert_close(half, full, atol=0.02, rtol=0.05)


def test_parking_frees_memory_and_changes_nothing():
    run = Run("cuda")
    run.generator.render(run.codes, NORMALS)  # brings the VAE to the device
    full = torch.cuda.memory_allocated()
    before = run.generator.picture(run.codes)
    run.generator.park()
    moved = sum(p.numel() * p.element_size() for p in run.generator.vae.parameters())
    assert torch.cuda.memory_allocated() <= full - moved // 2
    assert all(p.device.type == "cpu" for p in run.generator.vae.parameters())
    assert all(p.device.type == "cuda" for p in run.generator.net.parameters())
    torch.testing.assert_close(run.generator.picture(run.codes), before)


def test_training_calls_neither_vae_nor_text_encoder():
    run = Run("cuda", steps=4)
    run.generator.park()
    calls = []
    for module in (run.generator.vae.encoder, run.generator.vae.decoder, run.generator.text_encoder):
        module.register_forward_pre_hook(lambda module, _: calls.append(type(module).__name__))
    assert len(run.losses()) == 4
    assert not calls
    run.generator.picture(run.codes)
    assert calls == ["Decoder"]


def test_a_resumed_run_goes_on_closely():
    whole = Run("cuda", steps=6)
    expected = whole.losses()
    first = Run("cuda", steps=6)
    steps = iter(first.trainer)
    begun = [float(next(steps).loss) for _ in range(3)]
    second = Run("cuda", steps=6)
    second.trainer.load_state_dict(first.trainer.state_dict())
    torch.testing.assert_close(torch.tensor(begun + second.losses()), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_fit_and_predict_through_the_front_door(tiny_model, tiny_pairs, tmp_path):
    from ilora_core.artefact import find_artefacts
    from ilora_core.config import FitConfig
    from ilora_core.fit import fit
    from ilora_core.predict import Predictor

    settings = {
        "generator": {"weights": str(tiny_model)},
        "train": {"steps": 4, "batch": 2, "keep_every": 2},
        "runtime": {"device": "cuda", "precision": "bf16"},
    }
    config = FitConfig("sd", (NORMALS,), pairs=str(tiny_pairs), validation=2, settings=settings)
    for _ in fit(config, tmp_path / "run"):
        pass
    artefacts = find_artefacts(tmp_path / "run")
    pictures = make_scenes(64, 64).pictures
    maps = [
        Predictor(artefacts, runtime=RuntimeConfig(device=device))(pictures)["normals"] for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(maps[1], maps[0], atol=1e-2, rtol=0)


@pytest.mark.parametrize("made", ["tiny", "tiny3", "tiny_xl"])
def test_gans_draw_on_the_gpu_what_they_draw_on_the_cpu(made):
    from ilora_core.testing.exercise import attach_lora, disturb
    from ilora_stylegan import factories

    found = {}
    for device in ("cpu", "cuda"):
        generator = getattr(factories, made)()
        disturb(attach_lora(generator))
        codes = dict(generator.sample(2, seed=3))  # on the CPU, for both
        generator.to(device)
        side = generator.resolution[0]
        target = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        codes |= generator.prepare(codes, NORMALS, target, torch.ones(2, 1, side, side, dtype=torch.bool))
        drawn = generator.picture(codes), generator.render(codes, NORMALS), generator.loss(codes, NORMALS)
        found[device] = [value.detach().cpu() for value in drawn]
    for cpu, gpu in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-4)
