"""The rooms model's settings: the loss behind the codec, and what the map's latent is."""

from __future__ import annotations

import pytest

from ilora_core.errors import ConfigError
from ilora_core.plan import make_plan
from ilora_core.plugins import load_plugins
from ilora_core.testing.cases import Subject
from ilora_core.testing.generator_fit_checks import (
    check_gradient_reaches_adapter_only,
    check_masked_pixels_do_not_matter,
)
from ilora_rooms.generator import rooms


@pytest.mark.parametrize(
    "check",
    [check_gradient_reaches_adapter_only, check_masked_pixels_do_not_matter],
    ids=lambda check: check.__name__,
)
def test_the_decoded_loss_conforms(check):
    check(Subject("generator", "ilora-rooms", "ilora_rooms", build=lambda: rooms(timestep=300, loss="decoded")))


def test_settings_reach_the_model():
    assert (rooms().decoded, rooms().output) == (False, "raw")
    model = rooms(loss="decoded", output="clean")
    assert (model.decoded, model.output) == (True, "clean")
    for wrong in ({"loss": "pixels"}, {"output": "v"}):
        with pytest.raises(ConfigError):
            rooms(**wrong)


def test_the_codec_costs_next_to_nothing():
    latent, decoded = (
        make_plan(load_plugins(), "rooms", settings={"generator": {"loss": loss}, "train": {"batch": 4}}).flops
        for loss in ("latent", "decoded")
    )
    codec = 4 * 2 * 12 * 48 * 16 * 16  # pictures, multiply-add, latent channels, values of a patch, patches
    assert decoded["forward"] - latent["forward"] == decoded["backward"] - latent["backward"] == codec
    assert codec < 1e-3 * latent["step"]
