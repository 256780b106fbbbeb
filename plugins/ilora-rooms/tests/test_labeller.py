"""The labeller in miniature: units, its training (it learns, resumes exactly), its export, its report, the shipped file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_rooms import labeller_report, pretrain_labeller
from ilora_rooms.checkpoint import latest_state
from ilora_rooms.experiment import Rows
from ilora_rooms.export import LIMIT_BYTES
from ilora_rooms.labeller import CHANNELS, SHIPPED, RoomsNet, decode, encode, labeler, tiny
from ilora_rooms.labeller_export import export_labeller
from ilora_rooms.pretrain_labeller import LabelPlan, LabelTrainer, answers_of, augment, losses
from ilora_rooms.render import linear_to_srgb
from ilora_rooms.source import RoomsSource
from ilora_rooms.splits import SPLITS

NARROW = (8, 16, 16)


@pytest.fixture(scope="module")
def source() -> RoomsSource:
    return RoomsSource(split="labeller", n=6, size=16, batch_size=3)


@pytest.fixture(scope="module")
def rows(source: RoomsSource) -> Rows:
    return Rows.of(source)


@pytest.fixture(scope="module")
def answers(source: RoomsSource) -> torch.Tensor:
    return answers_of(source)


def _trainer(answers: torch.Tensor) -> LabelTrainer:
    return LabelTrainer(LabelPlan(rooms=6, batch=4, warmup=2, visits=400, lr=5e-3, widths=NARROW), answers)


def _noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def _maps(rows: Rows) -> dict[str, torch.Tensor]:
    return {name: value for name, (value, _) in rows.maps.items()}


def test_answers_stand_for_the_maps_they_were_made_from(rows: Rows) -> None:
    valid = rows.maps["depth"][1]
    told = decode(encode(_maps(rows), valid))
    for name, value in _maps(rows).items():
        torch.testing.assert_close(told[name][0], value, rtol=1e-4, atol=1e-4)
        assert torch.equal(told[name][1], valid)
    assert not valid.all(), "no window among these rooms: choose others"


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (64, 40)])
def test_every_size_gets_labels_of_its_own_size(size: tuple[int, int]) -> None:
    for value, valid in tiny().label(_noise(2, *size)).values():
        assert value.shape[-2:] == valid.shape[-2:] == size


def test_odd_sides_are_padded_with_their_own_edge_at_the_far_side() -> None:
    seen: list[torch.Tensor] = []
    model, picture = tiny(), _noise(1, 17, 30)
    net = model.net
    model.net = lambda pictures: seen.append(pictures) or net(pictures)
    model.label(picture)
    assert seen[0].shape == (1, 3, 24, 32)
    assert torch.equal(seen[0][..., :17, :30], picture)
    assert torch.equal(seen[0][..., 17:, :30], picture[..., 16:, :].expand(-1, -1, 7, -1))


def test_a_room_without_a_change_of_light_shows_its_own_picture(rows: Rows, answers: torch.Tensor) -> None:
    """Any step's picture is the product of that step's albedo and shading, up to blur, noise and gamma."""
    exact = 0
    for seed in range(20):
        pictures, shown = augment(answers.float(), torch.Generator().manual_seed(seed))
        maps = decode(shown)
        product = linear_to_srgb((maps["albedo"][0] * maps["shading"][0]).clamp(0, 1))
        off = (product - pictures).abs().amax((1, 2, 3))
        exact += int((off < 1e-3).sum())
        assert off.median() < 0.3
    assert exact > 0.15 * 20 * len(answers)
    plain = linear_to_srgb((rows.maps["albedo"][0] * rows.maps["shading"][0]).clamp(0, 1))
    assert (plain - rows.pictures).abs().max() < 0.003


def test_a_mirrored_room_has_mirrored_normals(rows: Rows, answers: torch.Tensor) -> None:
    mirrored = 0
    for seed in range(8):
        _, shown = augment(answers.float(), torch.Generator().manual_seed(seed))
        for now, then in zip(shown, answers.float(), strict=True):
            if torch.equal(now[3], then[3]):
                assert torch.equal(now[:3], then[:3])
                continue
            mirrored += 1
            assert torch.equal(now[3], then[3].flip(-1))
            assert torch.equal(now[0], -then[0].flip(-1))
            assert torch.equal(now[1:3], then[1:3].flip(-1))
    assert 0 < mirrored < 8 * len(answers)


def test_the_loss_is_nought_at_the_truth_and_ignores_panes(answers: torch.Tensor) -> None:
    truth = answers.float()
    assert losses(truth, truth).max() < 1e-2
    pane = truth[:, 10:] > 0
    wrong = torch.where(pane.expand(-1, CHANNELS, -1, -1), truth + 1, truth)
    torch.testing.assert_close(losses(wrong, truth)[:4], losses(truth, truth)[:4])
    everywhere = losses(truth + 1, truth)
    assert (everywhere[:4] > 0.3).all()


def test_the_loss_falls(answers: torch.Tensor) -> None:
    trainer = _trainer(answers)
    found = [float(trainer.step().sum()) for _ in range(40)]
    assert sum(found[-8:]) < 0.8 * sum(found[:8])


def test_resuming_gives_the_weights_of_the_unbroken_run(answers: torch.Tensor, tmp_path: Path) -> None:
    whole, first, second = (_trainer(answers) for _ in range(3))
    for _ in range(5):
        whole.step()
    for _ in range(2):
        first.step()
    first.save(tmp_path, {})
    folder = latest_state(tmp_path)
    assert folder is not None
    second.load(folder)
    for _ in range(3):
        second.step()
    assert second.visits == whole.visits == 20
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


def test_the_command_trains_on_its_own_split_resumes_and_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        pretrain_labeller, "RoomsSource", lambda **how: asked.append(how["split"]) or RoomsSource(**how)
    )
    common = ["--out", str(tmp_path / "run"), "--n", "4", "--size", "16", "--batch", "2", "--log-every", "1"]
    pretrain_labeller.main([*common, "--visits", "4"])
    assert asked == ["labeller"]
    with pytest.raises(SystemExit, match="--resume"):
        pretrain_labeller.main([*common, "--visits", "8"])
    pretrain_labeller.main([*common, "--visits", "8", "--resume"])
    target = tmp_path / "weights"
    pretrain_labeller.main(["--export", str(tmp_path / "run"), "--to", str(target), "--judged", "3", "--size", "16"])
    card = json.loads((target / "weights.json").read_text())
    assert card["visits"] == 8
    assert card["own_errors"]["n"] == 3
    assert set(card["own_errors"]["normals / normals-pooled"]) == {"labeller", "rough"}
    model = labeler(weights=str(target))
    assert model.weights_hash == card["sha256"]["labeller.safetensors"]
    capsys.readouterr()
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    options = ["--n", "3", "--labels", "3", "--size", "16", "--weights", str(target)]
    labeller_report.main([*options, "--out", str(out), "--sheet", str(sheet)])
    assert "depth / metric, 3 rooms" in capsys.readouterr().out
    assert str(tmp_path) not in out.read_text()
    results = json.loads(out.read_text())["results"]
    assert results["shading / scale-invariant"]["labeller"]["n"] == 3
    assert sheet.stat().st_size > 0


def test_the_report_knows_a_perfect_labeller_from_the_mean_map(rows: Rows) -> None:
    model = tiny()
    model.imitate(_maps(rows))
    scores = labeller_report.score_labeller(model, rows, rows)
    for title, methods in scores.items():
        figure = next(iter(methods["labeller"].figures))
        assert methods["labeller"].figures[figure].value < 0.05 < methods["mean map"].figures[figure].value, title


def test_exports_hold_the_network_and_its_hash(tmp_path: Path) -> None:
    net = RoomsNet(NARROW)
    export_labeller(net, tmp_path / "weights", {"visits": 0})
    path = tmp_path / "weights" / "labeller.safetensors"
    model = labeler(weights=str(tmp_path / "weights"))
    assert model.weights_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    picture = _noise(1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.net(picture), net.eval()(picture), atol=5e-3, rtol=5e-3)


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pretrain_labeller"):
        labeler(weights=str(tmp_path))
    with pytest.raises(SystemExit, match="run pretrain_labeller first"):
        pretrain_labeller.main(["--export", str(tmp_path)])


def test_shipped_weights_are_the_recorded_ones_and_beat_the_mean_map() -> None:
    card = json.loads((SHIPPED / "weights.json").read_text())
    path = SHIPPED / "labeller.safetensors"
    assert {p.name for p in SHIPPED.iterdir()} == {"weights.json", path.name}
    assert card["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card["bytes"] == path.stat().st_size <= LIMIT_BYTES
    assert card["licence"] == "Apache-2.0"
    test, labels = (Rows.of(RoomsSource(split=split, n=4)) for split in ("test", "labels"))
    assert not {int(key[5:]) for key in (*test.keys, *labels.keys)} & set(SPLITS["labeller"])
    for title, methods in labeller_report.score_labeller(labeler(), test, labels).items():
        figure = next(iter(methods["labeller"].figures))
        assert methods["labeller"].figures[figure].value < 0.75 * methods["mean map"].figures[figure].value, title
