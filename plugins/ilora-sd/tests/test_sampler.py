"""Schedules, guidance and the solver against the reference stack's numbers."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ilora_core.errors import ConfigError, WeightsError
from ilora_sd.architectures import SCHEDULER
from ilora_sd.sampler import Branch, Sampling, branches, draw, guide
from ilora_sd.schedule import alphas, clean_latent, noised, prediction_of, velocity

ORACLES = Path(__file__).parent / "oracles"
FACTS = json.loads((ORACLES / "sd_tiny.json").read_text())
ALPHAS = alphas(SCHEDULER, zero_snr=True)


@pytest.fixture(scope="module")
def oracle():
    with np.load(ORACLES / "sd_tiny.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def toy_noise() -> torch.Tensor:
    source = np.random.Generator(np.random.PCG64(zlib.crc32(b"input/noise")))
    return torch.from_numpy(source.standard_normal((1, 4, 8, 8), dtype=np.float32))


def toy_answer(x: torch.Tensor, t: int, sampling: Sampling) -> list[torch.Tensor]:
    """The oracle's three branches, those that `sampling` asks for."""
    target, made = torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8), []
    for branch in branches(sampling):
        k = 0.9 if branch.text else 0.6 if branch.picture else 0.2
        clean = k * target + 0.02 * x
        made.append((ALPHAS[t].sqrt() * x - clean) / (1 - ALPHAS[t]).sqrt())
    return made


def toy(sampling: Sampling) -> tuple[torch.Tensor, list[int]]:
    asked: list[int] = []

    def answer(x, t):
        asked.append(t)
        return toy_answer(x, t, sampling)

    return draw(answer, toy_noise(), SCHEDULER, sampling, ALPHAS.tolist()), asked


def three_branches(text, image, blank, *, cfg, image_guidance, rescale):
    """InstructPix2Pix's formula and the rescaling, as they are printed."""
    guided = blank + cfg * (text - image) + image_guidance * (image - blank)
    axes = (1, 2, 3)
    matched = guided * (text.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def test_zero_snr_alphas(oracle):
    torch.testing.assert_close(ALPHAS, oracle["zero_snr_alphas_cumprod"], atol=5e-7, rtol=0)
    assert ALPHAS[-1] == 0
    plain = alphas(SCHEDULER)
    assert plain[-1] > 0.004
    torch.testing.assert_close(ALPHAS[0], plain[0])


def test_noising_and_velocity_are_exact(oracle):
    # The oracle's own table: how a processor rounds powers and products differs in the last bits.
    level = oracle["zero_snr_alphas_cumprod"][FACTS["vel_timesteps"]].view(-1, 1, 1, 1)
    assert torch.equal(noised(oracle["vel/latents"], oracle["vel/noise"], level), oracle["vel/noisy"])
    assert torch.equal(velocity(oracle["vel/latents"], oracle["vel/noise"], level), oracle["vel/target"])


def test_one_step_lands_on_the_clean_latent():
    # At a = 0 the velocity is minus the clean latent, and the solver's last noise level is that of t = 0.
    sampling = Sampling(steps=1, cfg=1.0)
    found, asked = toy(sampling)
    clean = -toy_answer(toy_noise(), 999, sampling)[0]
    assert asked == [999]
    torch.testing.assert_close(
        found, ALPHAS[0].sqrt() * clean + (1 - ALPHAS[0]).sqrt() * toy_noise(), atol=2e-3, rtol=0
    )


def test_a_lower_strength_takes_the_last_steps_from_a_noised_start():
    start, asked = torch.full((1, 4, 8, 8), 0.5), []
    answers = []

    def answer(x, t):
        asked.append(t)
        answers.append(x)
        return toy_answer(x, t, Sampling(cfg=1.0))

    draw(answer, toy_noise(), SCHEDULER, Sampling(steps=10, strength=0.3, cfg=1.0), ALPHAS.tolist(), start=start)
    whole = toy(Sampling(steps=10, cfg=1.0))[1]
    assert asked == whole[-3:]
    torch.testing.assert_close(answers[0], noised(start, toy_noise(), ALPHAS[asked[0]]))


def test_the_clean_latent_comes_back_from_any_output():
    source = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 3, 3, generator=source)
    level = torch.tensor(0.3)
    x = noised(clean, noise, level)
    for prediction, output in (
        ("epsilon", noise),
        ("v_prediction", velocity(clean, noise, level)),
        ("sample", clean),
    ):
        torch.testing.assert_close(clean_latent(output, x, prediction, 0.3), clean, msg=prediction)
    x = (1 - level) * clean + level * noise
    torch.testing.assert_close(clean_latent(noise - clean, x, "flow", 0.3), clean)


def test_what_a_configuration_says():
    assert prediction_of({"_class_name": "FlowMatchEulerDiscreteScheduler"}) == "flow"
    assert prediction_of({"prediction_type": "v_prediction"}) == "v_prediction"
    assert prediction_of({}) == "epsilon"
    with pytest.raises(WeightsError, match="squaredcos"):
        alphas({"beta_schedule": "squaredcos_cap_v2"})


@pytest.mark.parametrize("steps", [10, 25])
def test_end_states_and_timesteps(steps, oracle):
    drawn, asked = toy(Sampling(steps=steps))
    torch.testing.assert_close(drawn, oracle[f"aug_sampler/final_{steps}"], atol=1.5e-4, rtol=0)
    assert asked == FACTS[f"aug_timesteps_{steps}"]


def test_trailing_spacing_is_an_option():
    assert toy(Sampling(spacing="trailing"))[1] == list(range(999, 0, -40))


def test_two_evaluations_equal_three():
    source = torch.Generator().manual_seed(1)
    text, image, blank = torch.randn(3, 2, 4, 5, 5, generator=source)
    two = Sampling()
    assert branches(two) == (Branch(3.0, True, True), Branch(-2.0, False, True))
    expected = three_branches(text, image, blank, cfg=3.0, image_guidance=1.0, rescale=0.7)
    torch.testing.assert_close(guide([text, image], two), expected)
    three = Sampling(cfg=2.5, image_guidance=1.5, guidance_rescale=0.4)
    expected = three_branches(text, image, blank, cfg=2.5, image_guidance=1.5, rescale=0.4)
    torch.testing.assert_close(guide([text, image, blank], three), expected)
    assert len(branches(Sampling(cfg=1.0))) == 1
    torch.testing.assert_close(guide([text], Sampling(cfg=1.0)), text)


def test_the_later_calls_of_the_reference_are_a_switch():
    sampling, seen = Sampling(steps=10, reference_sigmas=True), []
    sigmas = ((1 - ALPHAS) / ALPHAS).sqrt()

    def answer(x, t):
        answers = toy_answer(x, t, Sampling(image_guidance=1.5))  # all three branches
        number, sigma = len(seen), sigmas[len(seen)]
        moved = [x - sigma * value for value in answers]
        guided = three_branches(*moved, cfg=3.0, image_guidance=1.0, rescale=0.7)
        seen.append((x, (guided - x) / -sigma))
        assert number < 10
        return toy_answer(x, t, sampling)

    drawn = draw(answer, toy_noise(), SCHEDULER, sampling, ALPHAS.tolist())
    # The same trajectory, guided beforehand: cfg 1 passes an answer through.
    plain = iter([guided for _, guided in seen])
    repeated = draw(lambda x, t: [next(plain)], toy_noise(), SCHEDULER, Sampling(10, cfg=1.0), ALPHAS.tolist())
    torch.testing.assert_close(drawn, repeated, atol=1e-4, rtol=0)
    assert (drawn - toy(Sampling(steps=10))[0]).abs().max() > 0.05


def test_only_the_rescaling_notices_the_wrong_sigmas():
    first, later = (toy(Sampling(10, guidance_rescale=0.0, reference_sigmas=wrong))[0] for wrong in (False, True))
    torch.testing.assert_close(first, later, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"strength": 0.0}, "above 0 and up to 1"),
        ({"seeds": 0}, "seeds"),
        ({"guidance_rescale": 1.5}, r"\[0, 1\]"),
        ({"spacing": "even"}, "linspace, trailing, leading"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**settings)
