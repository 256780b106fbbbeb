"""`ilora plan`: exact counts of the published models, without a byte of weights."""

import json

import pytest

from ilora_cli.main import main
from ilora_core.cards import Card
from ilora_core.errors import ConfigError
from ilora_core.plan import count, make_plan
from ilora_core.plugins import Plugin, PluginHost, load_plugins


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("planning must not open a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize(
    ("name", "rank", "expected", "base"),
    [
        ("sd15", 2, 398_592, 943_174_827),
        ("sd21", 8, 1_659_904, 949_564_587),
    ],
)
def test_counts_of_the_paper(name, rank, expected, base):
    parameters, adapter = count(load_plugins(), name, {"adapter": {"rank": rank}})
    assert adapter["parameters"] == expected
    assert adapter["sites"] == 128
    assert adapter["base_parameters"] == base == parameters["net"] + parameters["vae"]


def test_sd15_as_a_user_asks_for_it(capsys):
    assert main(["plan", "-g", "sd15", "--rank", "8", "--precision", "bf16", "--tflops", "100", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["net"] == 859_520_964
    assert plan["adapter"]["parameters"] == 1_594_368
    assert plan["adapter"]["base_parameters"] == 943_174_827
    assert (plan["resolution"], plan["batch"], plan["steps"]) == (512, 4, 15000)
    # facts: flop counter on fake tensors, batch 4 at 512²
    assert plan["flops"]["forward"] / 1e12 == pytest.approx(3.222, abs=0.002)
    assert plan["flops"]["backward"] / 1e12 == pytest.approx(3.901, abs=0.002)
    assert plan["flops"]["encode"] / 1e12 == pytest.approx(4.467, abs=0.002)
    assert plan["flops"]["predict_picture"] / 1e12 == pytest.approx(4.44, abs=0.02)
    assert plan["memory"]["activations"] / 1e9 == pytest.approx(3.20, abs=0.05)
    assert plan["memory"]["weights"] == 2 * 859_520_964
    assert plan["seconds"]["step"] == pytest.approx(plan["flops"]["step"] / 1e14)
    assert set(plan["how"]) == {"counted", "recorded", "estimated"}


def test_a_loss_behind_the_decoder_has_the_decoder_in_it():
    settings = {"generator": {"loss": "decoded"}, "train": {"batch": 2}}
    plan = make_plan(load_plugins(), "sd15", settings=settings, resolution=64)
    network_and_decoder = 2 * plan.flops["render_picture"]
    assert plan.flops["forward"] == pytest.approx(network_and_decoder, rel=0.005)  # the adapter's own work is on top
    assert plan.flops["backward"] > 0.9 * network_and_decoder
    assert plan.memory["weights"] == 4 * (plan.parameters["net"] + plan.parameters["vae"])
    target, mask, latent = 3 * 64 * 64 * 2, 64 * 64, 4 * 8 * 8 * 4  # half precision, bool, float32
    assert plan.memory["cache"] == 1000 * (target + mask + latent)


def test_a_card_without_a_skeleton_says_so():
    card = Card("bare", "", "none", "x:y", "x:y")
    host = PluginHost([Plugin("local", "0", "x", {"generators": (card,)})])
    with pytest.raises(ConfigError, match=r"'bare' \(local\) has no skeleton.*Card\(skeleton="):
        make_plan(host, "bare", settings={})


def test_a_resolution_that_does_not_fit():
    with pytest.raises(ConfigError, match="multiple of 64"):
        make_plan(load_plugins(), "sd15", settings={}, resolution=500)


def test_a_prompt_is_cached_once_whatever_the_batch():
    one, four = (make_plan(load_plugins(), "sd15", settings={"train": {"batch": n}}, resolution=64) for n in (1, 4))
    assert one.memory["cache"] == four.memory["cache"] == 1000 * (3 * 4 * 4 * 8 * 8 + 8 * 8)  # three latents, a mask


def test_wrong_settings_are_usage_errors(capsys):
    assert main(["plan", "-g", "sd15", "--set", "adapter.rnk=4"]) == 2
    assert "rnk" in capsys.readouterr().err
    assert main(["plan", "-g", "sd999"]) == 2


@pytest.mark.parametrize("adapter", ["loha", "full", "textual-inversion", "visii"])
def test_any_adapter_can_be_planned(adapter):
    settings = {"train": {"batch": 2}}
    plan = make_plan(load_plugins(), "rooms", settings=settings, adapter=adapter)
    lora = make_plan(load_plugins(), "rooms", settings=settings)
    counted = {"loha": 2 * 75_264, "full": plan.parameters["net"], "textual-inversion": 8 * 96, "visii": 24 * 96}
    assert plan.adapter["parameters"] == counted[adapter]
    assert plan.flops["backward"] > 0
    encodes = adapter == "textual-inversion"  # the text encoder runs at every step
    assert plan.memory["weights"] - lora.memory["weights"] == encodes * 4 * plan.parameters["text_encoder"]
