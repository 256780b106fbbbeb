"""Pre-training of the GAN in miniature: it resumes exactly, grows without a jump, and exports what loads back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ilora_core.errors import WeightsError
from ilora_rooms import export_gan as exporting
from ilora_rooms import pretrain_gan
from ilora_rooms.augment import KINDS, augment
from ilora_rooms.checkpoint import latest_state
from ilora_rooms.data import Pictures
from ilora_rooms.discriminator import Discriminator, minibatch_deviation
from ilora_rooms.export_gan import load_gan, sample_sheet
from ilora_rooms.gan_plan import Plan, stages_of
from ilora_rooms.pretrain_gan import Trainer, r1
from ilora_rooms.scene import WORLD

TINY = Plan(stages=((8, 16), (16, 32)), batch=4, base=128, widest=8, mapping_layers=2, latent=8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    pictures = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    np.savez(folder / f"{WORLD}-shard-00000.npz", pictures=pictures, captions=np.array(["a room"] * 12))
    return folder


@pytest.fixture
def trainer(cache: Path) -> Trainer:
    return Trainer(TINY, Pictures(cache))


def _steps(trainer: Trainer, n: int) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in trainer.step().items()} for _ in range(n)]


def test_losses_start_at_log_two_and_stay_finite(trainer: Trainer) -> None:
    rows = _steps(trainer, 8)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert 0.2 < rows[0]["generator"] < 2
    assert 0.5 < rows[0]["critic"] < 4


def test_autocast_keeps_losses_and_weights_in_float32(cache: Path, trainer: Trainer) -> None:
    half = Trainer(TINY, Pictures(cache), bf16=True)
    for exact, rough in zip(_steps(trainer, 2), _steps(half, 2), strict=True):
        assert rough == pytest.approx(exact, abs=0.1)
        assert rough != exact
    assert {value.dtype for value in half.networks.state_dict().values()} == {torch.float32}


def test_resuming_gives_the_weights_of_the_unbroken_run(cache: Path, tmp_path: Path) -> None:
    plan = replace(TINY, augment=KINDS)
    whole, first, second = (Trainer(plan, Pictures(cache)) for _ in range(3))
    _steps(whole, 6)  # crosses the change of resolution at 16 images
    _steps(first, 3)
    first.save(tmp_path, {})
    second.load(latest_state(tmp_path))
    _steps(second, 3)
    assert second.images == whole.images == 24
    for name, value in whole.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


def test_a_compact_state_is_smaller_and_close(trainer: Trainer, cache: Path, tmp_path: Path) -> None:
    _steps(trainer, 2)
    exact = trainer.save(tmp_path / "exact", {})
    compact = trainer.save(tmp_path / "compact", {}, compact=True)
    size = {p: sum(f.stat().st_size for f in p.glob("*.safetensors")) for p in (exact, compact)}
    assert size[compact] < 0.85 * size[exact]
    other = Trainer(TINY, Pictures(cache))
    other.load(compact)
    for name, value in trainer.average.items():
        torch.testing.assert_close(other.average[name], value, atol=1e-3, rtol=1e-3)


def test_old_states_go(trainer: Trainer, tmp_path: Path) -> None:
    trainer.save(tmp_path, {})
    _steps(trainer, 1)
    state = trainer.save(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == [state.name]


def test_stages_set_the_size_of_the_pictures(trainer: Trainer) -> None:
    rng = torch.Generator().manual_seed(0)
    for images, size in ((0, 8), (15, 8), (16, 16), (47, 16), (48, 16)):
        trainer.images = images
        assert trainer.size() == size
        assert trainer.real(rng).shape == trainer.fake(rng).shape == (4, 3, size, size)


def test_what_a_later_stage_adds_starts_at_zero(trainer: Trainer) -> None:
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ws = trainer.generator.mapping(z)
        small, large = (trainer.generator(ws, noise="none", up_to=size) for size in (8, 16))
        from ilora_stylegan.resample import fir, upsample2

        torch.testing.assert_close(large, upsample2(small, fir((1, 3, 3, 1))))
        flat = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        doubled = flat.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(trainer.critic(doubled), trainer.critic(flat))
    before = {name: value.clone() for name, value in trainer.generator.named_parameters()}
    _steps(trainer, 4)
    assert torch.equal(
        before["synthesis.b16.conv1.weight"], trainer.generator.get_parameter("synthesis.b16.conv1.weight")
    )
    _steps(trainer, 2)
    for name in ("synthesis.b16.torgb.weight", "synthesis.b16.conv1.weight"):
        assert not torch.equal(before[name], trainer.generator.get_parameter(name)), name


def test_stages_must_grow() -> None:
    assert stages_of("16:100,64:50") == ((16, 100), (64, 50))
    with pytest.raises(ValueError, match="stages grow"):
        stages_of("32:100,16:50")


def test_r1_of_a_quadratic_critic() -> None:
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a / 2 * x.square().sum((1, 2, 3))

    critic, x = Quadratic(), torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    penalty = r1(critic, x)  # grad = a x, so the penalty is a^2 mean |x|^2 and its derivative 2 a mean |x|^2
    power = float(x.square().sum((1, 2, 3)).mean())
    assert float(penalty.detach()) == pytest.approx(9 * power, rel=1e-5)
    (slope,) = torch.autograd.grad(penalty, critic.a)
    assert float(slope) == pytest.approx(6 * power, rel=1e-5)


def test_the_penalty_scales_with_the_area_and_comes_every_sixteenth_step(trainer: Trainer, monkeypatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(pretrain_gan, "r1", lambda critic, real: seen.append(trainer.step_number) or torch.ones(()))
    rng = torch.Generator().manual_seed(0)
    assert float(trainer.penalty(torch.zeros(4, 3, 16, 16), rng)) == pytest.approx(0.5 / 16 / 2 * 16)
    seen.clear()
    _steps(trainer, 17)
    assert seen == [0, 16]


def test_the_average_follows_with_its_half_life(trainer: Trainer) -> None:
    name = "synthesis.b4.conv1.bias"
    trainer.average[name].zero_()
    trainer.generator.get_parameter(name).data.fill_(1.0)
    trainer.images = 1000  # half-life 50 images = 12.5 steps
    for _ in range(25):
        trainer._follow()
    torch.testing.assert_close(trainer.average[name], torch.full((8,), 0.75))


def test_the_critic_reads_every_size_and_groups() -> None:
    critic = Discriminator((8, 8, 4))
    for size in (8, 16):
        assert critic(torch.zeros(4, 3, size, size)).shape == (4,)
    x = torch.arange(8.0).view(8, 1, 1, 1)
    spread = minibatch_deviation(x, 4)[:, 1, 0, 0]  # groups {0,2,4,6} and {1,3,5,7}, deviation sqrt(5)
    torch.testing.assert_close(spread, torch.full((8,), math.sqrt(5.0)))
    assert minibatch_deviation(x[:3], 4).shape == (3, 2, 1, 1)


def test_augmentation_repeats_by_seed_keeps_the_mean_and_passes_gradients() -> None:
    x = torch.rand(256, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    draws = [augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    colours = augment(x, torch.Generator().manual_seed(3), ("colour",))
    assert float(colours.detach().mean()) == pytest.approx(float(x.detach().mean()), abs=0.05)
    assert 0.8 < float((colours.std() / x.std()).detach()) < 2
    kept = (augment(torch.ones(256, 3, 16, 16), torch.Generator().manual_seed(4), ("cutout",)) != 0).float().mean()
    assert 0.75 < float(kept) < 0.9  # a quarter is cut, less what falls outside
    (gradient,) = torch.autograd.grad(draws[0].sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert augment(x, torch.Generator(), ()) is x


def test_a_shift_moves_whole_pixels() -> None:
    x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 1
    shifted = augment(x, torch.Generator().manual_seed(5), ("shift",))
    inner = shifted[:, :, 4:12, 4:12]
    windows = [x[:, :, 4 + dy : 12 + dy, 4 + dx : 12 + dx] for dy in range(-2, 3) for dx in range(-2, 3)]
    matches = torch.stack([(inner == window).flatten(1).all(1) for window in windows])
    assert matches.any(0).all()
    assert matches.any(1).sum() > 5


def test_the_export_loads_back_and_draws(trainer: Trainer, tmp_path: Path) -> None:
    _steps(trainer, 5)
    pretrain_gan.milestone(trainer, tmp_path / "gan", {"device": "test"})
    card = json.loads((tmp_path / "gan" / "weights.json").read_text())
    assert card["images"] == 20
    assert card["licence"] == "Apache-2.0"
    assert sorted(card["sha256"]) == ["config.json", "model.safetensors"]
    net, loaded = trainer.averaged(), load_gan(tmp_path / "gan")
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.mapping.w_avg.abs().sum() > 0
    sample_sheet(loaded, tmp_path / "sheet.png", n=8)
    assert (tmp_path / "gan.png").stat().st_size > 0
    assert (tmp_path / "sheet.png").exists()


def test_an_export_that_is_too_large_is_refused(trainer: Trainer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exporting, "LIMIT_BYTES", 100)
    with pytest.raises(WeightsError, match="narrower"):
        pretrain_gan.milestone(trainer, tmp_path / "gan", {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_stops_resumes_and_ships(cache: Path, tmp_path: Path) -> None:
    tiny = "--batch=4 --base=128 --widest=8 --mapping-layers=2 --latent=8 --shards=0 --log-every=2"
    given = ["--out", str(tmp_path), "--cache", str(cache), "--stages", "8:8,16:8", *tiny.split()]
    pretrain_gan.main([*given, "--minutes", "0"])
    with pytest.raises(SystemExit, match="--resume"):
        pretrain_gan.main(given)
    pretrain_gan.main([*given, "--resume"])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [8, 16]
    pretrain_gan.main(["--export", str(tmp_path), "--to", str(tmp_path / "shipped")])
    assert load_gan(tmp_path / "shipped").resolution == 16
    assert (tmp_path / "shipped.png").exists()
    assert (tmp_path / "snapshots" / "000000016" / "config.json").exists()


def test_exporting_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run pre-training first"):
        pretrain_gan.main(["--export", str(tmp_path)])
