"""Pre-training a VQGAN in miniature: both stages learn, resume exactly, and export what ilora-vqgan loads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilora_rooms import pretrain_prior, pretrain_vqgan
from ilora_rooms.checkpoint import latest_state
from ilora_rooms.codebook import Codebook, kmeans, nearest
from ilora_rooms.data import Pictures, write_shard
from ilora_rooms.export_vqgan import export_parts, load_first_stage
from ilora_rooms.first_stage import picture_codes, reconstruction_loss, report
from ilora_rooms.patch_discriminator import PatchDiscriminator, balance, discriminator_loss, generator_loss
from ilora_vqgan.factories import vqgan

PLAN = pretrain_vqgan.Plan(
    widths=(8, 16),
    latent=8,
    code_width=4,
    codes=16,
    batch=4,
    warmup=2,
    lr=3e-3,
    quantise_from=8,
    critic_from=16,
    visits=10**6,
)
PRIOR = pretrain_prior.Plan(codes=16, length=64, width=16, layers=1, heads=2, batch=8, warmup=2, lr=1e-2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_shard(folder, 0, size=16, count=12)
    return folder


def _first(cache: Path, **changes) -> pretrain_vqgan.Trainer:
    return pretrain_vqgan.Trainer(replace(PLAN, **changes), Pictures(cache))


def _codes(n: int = 24) -> torch.Tensor:
    """Sequences with something to learn: each code is the one before plus one, now and then any."""
    rng = torch.Generator().manual_seed(0)
    start = torch.randint(16, (n, 1), generator=rng)
    return (start + torch.arange(64)) % 16


def _same(one, other) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_first_stage_learns_before_and_after_quantisation(cache: Path) -> None:
    trainer = _first(cache, quantise_from=60, critic_from=10**9)
    losses = [float(trainer.step()) for _ in range(30)]
    assert sum(losses[10:15]) < 0.95 * sum(losses[:5])
    assert sum(losses[-5:]) < sum(losses[:5])
    assert trainer.book.started
    assert torch.equal(trainer.vq.quantize.embedding.weight, trainer.book.sums / trainer.book.counts[:, None])


def test_resuming_gives_the_weights_of_the_unbroken_run(cache: Path, tmp_path: Path) -> None:
    """Across the start of the codebook and that of the critic."""
    whole, first, second = _first(cache), _first(cache), _first(cache)
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    first.save(tmp_path, {})
    second.load(latest_state(tmp_path))
    assert second.book.started
    for _ in range(3):
        second.step()
    assert second.visits == whole.visits == 24
    _same(whole.networks.state_dict(), second.networks.state_dict())
    _same(whole.average, second.average)
    untouched = _first(cache).critic.state_dict()
    assert any(not torch.equal(value, untouched[name]) for name, value in whole.critic.state_dict().items())


def test_the_prior_learns_and_resumes_exactly(tmp_path: Path) -> None:
    whole, first, second = (pretrain_prior.Trainer(PRIOR, _codes()) for _ in range(3))
    losses = [float(whole.step()) for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    for _ in range(10):
        first.step()
    first.save(tmp_path, {})
    second.load(latest_state(tmp_path))
    for _ in range(20):
        second.step()
    _same(whole.prior.state_dict(), second.prior.state_dict())
    _same(whole.average, second.average)


def test_the_rate_is_full_then_falls_to_nothing(cache: Path) -> None:
    trainer = _first(cache, visits=1000, cooldown=0.5)
    shares = []
    for visits in (0, 500, 750, 1000, 2000):
        trainer.visits = visits
        shares.append(trainer.share())
    assert shares == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_both_commands_run_resume_and_export_what_the_plugin_loads(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pretrain_vqgan, "render", lambda seeds: _rooms(cache))
    run, other, weights = tmp_path / "run", tmp_path / "prior", tmp_path / "weights"
    common = ["--cache", str(cache), "--shards", "0", "--batch", "4", "--log-every", "2"]
    first = [
        "--out",
        str(run),
        *common,
        "--widths",
        "8",
        "16",
        "--codes",
        "16",
        "--quantise-from",
        "8",
        "--critic-from",
        "1000",
    ]
    pretrain_vqgan.main([*first, "--visits", "8"])
    with pytest.raises(SystemExit, match="--resume"):
        pretrain_vqgan.main([*first, "--visits", "16"])
    pretrain_vqgan.main([*first, "--visits", "16", "--resume"])
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    pretrain_vqgan.main(["--export", str(run), "--to", str(weights)])
    assert not (weights / "prior").exists()
    second = ["--first-stage", str(weights), "--out", str(other), *common, "--held-out", "4", "--visits", "16"]
    pretrain_prior.main(second)
    pretrain_prior.main(["--export", str(other), "--to", str(weights)])
    about = json.loads((weights / "weights.json").read_text())
    assert about["first_stage"]["visits"] == about["prior"]["visits"] == 16
    assert {path.split("/")[0] for path in about["sha256"]} == {"first_stage", "prior"}
    generator = vqgan(weights=str(weights))
    assert generator.resolution == (16, 16)
    assert generator.picture(generator.sample(2, seed=0)).shape == (2, 3, 16, 16)
    (tmp_path / "run").rename(tmp_path / "kept")  # another first stage: its prior must not be put beside it
    pretrain_vqgan.main([*first, "--visits", "8", "--seed", "1"])
    pretrain_vqgan.main(["--export", str(run), "--to", str(weights)])
    with pytest.raises(SystemExit, match="another first stage"):
        pretrain_prior.main(["--export", str(other), "--to", str(weights)])


def test_the_exports_codes_are_the_trainers_own_up_to_half_precision(cache: Path, tmp_path: Path) -> None:
    trainer = _first(cache)
    for _ in range(4):
        trainer.step()
    folder = export_parts({"first_stage": trainer.averaged()}, tmp_path / "weights", {})
    data = Pictures(cache)
    data.rescan()
    one, other = (picture_codes(vq, data.pictures) for vq in (trainer.averaged(), load_first_stage(folder)))
    assert one.shape == (12, 64)
    assert (one == other).float().mean() > 0.9
    figures = report(load_first_stage(folder), data.pictures, tmp_path / "sheet.png")
    assert figures["psnr_db"] > 5
    assert figures["codes_used"] == len(other.unique())
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_codes_are_remembered_for_one_first_stage_only(cache: Path, tmp_path: Path) -> None:
    data = Pictures(cache)
    data.rescan()
    kept, folders = tmp_path / "codes.npz", []
    for seed in (0, 1):
        folders.append(export_parts({"first_stage": replace(PLAN, seed=seed).build(16)}, tmp_path / str(seed), {}))
    codes = pretrain_prior.codes_of(folders[0], data.pictures, kept)
    assert codes.shape == (12, 2, 64)
    assert torch.equal(codes[:, 1], picture_codes(load_first_stage(folders[0]), data.pictures.flip(-1)))
    stamp = kept.stat().st_mtime_ns
    assert torch.equal(pretrain_prior.codes_of(folders[0], data.pictures, kept), codes)
    assert kept.stat().st_mtime_ns == stamp
    assert not torch.equal(pretrain_prior.codes_of(folders[1], data.pictures, kept), codes)


@pytest.mark.parametrize("module", [pretrain_vqgan, pretrain_prior])
def test_exporting_nothing_says_what_to_do(module, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run pre-training first"):
        module.main(["--export", str(tmp_path), "--to", str(tmp_path / "weights")])


def test_kmeans_finds_clusters_and_a_dead_code_is_moved() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=rng)).flatten(0, 1)
    found = kmeans(vectors, 6, rng)
    assert (vectors - found[nearest(vectors, found)]).norm(dim=1).max() < 1
    for revive in (True, False):
        embedding, book = torch.tensor([[0.0, 0.0], [99.0, 99.0]]), Codebook(2, 2, decay=0.5)
        book.counts.data.copy_(torch.tensor([75.0, 0.01]))
        book.sums.data.copy_(embedding * book.counts[:, None])
        book.update(vectors, nearest(vectors, embedding), embedding, rng, revive=revive)
        assert torch.allclose(embedding[0], vectors.mean(0) * 2 / 3, atol=0.1)  # (75·0 + 150·mean) / 2 over their count
        moved = (vectors - embedding[1]).norm(dim=1).min() < 1e-5
        assert moved == revive
        assert revive or torch.allclose(embedding[1], torch.full((2,), 99.0))


def test_the_adversarial_parts() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.5 + 0.75)
    assert float(generator_loss(fake)) == pytest.approx(1.25)
    assert PatchDiscriminator(8)(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 4, 4)
    last = torch.ones(3, requires_grad=True)
    assert float(balance((last * 6).sum(), (last * 2).sum(), last)) == pytest.approx(3, rel=1e-3)


def test_the_pictures_loss_is_zero_for_the_picture_alone_and_sees_colour_and_edges() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(reconstruction_loss(picture, picture)) == 0
    lighter, noisy = picture + 0.1, picture + 0.1 * (-1) ** torch.arange(16)
    assert float(reconstruction_loss(lighter, picture)) == pytest.approx(0.01 + 0.3, abs=1e-5)
    redder = picture + torch.tensor([0.1, 0, 0]).view(3, 1, 1)
    assert float(reconstruction_loss(redder, picture)) == pytest.approx(0.01 / 3 + 0.1 + 0.4 / 3, abs=1e-5)
    edges = float(reconstruction_loss(noisy, picture, gradient=1)) - float(
        reconstruction_loss(noisy, picture, gradient=0)
    )
    assert edges == pytest.approx(0.2, abs=1e-5)


def _rooms(cache: Path):
    data = Pictures(cache)
    data.rescan()
    return type("Rooms", (), {"picture": data.pictures.float() / 255})
