"""Model cards: front matter that the hub's own library reads, the same text each time, nothing of this machine in it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig
from ilora_core.errors import DataError
from ilora_core.evaluate import Evaluation, Figure
from ilora_core.fit import fit
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic
from ilora_core.model_card import MARK, folder_card, model_card, set_card
from ilora_core.model_card_facts import base_model, file_name

LAYOUT = "pytorch_lora_weights.safetensors"


def some_record(intrinsic=NORMALS, **changes):
    record = {
        "intrinsic": intrinsic.predicted().to_json(),
        "generator": {"name": "sd15", "plugin": "ilora-sd", "settings": {}, "provenance": {"weights": "sd15"}},
        "config": {"samples": 100, "labeler": "omnidata-normal", "settings": {"train": {"lr": 3e-4}}},
        "labels": {"labeler": "omnidata-normal", "version": "2", "weights_hash": "sha256:0123456789abcdef"},
        "licences": {
            "generator sd15": "CreativeML-OpenRAIL-M",
            "labeler omnidata-normal": "Omnidata Starter Dataset EULA",
        },
        "adapter": "lora",
        "data": {"train": 90, "validation": 10},
        "best": {"step": 200, "metric": intrinsic.metric, "value": 12.3456789},
        "steps": 300,
        "versions": {"ilora": "0.1.0", "torch": "2.9"},
        "layouts": [LAYOUT],
    }
    return {**record, **changes}


def read(text, caplog):
    """As the hub's library reads it, which only warns of missing front matter."""
    with caplog.at_level(logging.WARNING):
        card = ModelCard(text)
    assert not caplog.records
    return card


def evaluation(n=20, low=11.0):
    figures = {"mean_deg": Figure(12.0, low, 13.0, "°", False, "pooled")}
    return Evaluation("normals-pooled", "normals", n, figures, {f"{i}": {"pixels": 4.0} for i in range(n)})


def test_front_matter(caplog):
    data = read(model_card(some_record(), {"r": 8}), caplog).data.to_dict()
    assert data["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "ilora"
    assert data["pipeline_tag"] == "image-to-image"
    assert data["tags"] == ["ilora", "intrinsic-lora", "lora", "normals"]
    assert data["license"] == "other"
    assert data["license_name"] == "omnidata-starter-dataset-eula-and-creativeml-openrail-m"
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "normals_mean_deg", "value": 12.3457}]
    assert "(10)" in result["dataset"]["name"]


def test_text(caplog):
    text = read(model_card(some_record(), {"r": 8}, place="hf://me/rooms/normals@v2"), caplog).text
    assert "ilora predict PICTURES --adapter hf://me/rooms/normals@v2" in text
    assert 'pipe.load_lora_weights("me/rooms", subfolder="normals", revision="v2")' in text
    assert 'from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")' in text
    assert "x right, y down, z forward" in text
    assert "| normals_mean_deg (°) | 12.35 | 10 |" in text
    assert "| labels by | omnidata-normal@2 (weights 0123456789ab) |" in text
    assert "| rank | 8 |" in text
    assert "| seed | 0 |" in text  # a default of the recipe
    assert "| lr | 0.0003 |" in text
    assert "taught by non-commercial weights" in text
    assert "Not for commercial use" in text
    assert "use restrictions" in text
    assert text.endswith(MARK + "\n")
    assert model_card(some_record(), {"r": 8}) == model_card(some_record(), {"r": 8})


@pytest.mark.parametrize("intrinsic", [DEPTH, ALBEDO, SHADING, Intrinsic("roughness", 1, "", "linear", 0.0, 2.0)])
def test_each_map_has_its_conventions(intrinsic, caplog):
    text = read(model_card(some_record(intrinsic), {}), caplog).text
    said = {"depth": "0 = near", "albedo": "[0, 1]", "shading": "white level", "roughness": "one channel in [0, 2]"}
    assert said[intrinsic.name] in text
    if intrinsic is DEPTH:
        assert "no metres" in text


def test_no_validation_no_layout_no_hub(caplog):
    record = some_record(best=None, layouts=[])
    record["generator"] = {
        "name": "sd",
        "plugin": "ilora-sd",
        "settings": {"weights": "/home/me/nets/mine"},
        "provenance": {},
    }
    card = read(model_card(record, {}), caplog)
    assert "model-index" not in card.data.to_dict()
    assert card.data.base_model is None
    assert "It was not validated." in card.text
    assert "diffusers" not in card.text
    assert "--set generator.weights=PATH" in card.text
    assert "`mine`" in card.text
    assert "/home" not in str(card)


def test_weights_from_the_hub_are_the_base():
    record = some_record()
    record["generator"] |= {
        "name": "sd",
        "settings": {"weights": "a/b"},
        "provenance": {"weights": "a/b", "served_by": "a/b"},
    }
    assert base_model(record) == "a/b"
    record["generator"]["provenance"] = {"weights": "a/b", "served_by": "local folder"}
    assert base_model(record) == ""
    record["generator"]["settings"]["weights"] = (
        "benjamin-paine/stable-diffusion-v1-5"  # a mirror that the registry knows
    )
    assert base_model(record) == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_recipe_of_another_version_is_shown_as_recorded(caplog):
    record = some_record(best={"step": 1, "metric": "a-plugins-own", "value": 1.0})
    record["config"]["settings"]["train"] = {"lr": 5.0, "no_such_setting": 1}
    text = read(model_card(record, {}), caplog).text
    assert "| lr | 5.0 |" in text
    assert "| a-plugins-own | 1 | 10 |" in text


@pytest.mark.parametrize(("low", "interval"), [(11.0, "[11, 13]"), (float("nan"), "none")])
def test_evaluation_beside_the_adapter(tmp_path, caplog, low, interval):
    results = {"normals-pooled": {"ours": evaluation(low=low).to_json(), "mean map": evaluation().to_json()}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": results}))
    (tmp_path / "preview.png").write_bytes(b"")
    card = read(folder_card(tmp_path, some_record(), {}), caplog)
    assert f"| normals-pooled | ours | mean_deg | 12 ° | {interval} | 20 |" in card.text
    assert "](preview.png)" in card.text
    types = [
        metric["type"] for result in card.data.to_dict()["model-index"][0]["results"] for metric in result["metrics"]
    ]
    assert types == ["normals_mean_deg", "mean_deg@normals-pooled"]
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(DataError, match=re.escape("evaluation.json")):
        folder_card(tmp_path, some_record(), {})


def test_one_page_above_several(caplog):
    records = {"normals": some_record(), "far": some_record(DEPTH, best=None)}
    card = read(set_card(records, place="hf://me/both"), caplog)
    assert card.data.tags == ["ilora", "intrinsic-lora", "lora", "normals", "depth"]
    assert card.data.base_model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert "| [normals](normals/README.md) | normals |" in card.text
    assert "hf://me/both/normals" in card.text
    assert card.text.count("| labeler |") == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b/c.pt", "c.pt"), ("C:\\models\\mine", "mine"), ("folder/", "folder"), ("plain", "plain"), ("/", "/")],
)
def test_file_name(path, name):
    assert file_name(path) == name


def test_a_fit_leaves_a_card_and_its_preview(tiny_model, tiny_pairs, tmp_path, caplog):
    from ilora_cli.fit_progress import FitDisplay

    config = FitConfig(
        "sd",
        (NORMALS,),
        pairs=str(tiny_pairs),
        validation=2,
        settings={
            "generator": {"weights": str(tiny_model), "resolution": 32},
            "train": {"steps": 2},
            "runtime": {"device": "cpu"},
        },
    )
    with FitDisplay(config, tmp_path / "out", quiet=True) as display:
        for event in fit(config, tmp_path / "out"):
            display.show(event)
    (artefact,) = find_artefacts(tmp_path / "out")
    text = (artefact.folder / "README.md").read_text(encoding="utf-8")
    assert read(text, caplog).data.tags[-1] == "normals"
    assert text == folder_card(artefact.folder, artefact.record, artefact.config)
    assert artefact.record["layouts"] == [LAYOUT]
    assert str(Path.cwd()) not in text
    assert str(tmp_path) not in text
    kept = artefact.folder / "previews" / f"step_{artefact.record['best']['step']:06d}.png"
    assert (artefact.folder / "preview.png").read_bytes() == kept.read_bytes()
