"""Training in miniature: the loss, a step, exact resuming, choosing a checkpoint, and the command from start to export."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import srgb_to_linear
from ilora_paradigms import export, pretrain
from ilora_paradigms.dev import Truth
from ilora_paradigms.labeller import WEIGHTS_FILE, paradigms_labeler
from ilora_paradigms.loss import decomposition_loss, log_distance
from ilora_paradigms.net import WIDE, WIDTHS, ParadigmNet
from ilora_paradigms.paradigm import draw_paradigms
from ilora_paradigms.pretrain_trainer import PRESETS, Trainer, turned
from ilora_paradigms.retinex import retinex_blend
from ilora_paradigms.states import latest_state

SMOKE = replace(PRESETS["smoke"], size=16, final_size=16)


@pytest.fixture(scope="module")
def truth() -> Truth:
    drawn = draw_paradigms(2, 16, torch.Generator().manual_seed(9))
    keys, valid = ("a", "b"), torch.ones(2, 1, 16, 16, dtype=torch.bool)
    return Truth(keys, keys, drawn.picture, drawn.albedo, drawn.shading, valid)


def test_the_loss_is_nought_at_the_truth_and_blind_to_scale(truth: Truth) -> None:
    exact = (truth.shading.log(), truth.albedo.log())
    assert decomposition_loss(exact, truth.shading, truth.albedo).max() < 1e-3
    other = (exact[0] + 0.7, exact[1] - 1.1)
    assert decomposition_loss(other, truth.shading, truth.albedo).max() < 1e-3
    swapped = (truth.albedo.log().mean(1, keepdim=True), truth.shading.log().expand(-1, 3, -1, -1))
    assert decomposition_loss(swapped, truth.shading, truth.albedo).min() > 0.1


def test_the_loss_by_hand() -> None:
    """A quarter of a flat map is e times too bright; the median lies in the rest."""
    truth, guess = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    guess[..., :4] = 1.0
    e, share = 2.718281828, 0.25
    alpha = (share * e + 1 - share) / (share * e**2 + 1 - share)
    fitted = (share * (1 - alpha * e) ** 2 + (1 - share) * (1 - alpha) ** 2) ** 0.5
    steps = (1 / 15 + 1 / 7 + 1 / 3 + 0.5 / 1) / 8  # one border among so many; in the end half a column is bright
    wanted = share * (e**0.5 - 1) + 0.25 * share + 0.5 * steps + 0.5 * fitted
    assert float(log_distance(guess, truth)) == pytest.approx(wanted, abs=1e-4)


def test_the_untrained_network_starts_at_the_blend() -> None:
    torch.manual_seed(0)
    net = ParadigmNet((8, 8, 16)).eval()
    linear = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        log_shading, log_albedo = net(linear)
    assert (log_shading - retinex_blend(linear, (0.3, 0.12))).abs().mean() < 0.15
    assert (log_shading + log_albedo - (linear + 0.01).log()).abs().mean() < 0.15
    for widths, low, high in ((WIDTHS, 1.4e6, 1.8e6), (WIDE, 2.8e6, 3.4e6)):
        assert low < sum(p.numel() for p in ParadigmNet(widths).parameters()) < high


def test_thirty_steps_lower_the_loss() -> None:
    trainer = Trainer(replace(PRESETS["smoke"], lr=4e-3))
    held = draw_paradigms(16, 32, torch.Generator().manual_seed(77))

    def loss() -> float:
        with torch.no_grad():
            answer = trainer.net.eval()(srgb_to_linear(held.picture))
            return float(decomposition_loss(answer, held.shading, held.albedo).sum())

    before = loss()
    trainer.net.train()
    for _ in range(PRESETS["smoke"].steps):
        trainer.step()
    assert loss() < before - 0.01


def test_resuming_gives_the_weights_of_the_unbroken_run(tmp_path: Path) -> None:
    whole, first, second = (Trainer(SMOKE) for _ in range(3))
    for _ in range(11):  # past the end of the first pool
        whole.step()
    for _ in range(4):
        first.step()
    first.keep_if_best(0.5, {})
    first.save(tmp_path, {})
    folder = latest_state(tmp_path)
    assert folder is not None
    second.load(folder)
    assert second.best_facts["step"] == 4
    assert set(second.best) == set(second.average)
    for _ in range(7):
        second.step()
    for name, value in whole.net.named_parameters():
        assert torch.equal(value, dict(second.net.named_parameters())[name]), name
        assert torch.equal(whole.average[name], second.average[name]), name


def test_views_of_a_pool_show_each_picture_equally_often_and_turn_all_maps_alike() -> None:
    trainer, sums = Trainer(SMOKE), []
    per_pool = SMOKE.pool * SMOKE.views // SMOKE.batch
    for trainer.step_number in range(per_pool):
        linear, shading, albedo = trainer.batch()
        sums += shading.double().sum((1, 2, 3)).tolist()
        product = (albedo * shading).flatten(1)
        correlation = [
            float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(linear.flatten(1), product, strict=True)
        ]
        assert min(correlation) > 0.7
    counts = torch.tensor([round(s, 3) for s in sums]).unique(return_counts=True)[1]
    assert counts.tolist() == [SMOKE.views] * SMOKE.pool


def test_turning_is_one_of_eight() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    seen = {tuple(turned(x, torch.Generator().manual_seed(s)).flatten().tolist()) for s in range(80)}
    assert len(seen) == 8


def test_the_best_average_is_kept_and_shipped_not_the_last(truth: Truth) -> None:
    trainer = Trainer(SMOKE)
    trainer.step()
    assert trainer.keep_if_best(0.3, {"A si": 0.1})
    kept = {name: value.clone() for name, value in trainer.average.items()}
    trainer.step()
    assert not trainer.keep_if_best(0.3, {})
    for name, value in trainer.network("best").named_parameters():
        assert torch.equal(value, kept[name])
    assert not torch.equal(trainer.network().head.bias, kept["head.bias"])
    figures = pretrain.dev_figures(trainer.network(), truth)
    assert figures["dev"] == pytest.approx((figures["A si"] + figures["S si"] + figures["ord-err"]) / 3)


def test_the_command_trains_resumes_chooses_and_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Truth, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setitem(pretrain.PRESETS, "smoke", SMOKE)
    monkeypatch.setattr(pretrain, "rooms", lambda *which: asked.append(which) or truth)
    run = tmp_path / "run"
    common = ["--preset", "smoke", "--out", str(run), "--log-every", "1", "--dev-every", "2"]
    pretrain.main([*common, "--steps", "3"])
    with pytest.raises(SystemExit, match="--resume"):
        pretrain.main(common)
    pretrain.main([*common, "--steps", "5", "--resume"])
    assert asked == [("labeller", 50, 16)] * 2
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert any(row.get("best") for row in rows)
    pretrain.main(["--export", str(run), "--to", str(tmp_path / "weights")])
    assert "exported step" in capsys.readouterr().out
    card = json.loads((tmp_path / "weights" / "weights.json").read_text())
    path = tmp_path / "weights" / WEIGHTS_FILE
    assert card["sha256"] == {WEIGHTS_FILE: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card["step"] == 5
    assert card["best"]["dev"] == min(row["dev"] for row in rows if "dev" in row)
    assert str(tmp_path) not in json.dumps(card)
    labeler = paradigms_labeler(weights=str(tmp_path / "weights"))
    assert labeler.weights_hash == card["sha256"][WEIGHTS_FILE]
    assert labeler.label(truth.pictures)["albedo"][0].shape == (2, 3, 16, 16)


def test_a_run_without_states_cannot_be_shipped_nor_a_heavy_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"run ilora_paradigms\.pretrain"):
        pretrain.main(["--export", str(tmp_path)])
    monkeypatch.setattr(export, "LIMIT_BYTES", 100)
    with pytest.raises(ConfigError, match="may ship"):
        export.export_network(ParadigmNet((8, 8, 16)), tmp_path / "weights", {})
    assert not (tmp_path / "weights").exists()
