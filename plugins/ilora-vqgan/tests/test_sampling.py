"""Drawing codes: the same with and without a cache, alone and in company, and from the distribution that was asked for."""

import pytest
import torch

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds
from ilora_vqgan.factories import tiny
from ilora_vqgan.loading import load_components
from ilora_vqgan.model import VQGAN
from ilora_vqgan.sampling import cache_rows, draw_codes


@pytest.fixture
def prior():
    return tiny().prior


def test_keys_and_values_kept_or_not_the_codes_are_the_same(project):
    components = load_components(str(project))
    kept, not_kept = (VQGAN(components, top_k=20, use_cache=use) for use in (True, False))
    codes = kept.sample(3, seed=1)["codes"]
    assert torch.equal(codes, not_kept.sample(3, seed=1)["codes"])
    assert codes.shape == (3, 8, 8)
    assert codes.dtype == torch.int16


def test_each_position_is_fed_once_with_a_cache_and_all_before_it_without(prior):
    fed = []
    prior.transformer.register_forward_pre_hook(lambda _m, args: fed.append(args[0].shape[1]))
    draw_codes(prior, [1], length=4)
    draw_codes(prior, [1], length=4, use_cache=False)
    assert fed == [1, 1, 1, 1, 1, 2, 3, 4]


def test_a_sample_depends_on_its_seed_alone():
    generator = tiny()
    many = generator.sample(5, seed=2)["codes"]
    assert torch.equal(generator.sample(2, seed=2)["codes"], many[:2])
    generator._rows = 2  # batches of 2, 2 and 1
    assert torch.equal(generator.sample(5, seed=2)["codes"], many)
    assert len({tuple(row.flatten().tolist()) for row in many}) == 5


def test_drawing_does_not_touch_the_global_random_state():
    before = torch.get_rng_state()
    tiny().sample(2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_zero_is_the_likeliest_code_at_every_step(prior):
    codes = draw_codes(prior, [1, 2], length=10, temperature=0.0)
    assert torch.equal(codes[0], codes[1])
    fed = torch.cat([torch.zeros(1, 1, dtype=torch.long), codes[:1, :-1]], 1)
    with torch.no_grad():
        assert torch.equal(prior(fed).logits.argmax(-1), codes[:1])


def test_only_the_likeliest_k_are_drawn_and_as_often_as_the_prior_says(prior):
    with torch.no_grad():
        logits = prior(torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
    drawn = draw_codes(prior, [mix_seeds(0, i) for i in range(4000)], length=1, top_k=6, temperature=0.5)[:, 0]
    best = logits.topk(6).indices
    assert set(drawn.tolist()) <= set(best.tolist())
    wanted = (logits[best] / 0.5).softmax(0)
    seen = torch.stack([(drawn == code).float().mean() for code in best])
    assert (seen - wanted).abs().max() < 0.03


def test_the_start_token_conditions_and_is_not_returned(prior):
    one, other = (draw_codes(prior, [3], length=64, start=start, temperature=0.0) for start in (0, 9))
    assert one.shape == (1, 64)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"top_k": -1}, "top_k"), ({"temperature": -1.0}, "temperature"), ({"temperature": float("nan")}, "temperature")],
)
def test_settings_that_cannot_be_are_refused_at_once(project, settings, told):
    with pytest.raises(ConfigError, match=told):
        VQGAN(load_components(str(project)), **settings)


def test_more_codes_than_positions_are_refused(prior):
    with pytest.raises(ConfigError, match="at most 64 codes"):
        draw_codes(prior, [0], length=65)


def test_a_batch_is_what_the_cache_holds(prior):
    assert cache_rows(prior) == 256
    prior.config.n_layer = 10**6
    assert cache_rows(prior) == 1
