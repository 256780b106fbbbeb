"""Pre-training in miniature: it learns, resumes exactly, and exports what diffusers can load."""

from pathlib import Path

import pytest
import torch

from ilora_rooms import pretrain
from ilora_rooms.checkpoint import latest_state
from ilora_rooms.codec import PatchCodec
from ilora_rooms.data import Pictures, write_shard
from ilora_rooms.experiment import Rows
from ilora_rooms.export import export_folder, load_folder
from ilora_rooms.model import build, sample
from ilora_rooms.pretrain import Plan, Trainer
from ilora_rooms.probe import normals_probe
from ilora_rooms.source import RoomsSource

TINY = (16, 32, 32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_shard(folder, 0, size=32, count=12)
    return folder


@pytest.fixture(scope="module")
def codec(cache: Path) -> PatchCodec:
    data = Pictures(cache)
    data.rescan()
    return PatchCodec.fit(data.pictures.float() / 255)


def _trainer(cache: Path, codec: PatchCodec, prediction: str = "epsilon") -> Trainer:
    plan = Plan(prediction=prediction, batch=4, warmup=2, widths=TINY, lr=2e-3)
    return Trainer(plan, codec, Pictures(cache))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_falls(cache: Path, codec: PatchCodec, prediction: str) -> None:
    trainer = _trainer(cache, codec, prediction)
    losses = [float(trainer.step()) for _ in range(20)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_resuming_gives_the_weights_of_the_unbroken_run(cache: Path, codec: PatchCodec, tmp_path: Path) -> None:
    whole = _trainer(cache, codec)
    for _ in range(6):
        whole.step()
    first = _trainer(cache, codec)
    for _ in range(3):
        first.step()
    first.save(tmp_path, {})
    second = _trainer(cache, codec)
    second.load(latest_state(tmp_path))
    for _ in range(3):
        second.step()
    assert second.visits == whole.visits == 24
    for name, value in whole.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


def test_states_come_in_small_files_and_old_ones_go(cache: Path, codec: PatchCodec, tmp_path: Path) -> None:
    trainer = _trainer(cache, codec)
    trainer.step()
    trainer.save(tmp_path, {})
    trainer.step()
    state = trainer.save(tmp_path, {}, compact=True)
    assert [p.name for p in tmp_path.iterdir()] == [state.name]
    assert max(p.stat().st_size for p in state.iterdir()) < 15_000_000
    trainer.load(state)


def test_the_export_loads_with_diffusers_and_draws(codec: PatchCodec, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    generator = build(codec, "epsilon", widths=TINY)
    folder = export_folder(generator, tmp_path / "ldm", {"visits": 0, "device": "test"})
    assert {p.name for p in folder.iterdir()} == {
        "model_index.json", "weights.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler",
    }  # fmt: skip
    net = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    assert net.dtype == torch.float16 or net.dtype == torch.float32
    loaded = load_folder(folder)
    pictures = sample(loaded, ["a red room with a wooden floor"], steps=2)
    assert pictures.shape == (1, 3, 64, 64)
    assert pictures.isfinite().all()
    for (name, a), b in zip(generator.unet.state_dict().items(), loaded.unet.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3), name


def test_shards_appear_whole_and_are_not_rendered_twice(cache: Path) -> None:
    data = Pictures(cache)
    assert data.rescan()
    assert not data.rescan()
    assert len(data) == 12
    stamp = next(cache.iterdir()).stat().st_mtime_ns
    write_shard(cache, 0, size=32, count=12)
    assert next(cache.iterdir()).stat().st_mtime_ns == stamp


def test_exporting_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run pre-training first"):
        pretrain.main(["--export", str(tmp_path)])


def test_the_probe_reads_normals_from_random_features_better_than_chance(codec: PatchCodec, tmp_path: Path) -> None:
    folder = export_folder(build(codec, "epsilon", widths=TINY), tmp_path / "model", {})
    rows = Rows.of(RoomsSource(n=12))
    assert 5 < normals_probe(str(folder), rows, rows, timestep=999) < 60
