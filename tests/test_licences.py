"""The licence chain: what was loaded counts, nothing is guessed, unlike licences are flagged."""

from __future__ import annotations

import pytest

from ilora_core.hub import is_hub_id
from ilora_core.licence_names import CLASSES, LICENCES, defers, recognise
from ilora_core.licences import licence_chain, merge_chains, registered_weights
from ilora_core.plugins import load_plugins
from ilora_core.registry import load_registry

DIODE = "MIT (DIODE's devkit); the data are not part of this package, see diode-dataset.org for their terms"


def record(generator="rooms", licence="Apache-2.0", *, provenance=None, settings=None, labels=None, **config):
    """As `ilora_core.run` describes a fit."""
    config = config or {"source": "rooms"}
    host = load_plugins()
    licences = {f"generator {generator}": licence}
    for name in filter(None, config.get("labeler", "").split("+")):
        licences[f"labeler {name}"] = host.card("labelers", name).licence
    if source := config.get("source"):
        licences[f"source {source}"] = host.card("sources", source).licence
    licences |= {"pairs": "yours"} if config.get("pairs") else {}
    return {
        "generator": {"name": generator, "settings": settings or {}, "provenance": provenance or {}},
        "config": config,
        "licences": licences,
        **({"labels": labels} if labels else {}),
    }


def kinds(chain):
    return {link.part: link.kind for link in chain.links}


def test_every_text_of_cards_and_registry_is_read_or_deliberately_left_open():
    host, registry = load_plugins(), load_registry()
    texts = {card.licence for kind in ("generators", "labelers", "sources") for _, card in host.cards(kind)}
    texts |= {entry.licence for entry in registry.weights.values()}
    assert {text for text in texts if not recognise(text) and not defers(text)} == {DIODE}
    assert not any(recognise(text) and defers(text) for text in texts)


def test_the_table_names_each_licence_once_with_its_source():
    names = [licence.name for licence in LICENCES]
    assert len(set(names)) == len(names)
    for licence in LICENCES:
        assert licence.kind in CLASSES
        assert licence.source.startswith("https://")
        assert recognise(licence.name) == (licence,)
    said_non_commercial = [licence for licence in LICENCES if "non-commercial" in licence.name.lower()]
    assert {licence.kind for licence in said_non_commercial} == {"non-commercial"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mit", ["MIT"]),
        ("CC BY-NC 4.0", ["CC-BY-NC-4.0"]),
        ("MIT AND CC-BY-4.0", ["MIT", "CC-BY-4.0"]),
        ("creativeml openrail++-m", ["CreativeML-OpenRAIL++-M"]),
        ("openrail++", ["CreativeML-OpenRAIL++-M"]),
        ("CreativeML-OpenRAIL-M", ["CreativeML-OpenRAIL-M"]),
        ("MIT, but ask first", []),
        ("MIT AND something", []),
        ("MIT OR GPL-3.0", []),
        ("Apache", []),
        ("CC-BY-ND-4.0", []),
        ("free for non-commercial use", []),
        ("", []),
        (DIODE, []),
    ],
)
def test_a_name_is_known_as_a_whole_or_not_at_all(text, names):
    assert [licence.name for licence in recognise(text)] == names


def test_permissive_throughout():
    chain = licence_chain(record())
    assert kinds(chain) == {"generator": "permissive", "source": "permissive"}
    assert chain.commercial == "yes"
    assert chain.flags == ()
    assert chain.hub_metadata() == {"license": "apache-2.0"}


def test_use_restrictions_are_passed_on():
    chain = licence_chain(record("sd15", "CreativeML-OpenRAIL-M"))
    assert chain.commercial == "with conditions"
    assert chain.hub_metadata() == {"license": "creativeml-openrail-m"}
    assert "use restrictions" in chain.terms[0]
    assert "https://huggingface.co/spaces/CompVis/stable-diffusion-license" in chain.terms[0]
    assert chain.flags == ()


def test_apache_generator_taught_by_non_commercial_labels():
    chain = licence_chain(record(samples=50, labeler="omnidata-normal"))
    assert kinds(chain) == {"generator": "permissive", "labeler": "non-commercial", "samples": "permissive"}
    assert chain.commercial == "no"
    assert any("taught by non-commercial weights" in flag and "omnidata-normal" in flag for flag in chain.flags)
    assert chain.hub_metadata()["license"] == "other"
    assert chain.hub_metadata()["license_name"] == "omnidata-starter-dataset-eula"
    assert chain.hub_metadata()["license_link"].startswith("https://")


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"licence": "Apache-2.0", "weights": "depth-anything-v2-small"}, "permissive"),
        ({"licence": "CC-BY-NC-4.0", "weights": "depth-anything-v2-large"}, "non-commercial"),
        ({}, "unknown"),
    ],
)
def test_a_licence_that_depends_on_the_variant_is_that_of_the_weights_loaded(facts, kind):
    labels = {"labeler": "depth-anything-v2", "facts": facts}
    chain = licence_chain(record(samples=9, labeler="depth-anything-v2", labels=labels))
    assert kinds(chain)["labeler"] == kind


def test_each_labeler_of_a_mix_is_a_link_with_its_own_facts():
    labels = {
        "mix": "mean",
        "labelers": [{"labeler": "zoedepth", "facts": {"licence": "MIT"}}, {"labeler": "omnidata-depth"}],
    }
    chain = licence_chain(record(samples=9, labeler="zoedepth+omnidata-depth", labels=labels))
    found = {link.name: link.kind for link in chain.links if link.part == "labeler"}
    assert found == {"zoedepth": "permissive", "omnidata-depth": "non-commercial"}


def test_other_weights_under_a_card_are_not_under_the_cards_licence_alone():
    own = record("rooms", "Apache-2.0", settings={"weights": "/models/mine"})
    chain = licence_chain(own)
    assert kinds(chain)["generator"] == "unknown"
    assert any("not stated by the weights that were given" in flag for flag in chain.flags)
    labels = {"labeler": "omnidata-normal", "facts": {"weights": "omnidata_dpt_normal_v2.ckpt"}}
    given = record(samples=9, labeler="omnidata-normal", labels=labels)
    given["config"]["settings"] = {"labeler": {"weights": "omnidata_dpt_normal_v2.ckpt"}}
    assert licence_chain(given).commercial == "no"


@pytest.mark.parametrize("weights", ["sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_given_weights_that_the_registry_knows(weights):
    text = "that of the weights you give"
    chain = licence_chain(record("sd", text, settings={"weights": weights}))
    assert kinds(chain)["generator"] == "use-restricted"
    assert registered_weights(record("sd", text, settings={"weights": weights})) == "sd15"
    assert kinds(licence_chain(record("sd", text, settings={"weights": "some/where"})))["generator"] == "unknown"


def test_weights_that_state_their_own_licence():
    facts = {"weights": "/models/mine", "licence": "Apache-2.0"}
    chain = licence_chain(record("rooms", "Apache-2.0", settings={"weights": "/models/mine"}, provenance=facts))
    assert chain.commercial == "yes"


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        ("stylegan2-ffhq", "non-commercial"),
        ("stylegan2-bedroom", "non-commercial"),
        ("vqgan-ffhq", "non-commercial"),
        ("flux1-dev", "non-commercial"),
        ("sdxl-turbo", "non-commercial"),
        ("sd-turbo", "community"),
        ("sd3-medium", "community"),
        ("sd21-aug", "use-restricted"),
        ("flux1-schnell", "permissive"),
        ("sd", "unknown"),
        ("stylegan3", "unknown"),
        ("vqgan", "unknown"),
    ],
)
def test_cards_as_they_are(generator, expected):
    chain = licence_chain(record(generator, load_plugins().card("generators", generator).licence))
    assert kinds(chain)["generator"] == expected


def test_channels_that_read_the_picture_bring_their_licence():
    facts = {"licence": "CreativeML-OpenRAIL++-M", "picture_channels": "instruct-pix2pix (timbrooks/instruct-pix2pix)"}
    chain = licence_chain(record("sd21-aug", "CreativeML-OpenRAIL++-M", provenance=facts))
    assert {licence.hub for licence in chain.licences} == {"openrail++", "creativeml-openrail-m", "mit", "apache-2.0"}
    assert any("Several licences bind" in flag for flag in chain.flags)
    assert chain.hub_metadata()["license_name"] == "creativeml-openrail-plus-plus-m-and-creativeml-openrail-m"
    other = {"licence": "CreativeML-OpenRAIL++-M", "picture_channels": "/models/mine"}
    assert (
        kinds(licence_chain(record("sd21-aug", "CreativeML-OpenRAIL++-M", provenance=other)))["generator"] == "unknown"
    )


@pytest.mark.parametrize("config", [{"pairs": "/data/mine"}, {"pictures": "/data/mine", "labeler": "zoedepth"}])
def test_your_own_pictures_are_yours_to_state(config):
    made = record(**config)
    (part,) = {"pairs", "pictures"} & set(config)
    chain = licence_chain(made)
    assert kinds(chain)[part] == "unstated"
    assert chain.commercial == "unclear"
    assert any("yours to state" in flag for flag in chain.flags)
    assert chain.hub_metadata()["license"] == "other"
    assert "/data" not in str(chain.to_json())
    made["licences"][part] = "CC-BY-4.0"
    assert licence_chain(made).commercial == "yes"
    made["licences"][part] = "CC-BY-NC-4.0"
    assert licence_chain(made).commercial == "no"
    made["licences"][part] = "ask my boss"
    assert any("must be checked" in flag for flag in licence_chain(made).flags)


def test_data_that_only_a_person_can_clear():
    chain = licence_chain(record(source="diode"))
    assert kinds(chain)["source"] == "unknown"
    assert any("diode-dataset.org" in flag and "must be checked" in flag for flag in chain.flags)


def test_share_alike_beside_other_terms_is_flagged():
    made = record("sd15", "CreativeML-OpenRAIL-M", pairs="x")
    made["licences"]["pairs"] = "CC-BY-SA-4.0"
    assert any("Share-alike beside other terms" in flag for flag in licence_chain(made).flags)


def test_a_record_that_says_nothing_is_unknown():
    chain = licence_chain({})
    assert chain.commercial == "unclear"
    assert {link.kind for link in chain.links} == {"unknown"}


def test_several_adapters_make_one_chain():
    chains = {"a": licence_chain(record()), "b": licence_chain(record(samples=9, labeler="zoedepth"))}
    merged = merge_chains(chains)
    assert [link.part for link in merged.links] == ["generator", "source", "labeler", "samples"]
    assert merged.hub_metadata() == {"license": "other", "license_name": "apache-2.0-and-mit"}


def test_sources_that_the_registry_lists_as_hub_ids_are_hub_ids():
    assert all(is_hub_id(s) or s.startswith("https://") for e in load_registry().weights.values() for s in e.sources)
