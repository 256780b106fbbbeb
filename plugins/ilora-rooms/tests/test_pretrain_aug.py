"""The multi-step base in miniature: it starts as the base model, learns, resumes exactly, and exports what the card loads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilora_core.errors import WeightsError
from ilora_rooms import pretrain_aug
from ilora_rooms.aug import augmented
from ilora_rooms.checkpoint import latest_state
from ilora_rooms.data import Pictures, write_shard
from ilora_rooms.export import load_folder
from ilora_rooms.generator import SHIPPED as BASE
from ilora_rooms.pretrain_aug import STYLES, Plan, Trainer

PLAN = Plan(batch=4, warmup=2, lr=1e-3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_shard(folder, 0, count=12, styles=STYLES)
    return folder


def trainer(cache: Path, plan: Plan = PLAN) -> Trainer:
    return Trainer(plan, Pictures(cache, styles=STYLES))


def test_it_starts_as_the_base_model(cache):
    made, base = trainer(cache), load_folder(BASE)
    wanted, condition, tokens, t, noise = made.pair()
    assert condition.shape == wanted.shape == (4, 12, 16, 16)
    context = made.generator.text(tokens).last_hidden_state
    with torch.no_grad():
        seen = made.net(torch.cat([noise, condition], 1), t, context).sample
        torch.testing.assert_close(seen, base.unet(noise, t, context).sample, atol=1e-5, rtol=0)


def test_pairs_show_one_room_in_two_styles(cache):
    made = trainer(cache, replace(PLAN, batch=32, picture_dropout=0.0, caption_dropout=0.0))
    wanted, condition, tokens, *_ = made.pair()
    scale = made.generator.codec.config.scaling_factor
    pool = made.generator.latents(torch.cat([made.pictures, made.pictures.flip(-1)]).float() / 255)
    row = [(pool - z).abs().amax((1, 2, 3)).argmin().item() for z in wanted]
    other = [(pool - c * scale).abs().amax((1, 2, 3)).argmin().item() for c in condition]
    for a, b, words in zip(row, other, tokens, strict=True):
        assert a // STYLES == b // STYLES  # a room's pictures stand together, its mirrored ones 12 further on
        assert a != b
        assert torch.equal(words, made.tokens[a % 12])


def test_words_and_picture_are_left_out_at_times(cache):
    made = trainer(cache, replace(PLAN, batch=400, picture_dropout=0.5, caption_dropout=0.25))
    _, condition, tokens, *_ = made.pair()
    blind = (condition == 0).flatten(1).all(1).float().mean().item()
    silent = (tokens == made.tokens[-1]).all(1).float().mean().item()
    assert blind == pytest.approx(0.5, abs=0.12)
    assert silent == pytest.approx(0.25, abs=0.12)


def test_the_loss_falls_and_the_text_encoder_stays(cache):
    made = trainer(cache)
    words = {k: v.clone() for k, v in made.generator.text.state_dict().items()}
    losses = [float(made.step()) for _ in range(16)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(torch.equal(words[k], v) for k, v in made.generator.text.state_dict().items())


def test_a_resumed_run_equals_the_unbroken_one_and_exports(cache, tmp_path):
    whole, first = trainer(cache), trainer(cache)
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    facts: dict[str, object] = {"device": "here", "torch": "2", "diffusers": "0"}
    first.save(tmp_path, facts)
    second = trainer(cache)
    second.load(latest_state(tmp_path))
    for _ in range(2):
        second.step()
    assert second.visits == whole.visits == 16
    for a, b in zip(whole.networks.parameters(), second.networks.parameters(), strict=True):
        assert torch.equal(a, b)
    second.save(tmp_path, facts)
    pretrain_aug.main(["--export", str(tmp_path), "--to", str(tmp_path / "aug")])
    card = json.loads((tmp_path / "aug" / "weights.json").read_text())
    assert card["name"] == "rooms-aug"
    assert card["visits"] == 16
    assert card["base"]["name"] == "rooms-ldm"
    made = augmented(weights=str(tmp_path / "aug"))
    assert made.provenance["visits"] == 16
    for name, parameter in made.unet.named_parameters():
        torch.testing.assert_close(parameter, second.average[f"unet.{name}"], atol=2e-3, rtol=2e-3)


def test_a_run_that_began_from_other_weights_is_not_resumed(cache, tmp_path):
    made = trainer(cache)
    made.base = {**made.base, "visits": 1}
    state = made.save(tmp_path, {})
    with pytest.raises(SystemExit, match="began from other weights"):
        trainer(cache).load(state)


def test_a_one_step_model_is_refused():
    with pytest.raises(WeightsError, match="takes a picture beside its latent"):
        augmented(weights=str(BASE))
    with pytest.raises(WeightsError, match="no multi-step rooms model"):
        augmented(weights="nowhere")
