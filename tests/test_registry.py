"""registry.toml: complete, honest, and found from a wheel as from a checkout."""

import re
from pathlib import Path

import pytest

from ilora_core.errors import ConfigError, UnknownName
from ilora_core.plugins import KINDS, load_plugins
from ilora_core.registry import load_registry, registry_path

ROOT = Path(__file__).parents[1]
FIRST_PARTY = (
    *("ilora-sd", "ilora-rooms", "ilora-stylegan", "ilora-vqgan", "ilora-omnidata"),
    *("ilora-zoedepth", "ilora-paradigms", "ilora-diode", "ilora-marigold"),
)


def test_all_first_party_plugins_are_known():
    assert set(load_registry().plugins) >= set(FIRST_PARTY)


def test_found_beside_the_package_then_one_folder_up(tmp_path):
    package = tmp_path / "ilora_core"
    package.mkdir()
    with pytest.raises(ConfigError, match="Reinstall"):
        registry_path(package)
    (tmp_path / "registry.toml").touch()
    assert registry_path(package) == tmp_path / "registry.toml"
    (package / "registry.toml").touch()
    assert registry_path(package) == package / "registry.toml"


def test_a_damaged_registry_says_where(tmp_path):
    from ilora_core.registry import _parse

    path = tmp_path / "registry.toml"
    for text in ("not toml", '[plugins.x]\nstatus = "maybe"\nsummary = ""', "[weights.x]\nsources = []\ntypo = 1"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            _parse(path)


def test_released_plugins_can_be_installed_and_planned_ones_cannot():
    for plugin in load_registry().plugins.values():
        assert plugin.summary
        if plugin.released:
            assert all((ROOT / folder / "pyproject.toml").is_file() for folder in plugin.folders)
            assert plugin.install.startswith("pip install . ./plugins/")
        else:
            assert plugin.install == ""


@pytest.mark.parametrize("name", FIRST_PARTY)
def test_registry_lists_what_an_installed_plugin_provides(name):
    host = load_plugins(only={name})
    provided = {kind: {card.name for owner, card in host.cards(kind) if owner == name} for kind in KINDS}
    if not any(provided.values()):
        pytest.skip(f"{name} is not installed, or provides nothing yet")
    listed = load_registry().plugins[name].cards
    assert provided == {kind: set(listed.get(kind, ())) for kind in KINDS}
    assert load_registry().plugins[name].released


def test_weights_have_sources_licence_and_real_digests():
    weights = load_registry().weights
    assert {"sd11", "sd12", "sd14", "sd15", "sd21", "sd-turbo"} <= set(weights)
    assert weights["sd15"].sources[0] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    for entry in weights.values():
        assert entry.sources, entry.name
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+|https://[\w.-]+/[\w./-]+", source) for source in entry.sources)
        assert entry.licence
        assert not any(source.startswith(("runwayml/", "stabilityai/stable-diffusion-2")) for source in entry.sources)
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in entry.sha256.values())
        assert entry.sha256 or "digest" in entry.note, f"{entry.name}: no digest, and the note does not say so"


def test_presets_state_their_provenance():
    registry = load_registry()
    known = {
        name
        for p in registry.plugins.values()
        for names in (p.cards, p.planned)
        for name in names.get("generators", ())
    }
    for preset in registry.presets.values():
        assert preset.generators
        assert set(preset.generators) <= known
        assert re.search("paper|README", preset.provenance)
        assert all(re.fullmatch(r"(adapter|train|generator|runtime)\.\w+", key) for key in preset.settings)
    assert registry.preset("paper-sd15").settings["train.lr"] == 1e-4
    assert registry.preset("readme-sd15").settings["train.steps"] == 20000
    assert registry.preset("paper-stylegan2-ffhq").settings["train.lr"] == 1e-3
    assert [preset.name for preset in registry.presets_for("sd15")] == ["paper-sd15", "readme-sd15"]
    with pytest.raises(UnknownName, match="paper-sd15"):
        registry.preset("nothing")


def test_offers_leave_out_what_is_installed():
    registry = load_registry()
    assert "pip install" in registry.offers("generators", "sd15")[0]
    assert registry.offers("generators", "sd15", installed={"ilora-sd"}) == []
    assert registry.offers("labelers", "sd15") == []


def test_cards_planned_in_a_released_plugin_are_said_to_be_planned(tmp_path):
    from ilora_core.registry import _parse

    path = tmp_path / "registry.toml"
    text = '[plugins.ilora-x]\nstatus = "released"\nsummary = "x"\nfolders = ["x"]\nplanned.generators = ["later"]\n'
    path.write_text(text)
    assert "planned" in _parse(path).offers("generators", "later", installed={"ilora-x"})[0]


def test_generators_that_a_lora_file_may_be_meant_for_exist():
    registry = load_registry()
    assert registry.imports
    for family, cards in registry.imports.items():
        assert set(cards) <= set(registry.names("generators")), family
