"""The conformance kit on a generator that cannot encode: a GAN of transposed convolutions and batch normalisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ilora_core.adapters import bare
from ilora_core.errors import CannotEncode
from ilora_core.losses import picture_loss
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.testing import Case, Subject, generator_checks, generator_fit_checks, run_case


class Gan:
    """Sound: z (B,4,1,1) -> 8×8 pictures."""

    targets, resolution, stride = ("0", "3"), (8, 8), 8
    takes_weights = True

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = (
                nn.ConvTranspose2d(4, 6, 4),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.ConvTranspose2d(6, 3, 4, 2, 1),
                nn.Tanh(),
            )
            self.net = nn.Sequential(*layers).eval().requires_grad_(False)

    def sample(self, n, *, seed):
        return {"z": noise_like(torch.empty(n, 4, 1, 1), [mix_seeds(seed, i) for i in range(n)])}

    def encode(self, pictures):
        raise CannotEncode("a GAN has no encoder: fit it on its own samples.")

    def picture(self, codes):
        with bare(self.net):
            return self.render(codes, None)

    @torch.no_grad()
    def render(self, codes, intrinsic):
        return self.net(codes["z"]) / 2 + 0.5

    def prepare(self, codes, intrinsic, target, valid):
        return {"target": target * 2 - 1, "valid": valid}

    def loss(self, codes, intrinsic):
        return picture_loss(self.net(codes["z"]), codes["target"], codes["valid"], intrinsic.loss)

    def to(self, device):
        return self

    def park(self):
        pass

    def layouts(self, state, config):
        return {}


ALL = [getattr(m, name) for m in (generator_checks, generator_fit_checks) for name in m.__all__]


def outcome_of(build, check):
    return run_case(Case(Subject("generator", "test", __name__, build=build), check))


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_every_check_passes_or_is_about_what_it_does_not_offer(check):
    outcome = outcome_of(Gan, check)
    beyond = (generator_checks.check_encodes, generator_checks.check_renders_many_as_one_by_one)
    expected = "skipped" if check in beyond else "passed"
    assert (outcome.status, outcome.reason if expected == "passed" else "") == (expected, "")


class BatchStatistics(Gan):
    def __init__(self):
        super().__init__()
        self.net.train()


class NoEncoder(Gan):
    def encode(self, pictures):
        raise NotImplementedError


class Curt(Gan):
    def encode(self, pictures):
        raise CannotEncode("no")


class OneSample(Gan):
    def sample(self, n, *, seed):
        return {"z": super().sample(1, seed=seed)["z"].repeat(n, 1, 1, 1)}


class NormsAsTargets(Gan):
    targets = r"\d"


@pytest.mark.parametrize(
    ("build", "check", "reason"),
    [
        (BatchStatistics, "check_net_is_frozen", "1.running_mean"),
        (BatchStatistics, "check_batch_of_two_is_two_of_one", "differs from two of one"),
        (NoEncoder, "check_encodes", "CannotEncode"),
        (Curt, "check_encodes", "should say why"),
        (OneSample, "check_same_seed_same_codes", "are the same"),
        (NormsAsTargets, "check_targets_match", "1 is a BatchNorm2d"),
    ],
)
def test_planted_faults_are_named(build, check, reason):
    outcome = outcome_of(build, {c.__name__: c for c in ALL}[check])
    assert outcome.status == "failed"
    assert reason in outcome.reason
