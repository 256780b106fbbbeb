"""ComfyUI workflows: both formats against what the stock nodes take, and the maps of a run against the generator's own."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING, Intrinsic
from ilora_core.plugins import load_plugins
from ilora_sd.architectures import SCHEDULER
from ilora_sd.comfyui import sigma_of, workflow
from ilora_sd.factories import tiny, tiny_augmented, tiny_components
from ilora_sd.factories_large import tiny_sd3, tiny_sdxl
from ilora_sd.model import StableDiffusion

HERE = Path(__file__).parent
NODES = json.loads((HERE / "data" / "comfyui_nodes.json").read_text())["nodes"]
ROUGHNESS = Intrinsic("roughness", 1, "", "linear", 0.0, 2.0)
LINKED = {"MODEL", "CLIP", "VAE", "IMAGE", "MASK", "LATENT", "CONDITIONING", "NOISE", "GUIDER", "SAMPLER", "SIGMAS"}


def _machine():
    spec = importlib.util.spec_from_file_location("comfyui_machine", HERE / "comfyui_machine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


machine = _machine()


def made(intrinsic=NORMALS, *, sigma=None, depth_channels="mean", prompt="surface normal"):
    return workflow(
        intrinsic=intrinsic,
        lora="ilora.safetensors",
        checkpoint="sd15.safetensors",
        prompt=prompt,
        timestep=999 if sigma is None else 300,
        sigma=sigma,
        resolution=512,
        depth_channels=depth_channels,
    )


ALL = [
    made(intrinsic, sigma=sigma, depth_channels=channels)
    for intrinsic, sigma, channels in product(
        (NORMALS, DEPTH, ALBEDO, SHADING, ROUGHNESS), (None, 0.6), ("mean", "max")
    )
]


def check_value(fact, value):
    """A widget's value against its type, options and limits."""
    python = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}[fact["type"]]
    assert isinstance(value, python), (fact, value)
    assert fact["type"] == "BOOLEAN" or not isinstance(value, bool)
    if fact["type"] == "COMBO":
        assert value
        assert value in fact.get("options", [value])
    if "min" in fact:
        assert fact["min"] <= value <= fact["max"]
    if "step" in fact and fact.get("round", True):  # the editor rounds what is typed to whole steps
        assert value / fact["step"] == pytest.approx(round(value / fact["step"]))


@pytest.mark.parametrize("flow", ALL)
def test_server_format_is_what_the_nodes_take(flow):
    prompt = json.loads(flow.files()["workflow_api.json"])
    for node in prompt.values():
        facts = NODES[node["class_type"]]["inputs"]
        assert set(node["inputs"]) == set(facts)
        for name, value in node["inputs"].items():
            if facts[name]["type"] in LINKED:
                source, slot = value
                assert NODES[prompt[source]["class_type"]]["outputs"][slot] == facts[name]["type"]
            else:
                check_value(facts[name], value)
    assert sum(node["class_type"] == "SaveImage" for node in prompt.values()) >= 1


@pytest.mark.parametrize("flow", ALL)
def test_editor_format_is_what_the_nodes_take(flow):
    graph = json.loads(flow.files()["workflow.json"])
    nodes = {node["id"]: node for node in graph["nodes"] if node["type"] != "Note"}
    assert graph["last_node_id"] == max(node["id"] for node in graph["nodes"])
    assert graph["last_link_id"] == len(graph["links"]) == len({link[0] for link in graph["links"]})
    for number, source, out, target, into, kind in graph["links"]:
        assert nodes[source]["outputs"][out]["type"] == nodes[target]["inputs"][into]["type"] == kind
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
    for node in nodes.values():
        facts = NODES[node["type"]]
        wanted = {name: fact["type"] for name, fact in facts["inputs"].items() if fact["type"] in LINKED}
        assert {given["name"]: given["type"] for given in node["inputs"]} == wanted
        assert [given["type"] for given in node["outputs"]] == facts["outputs"][: len(node["outputs"])]
        assert len(node["outputs"]) == len(facts["outputs"]) or node["type"] == "SaveImage"
        widgets = [fact for fact in facts["inputs"].values() if fact["type"] not in LINKED]
        values = node["widgets_values"]
        assert len(values) == len(widgets) + (node["type"] == "LoadImage")  # its upload button
        for fact, value in zip(widgets, values, strict=False):
            check_value(fact, value)


@pytest.mark.parametrize("flow", ALL)
def test_editor_sends_the_server_format(flow):
    """What the editor makes of its format when it queues: links by number, widgets in the definition's order."""
    graph, sent = flow.editor, {}
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    for node in graph["nodes"]:
        if node["type"] == "Note":
            continue
        links = {given["name"]: sources[given["link"]] for given in node["inputs"]}
        names = [name for name, fact in NODES[node["type"]]["inputs"].items() if fact["type"] not in LINKED]
        sent[str(node["id"])] = links | dict(zip(names, node["widgets_values"], strict=False))
    assert sent == {key: node["inputs"] for key, node in flow.prompt.items()}


@pytest.mark.parametrize("flow", ALL)
def test_nodes_lie_apart_and_from_left_to_right(flow):
    graph = flow.editor
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in graph["nodes"]}
    title = 30  # above a node's place
    for (x, y, w, h), (u, v, p, q) in combinations(boxes.values(), 2):
        assert x + w <= u or u + p <= x or y + h + title <= v or v + q + title <= y
    for _, source, _, target, *_ in graph["links"]:
        assert boxes[source][0] + boxes[source][2] < boxes[target][0]


def adapted(generator, intrinsic):
    adapter = LoraAdapter(rank=2, name=intrinsic.name)
    adapter.attach(generator.net, generator.targets)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    return generator


def stable_diffusion(timestep=None, prediction="epsilon"):
    parts = tiny_components()
    config = {**parts.scheduler_config, "prediction_type": prediction}
    return StableDiffusion(replace(parts, scheduler_config=config), timestep=timestep)


@torch.no_grad()
def run(generator, intrinsic, prompt=None, size=(50, 84)):
    """The machine after a run, and the generator's own map as a picture."""
    picture = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(4))
    drawer = machine.Machine(generator, picture)
    drawer.run(prompt or json.loads(generator.comfyui(intrinsic, "a.safetensors")["workflow_api.json"]))
    return drawer, generator.render(generator.encode(drawer.encoded), intrinsic)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("timestep", [None, 300, 0])
@pytest.mark.parametrize("intrinsic", [NORMALS, DEPTH, ALBEDO, SHADING, ROUGHNESS], ids=lambda i: i.name)
def test_workflow_draws_the_generators_map(intrinsic, timestep, prediction):
    generator = adapted(stable_diffusion(timestep, prediction), intrinsic)
    drawer, own = run(generator, intrinsic)
    assert drawer.timesteps == [999 if timestep is None else timestep]
    saved = drawer.saved[f"ilora-{intrinsic.name}"].movedim(-1, 1)
    assert saved.shape[-2] == 64, "scaled to the model's height"
    assert float(own.std()) > 0.01
    torch.testing.assert_close(intrinsic.from_picture(saved), intrinsic.from_picture(own), atol=1e-4, rtol=0)


def test_inverted_normals():
    drawer, own = run(adapted(tiny(), NORMALS), NORMALS)
    torch.testing.assert_close(drawer.saved["ilora-normals-inverted"].movedim(-1, 1), 1 - own, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawer.saved["ilora-normals"].movedim(-1, 1), own, atol=1e-5, rtol=0)


def test_largest_channel_of_depth():
    generator = adapted(tiny(), DEPTH)
    prompt = made(DEPTH, depth_channels="max", prompt=DEPTH.prompt).prompt
    next(node for node in prompt.values() if node["class_type"] == "ImageScale")["inputs"]["height"] = 64
    drawer, own = run(generator, DEPTH, prompt)
    grey = drawer.saved["ilora-depth"].movedim(-1, 1)
    torch.testing.assert_close(grey, own.amax(1, keepdim=True).expand_as(own), atol=1e-5, rtol=0)
    assert float((own.amax(1) - own.mean(1)).max()) > 1e-3, "mean and maximum differ here"


def test_a_checkpoints_own_sampling_would_draw_another_map():
    """Without the node that makes the step raw: so the test above can fail."""
    for prediction in ("epsilon", "v_prediction"):
        generator = adapted(stable_diffusion(None, prediction), ALBEDO)
        prompt = json.loads(generator.comfyui(ALBEDO, "a.safetensors")["workflow_api.json"])
        next(n for n in prompt.values() if n["class_type"] == "ModelSamplingDiscrete")["inputs"]["sampling"] = (
            "eps" if prediction == "epsilon" else prediction
        )
        drawer, own = run(generator, ALBEDO, prompt)
        assert float((drawer.saved["ilora-albedo"].movedim(-1, 1) - own).abs().max()) > 0.01


def test_sdxl_draws_the_generators_map():
    generator = adapted(tiny_sdxl(), ALBEDO)
    drawer, own = run(generator, ALBEDO)
    torch.testing.assert_close(drawer.saved["ilora-albedo"].movedim(-1, 1), own, atol=1e-4, rtol=0)


def test_every_timesteps_sigma_leads_back_to_it():
    sigmas = torch.tensor([sigma_of(SCHEDULER, t) or 0.0 for t in range(999)])
    assert machine.timestep_of(sigmas).tolist() == list(range(999))
    assert sigma_of(SCHEDULER, 999) is None


def test_another_noise_schedule_is_refused():
    with pytest.raises(ConfigError, match="one noise schedule"):
        sigma_of({**SCHEDULER, "beta_end": 0.02}, 300)
    with pytest.raises(ConfigError, match="one noise schedule"):
        sigma_of({**SCHEDULER, "num_train_timesteps": 500}, 499)


def test_parentheses_in_a_prompt_stay_letters():
    words = [n["inputs"]["text"] for n in made(prompt="depth (near)").prompt.values() if "text" in n["inputs"]]
    assert words == [r"depth \(near\)"]


def test_note_says_what_goes_where():
    (note,) = [node for node in made().editor["nodes"] if node["type"] == "Note"]
    (text,) = note["widgets_values"]
    for part in (
        "models/checkpoints/sd15.safetensors",
        "models/loras/ilora.safetensors",
        "Licences",
        "x right, y down",
    ):
        assert part in text


def test_files_are_named_after_the_weights():
    parts = replace(tiny_components(), provenance={"weights": "/models/v1-5.safetensors"})
    files = StableDiffusion(parts).comfyui(NORMALS, "n.safetensors")
    assert set(files) == {"workflow.json", "workflow_api.json"}
    assert '"ckpt_name": "v1-5.safetensors"' in files["workflow_api.json"]
    assert '"lora_name": "n.safetensors"' in files["workflow_api.json"]
    assert '"other.ckpt"' in StableDiffusion(parts).comfyui(NORMALS, "n", "other.ckpt")["workflow_api.json"]


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_skeleton_says_the_same_as_the_model(name, monkeypatch):
    """What an export without weights is made from: the settings that an adapter was trained with must not be lost."""
    monkeypatch.setenv("ILORA_PLUGINS", "ilora-sd")
    host = load_plugins()
    prompt = host.make_skeleton("generators", name, timestep=300).comfyui(NORMALS, "a")["workflow_api.json"]
    nodes = {node["class_type"]: node["inputs"] for node in json.loads(prompt).values()}
    assert nodes["SetFirstSigma"]["sigma"] == sigma_of(SCHEDULER, 300)
    usual = {"sd15": "v1-5-pruned-emaonly.safetensors"}  # the single file that registry.toml knows
    assert nodes["CheckpointLoaderSimple"]["ckpt_name"] == usual.get(name, f"{name}.safetensors")
    assert nodes["ImageScale"]["height"] == (512 if name == "sd15" else 1024)
    editor = host.make_skeleton("generators", name).comfyui(NORMALS, "a")["workflow.json"]
    assert "SetFirstSigma" not in editor
    assert "OpenRAIL" in editor, "the licence of the weights, from the registry"
    for settings in ({"output": "clean"}, {"random_unet": True}):
        with pytest.raises(ConfigError, match="stock nodes cannot draw"):
            host.make_skeleton("generators", name, **settings).comfyui(NORMALS, "a")
    with pytest.raises(ConfigError, match="timestep must lie in"):
        host.make_skeleton("generators", name, timestep=1000)


def test_maps_that_stock_nodes_cannot_draw():
    clean = StableDiffusion(tiny_components(), output="clean")
    with pytest.raises(ConfigError, match="output=clean"):
        clean.comfyui(NORMALS, "a")
    told = tiny()
    told.instruction = object()
    with pytest.raises(ConfigError, match="what this adapter tells"):
        told.comfyui(NORMALS, "a")
    random = StableDiffusion(replace(tiny_components(), provenance={"random_unet": 0}))
    with pytest.raises(ConfigError, match="random network"):
        random.comfyui(NORMALS, "a")
    codec = tiny()
    codec.vae = torch.nn.Identity()
    with pytest.raises(ConfigError, match="it has no Identity"):
        codec.comfyui(NORMALS, "a")
    assert not hasattr(tiny_sd3(), "comfyui")
    assert not hasattr(tiny_augmented(), "comfyui")
    with pytest.raises(ConfigError, match="mean or max"):
        made(DEPTH, depth_channels="median")
