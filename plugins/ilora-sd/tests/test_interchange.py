"""LoRA files in and out: every layout gives the reference's map, damaged and hostile files give one error and run nothing."""

import json
import os
import pickle
import shutil
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ilora_core.artefact import find_artefacts
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ArtefactError, ConfigError, IloraError
from ilora_core.interchange.exporting import export_adapter, kohya_layout
from ilora_core.interchange.importing import Told, import_adapter, intrinsic_of_name, save_imported
from ilora_core.interchange.layouts import kohya_paths
from ilora_core.interchange.lora_file import fit_to, read_lora
from ilora_core.plugins import load_plugins
from ilora_core.predict import Predictor
from ilora_sd.factories import letters

ORACLES = Path(__file__).parent / "oracles"
FACTS = json.loads((ORACLES / "sd_tiny.json").read_text())
RELEASED = ORACLES / "old_attn_procs_conv.safetensors"
CPU = RuntimeConfig(device="cpu")


def from_keys(prefix: str, table: list) -> dict[str, torch.Tensor]:
    """Weights that follow from their keys, as the oracle's `weight_rule` says."""
    made = {}
    for key, shape, rule, scale in table:
        source = np.random.Generator(np.random.PCG64(zlib.crc32((prefix + key).encode())))
        value = source.standard_normal(tuple(shape), dtype=np.float32) * np.float32(scale)
        made[key] = torch.from_numpy(value + 1 if rule == "norm_weight" else value)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The oracle's model on disk, with a text encoder of the right width (its words are replaced below)."""
    out = tmp_path_factory.mktemp("oracle") / "sd"
    unet = UNet2DConditionModel(**FACTS["unet_conv_config"])
    unet.load_state_dict(from_keys("unet_conv/", FACTS["unet_conv_state_dict"]))
    vae = AutoencoderKL(**FACTS["vae_config"])
    vae.load_state_dict(from_keys("vae/", FACTS["vae_state_dict"]))
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {"max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=60, **sizes, **marks))
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = DDIMScheduler(**betas, steps_offset=1, clip_sample=False)
    for name, part in {
        "unet": unet,
        "vae": vae,
        "text_encoder": text,
        "tokenizer": letters(),
        "scheduler": scheduler,
    }.items():
        part.save_pretrained(out / name)
    return out


@pytest.fixture(scope="module")
def oracle():
    with np.load(ORACLES / "sd_tiny.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture
def released() -> dict[str, torch.Tensor]:
    return load_file(RELEASED)


def told(folder: Path, **more) -> Told:
    return Told(**{"intrinsic": "albedo", "generator": "sd", "settings": {"weights": str(folder)}, **more})


def drawn(predictor: Predictor, oracle, name: str = "albedo") -> torch.Tensor:
    """The map of the oracle's pictures, told with the oracle's words; as the decoder's raw output in [-1, 1]."""
    generator, intrinsic = predictor.generator, predictor.intrinsics[name]
    generator._prompts[intrinsic.prompt] = {"prompt": oracle["context"]}
    pictures = oracle["rgb_u8"].permute(0, 3, 1, 2).float() / 255
    return generator.render(generator.encode(pictures), intrinsic)


def expected(oracle) -> torch.Tensor:
    return (oracle["conv/decoded_lora"] / 2 + 0.5).clamp(0, 1)


def check(artefact, oracle):
    torch.testing.assert_close(drawn(Predictor([artefact], runtime=CPU), oracle), expected(oracle), atol=1e-5, rtol=0)


def renamed(state: dict, layout: str) -> dict[str, torch.Tensor]:
    """The released file's tensors in another layout, by rules of its own: not those of the code."""
    made = {}
    for key, value in state.items():
        path, _, rest = key.partition(".processor.")
        layer, half = rest.split("_lora.")[0], rest.split(".")[-2]
        layer = "to_out.0" if layer == "to_out" else layer
        if layout == "old":
            made[key] = value
        elif layout == "old, unet.":
            made[f"unet.{key}"] = value
        elif layout == "diffusers":
            made[f"unet.{path}.{layer}.lora.{half}.weight"] = value
        elif layout.startswith("peft"):
            prefix = {"peft": "", "peft, unet.": "unet.", "peft, wrapped": "base_model.model."}[layout]
            made[f"{prefix}{path}.{layer}.lora_{'A' if half == 'down' else 'B'}.weight"] = value
        else:
            name = f"lora_unet_{path}.{layer}".replace(".", "_")
            made[f"{name}.lora_{half}.weight"] = value
            made[f"{name}.alpha"] = torch.tensor(8.0)
    return made


@pytest.mark.parametrize("layout", ["old", "old, unet.", "diffusers", "peft", "peft, unet.", "peft, wrapped", "kohya"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_every_layout_gives_the_references_map(layout, suffix, released, folder, oracle, tmp_path):
    path, tensors = tmp_path / f"some_albedo{suffix}", renamed(released, layout)
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(OrderedDict(tensors), path)
    artefact = import_adapter(path, told(folder, intrinsic=None))
    assert artefact.intrinsic.name == "albedo"
    assert artefact.config["lora_alpha"] == artefact.config["r"] == 8
    assert sorted(artefact.config["target_modules"]) == ["to_k", "to_out.0", "to_q", "to_v"]
    check(artefact, oracle)


def test_an_imported_folder_is_an_artefact(folder, oracle, tmp_path):
    save_imported(import_adapter(RELEASED, told(folder)), tmp_path / "albedo")
    (artefact,) = find_artefacts(tmp_path)
    check(artefact, oracle)
    assert artefact.record["imported"]["layout"] == "attention processors"
    assert artefact.record["imported"]["timestep"] == 999
    assert artefact.record["imported"]["layers"] == artefact.record["imported"]["usual_layers"] == 32
    assert "not stated" in artefact.record["licences"]["adapter weights"]
    with pytest.raises(ArtefactError, match="exists already"):
        save_imported(artefact, tmp_path / "albedo")


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
@pytest.mark.parametrize("alpha", [8.0, 3.0])
def test_export_and_back(to, alpha, folder, oracle, released, tmp_path):
    """With alpha 3 the file says so, and B is larger to make up for it."""
    tensors = {key: value * (8 / alpha if ".up." in key else 1) for key, value in released.items()}
    save_file(tensors, tmp_path / "in.safetensors")
    artefact = import_adapter(tmp_path / "in.safetensors", told(folder, alpha=alpha))
    check(artefact, oracle)
    exported = export_adapter(artefact, to, tmp_path / "out")
    (name,) = [name for name in exported.files if name.endswith(".safetensors")]
    back = import_adapter(tmp_path / "out" / name, told(folder))
    assert back.config["lora_alpha"] == alpha
    check(back, oracle)


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
def test_diffusers_itself_loads_an_export(to, folder, oracle, tmp_path):
    export_adapter(import_adapter(RELEASED, told(folder)), to, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.safetensors")
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=letters(),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.load_lora_weights(tmp_path / "out", weight_name=path.name)
    with torch.no_grad():
        latent = pipe.unet(oracle["cond_latents"], 999, oracle["context"]).sample
    torch.testing.assert_close(latent, oracle["conv/pred_lora"], atol=1e-5, rtol=0)


def test_merged_is_a_pipeline_without_an_adapter(folder, oracle, tmp_path):
    export_adapter(import_adapter(RELEASED, told(folder)), "merged", tmp_path / "out")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert not [key for key in pipe.unet.state_dict() if "lora" in key]
    with torch.no_grad():
        latent = pipe.unet(oracle["cond_latents"], 999, oracle["context"]).sample
    torch.testing.assert_close(latent, oracle["conv/pred_lora"], atol=1e-5, rtol=0)
    again = load_plugins().make("generators", "sd", weights=str(tmp_path / "out"))
    again._prompts["albedo"] = {"prompt": oracle["context"]}
    artefact = import_adapter(RELEASED, told(folder))
    pictures = oracle["rgb_u8"].permute(0, 3, 1, 2).float() / 255
    map_ = again.render(again.encode(pictures), artefact.intrinsic)
    torch.testing.assert_close(map_, expected(oracle), atol=1e-5, rtol=0)


def test_onnx_draws_the_same_map(folder, oracle, tmp_path):
    """Told by the model's own text encoder, as a file holds no other words; the weights are the reference's."""
    onnxruntime = pytest.importorskip("onnxruntime")
    artefact = import_adapter(RELEASED, told(folder))
    exported = export_adapter(artefact, "onnx", tmp_path / "out")
    assert "albedo.onnx" in exported.files
    assert exported.notes["max_abs_error"] < 1e-4
    pictures = oracle["rgb_u8"].permute(0, 3, 1, 2).float() / 255
    session = onnxruntime.InferenceSession(tmp_path / "out" / "albedo.onnx", providers=["CPUExecutionProvider"])
    (map_,) = session.run(["albedo"], {"picture": pictures.numpy()})
    predictor = Predictor([artefact], runtime=CPU)
    wanted = predictor.from_codes(predictor.generator.encode(pictures))["albedo"]
    torch.testing.assert_close(torch.from_numpy(map_), wanted, atol=1e-5, rtol=0)


def test_a_comfyui_folder(folder, tmp_path):
    exported = export_adapter(import_adapter(RELEASED, told(folder)), "comfyui", tmp_path / "out")
    assert exported.files == ("README.md", "ilora_sd_albedo.safetensors", "workflow.json", "workflow_api.json")
    nodes = json.loads((tmp_path / "out" / "workflow_api.json").read_text()).values()
    inputs = {node["class_type"]: node["inputs"] for node in nodes}
    assert inputs["LoraLoaderModelOnly"]["lora_name"] == "ilora_sd_albedo.safetensors"
    assert inputs["CheckpointLoaderSimple"]["ckpt_name"] == "sd.safetensors"
    stretched = import_adapter(RELEASED, told(folder, intrinsic="depth", decoding="reference"))
    with pytest.raises(ConfigError, match="stretch"):
        export_adapter(stretched, "comfyui", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_export_has_the_model_card(folder, tmp_path):
    export_adapter(import_adapter(RELEASED, told(folder, licence="CC-BY-4.0")), "kohya", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {"ilora", "albedo"} <= set(card.data.tags)
    assert "ComfyUI" in card.text
    assert "| adapter weights | old_attn_procs_conv.safetensors | CC-BY-4.0 | permissive |" in card.text
    assert "| lr |" not in card.text  # how it was trained is not known


def test_ranks_and_alphas_that_differ_between_layers(folder, oracle, released, tmp_path):
    """The same product from shares of unlike rank and scale."""
    tensors = {}
    for key, value in sorted(renamed(released, "kohya").items()):
        extra = 4 * (zlib.crc32(key.partition(".")[0].encode()) % 2)
        if key.endswith("alpha"):
            tensors[key] = torch.tensor((8.0 + extra) / 2)
        elif "lora_down" in key:
            tensors[key] = torch.cat([value, torch.zeros(extra, value.shape[1])])
        else:
            tensors[key] = torch.cat([value * 2, torch.zeros(value.shape[0], extra)], 1)
    save_file(tensors, tmp_path / "mixed.safetensors")
    artefact = import_adapter(tmp_path / "mixed.safetensors", told(folder))
    assert artefact.config["r"] == 12
    check(artefact, oracle)
    tensors["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha"].mul_(2)
    tensors["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight"].div_(2)
    save_file(tensors, tmp_path / "uneven.safetensors")
    check(import_adapter(tmp_path / "uneven.safetensors", told(folder)), oracle)


def test_the_references_decoding(folder, oracle, tmp_path):
    """Its script: depth stretched to the limits of the unclamped three channels, then their mean; normals only clamped."""
    raw = oracle["conv/decoded_lora"]
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    shown = (raw / 2 + 0.5).clamp(0, 1)
    cases = [
        ("depth", "reference", 1 - ((raw - low) / (high - low)).mean(1, keepdim=True)),
        ("depth", "max", 1 - shown.amax(1, keepdim=True)),
        ("depth", "", 1 - shown.mean(1, keepdim=True)),
        ("normals", "reference", raw.clamp(-1, 1)),
        ("normals", "", torch.nn.functional.normalize(raw.clamp(-1, 1), dim=1)),
    ]
    assert float(raw.abs().max()) > 1  # else the unclamped rule would not differ
    for name, decoding, wanted in cases:
        artefact = import_adapter(RELEASED, told(folder, intrinsic=name, decoding=decoding))
        predictor = Predictor([artefact], runtime=CPU)
        intrinsic = predictor.intrinsics[name]
        map_ = intrinsic.from_picture(drawn(predictor, oracle, name))
        torch.testing.assert_close(map_, wanted, atol=1e-5 if decoding or name == "depth" else 1e-4, rtol=0)
        assert type(intrinsic).from_json(intrinsic.to_json()) == intrinsic
    with pytest.raises(ConfigError, match="decoding"):
        import_adapter(RELEASED, told(folder, intrinsic="albedo", decoding="max"))


@pytest.mark.parametrize(
    ("name", "intrinsic"),
    [
        ("intrinsic_lora_sd15_normal", "normals"),
        ("intrinsic_lora_sd15_depth", "depth"),
        ("surface_normals", "normals"),
        ("albedo_pytorch_model", "albedo"),
        ("Shading-v2", "shading"),
        ("pytorch_model", ""),
        ("normal_and_depth", ""),
        ("abnormal", ""),
    ],
)
def test_intrinsic_from_a_files_name(name, intrinsic):
    assert intrinsic_of_name(name) == intrinsic


# ------------------------------------------------------------------------------------- models of full size, without weights


@pytest.fixture(scope="module")
def sites():
    """Card -> the attention layers of its network, by diffusers' names and shapes."""
    host = load_plugins()
    found = {}
    for name in ("sd15", "sd21", "sdxl"):
        net = host.make_skeleton("generators", name).net
        found[name] = {
            path: tuple(module.weight.shape)
            for path, module in net.named_modules()
            if path.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))
        }
    return found


def full_file(sites: dict, path: Path, rank: int = 2) -> Path:
    state = {}
    for name, (out, width) in sites.items():
        state[f"unet.{name}.lora_A.weight"] = torch.full((rank, width), 0.5)
        state[f"unet.{name}.lora_B.weight"] = torch.full((out, rank), 0.25)
    save_file(state, path)
    return path


def test_the_generator_is_told_from_the_layers(sites, tmp_path):
    artefact = import_adapter(full_file(sites["sd15"], tmp_path / "depth.safetensors"))
    assert (artefact.generator, artefact.record["imported"]["layers"]) == ("sd15", 128)
    assert artefact.intrinsic.prompt == "depth map"
    for name, choices in (("sd21", "sd21 or sd21-base or sd21-aug"), ("sdxl", "sdxl or sdxl-turbo")):
        path = full_file(sites[name], tmp_path / f"{name}_depth.safetensors")
        with pytest.raises(ConfigError, match=choices):
            import_adapter(path)
        assert import_adapter(path, Told(generator=name)).generator == name
    own = {path: shape for path, shape in sites["sd15"].items() if ".attn1." in path}
    with pytest.raises(ConfigError, match="fits several"):  # self-attention is alike in 1.x and 2.x
        import_adapter(full_file(own, tmp_path / "own_depth.safetensors"))


def test_comfyui_reads_all_128_layers(sites, tmp_path):
    """ComfyUI's own key rule (comfy/lora.py): "lora_unet_" and the diffusers name with "_" for "."."""
    accepted = {f"lora_unet_{path}".replace(".", "_") for path in sites["sd15"]}
    artefact = import_adapter(full_file(sites["sd15"], tmp_path / "depth.safetensors"))
    tensors, _ = kohya_layout(artefact.tensors(), artefact.config)
    assert len(accepted) == 128
    assert {key.partition(".")[0] for key in tensors} == accepted
    assert len(tensors) == 3 * 128


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_stabilitys_block_names(name, sites, tmp_path):
    """kohya's files for SDXL count blocks as Stability's code does; diffusers' own converter says what they mean."""
    names = {short: path for short, path in kohya_paths(list(sites[name])).items() if "_blocks_" in short}
    old = {short: path for short, path in names.items() if short.startswith(("input_", "middle_", "output_"))}
    assert set(old.values()) == set(sites[name])
    state = {}
    for short, path in old.items():
        out, width = sites[name][path]
        state[f"lora_unet_{short}.lora_down.weight"] = torch.ones(1, width)
        state[f"lora_unet_{short}.lora_up.weight"] = torch.ones(out, 1)
        state[f"lora_unet_{short}.alpha"] = torch.tensor(1.0)
    save_file(state, tmp_path / "depth.safetensors")
    artefact = import_adapter(tmp_path / "depth.safetensors", Told(generator=name))
    assert {key.rpartition(".lora_")[0] for key in artefact.tensors()} == set(sites[name])
    unet = load_plugins().make_skeleton("generators", name).net
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(state), unet.config)
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    theirs = {key.removeprefix("unet.").partition("_lora.")[0].replace(".processor", "") for key in converted}
    assert {path.replace(".to_out.0", ".to_out") for path in sites[name]} == theirs


# ------------------------------------------------------------------------------------------------- damaged and hostile files


class Payload:
    """Unpickling this by ordinary means leaves a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def _clones(state: dict) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in state.items()}


def _cut(path, state, share):
    save_file(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _first(state: dict, ending: str) -> str:
    return next(key for key in sorted(state) if key.endswith(ending))


def _changed(**changes):
    """Write the released file with some tensors replaced, taken away or added."""

    def write(path, state, canary):
        for ending, change in changes.items():
            key = _first(state, ending.replace("__", "."))
            value = change(state[key])
            state.pop(key) if value is None else state.update({key: value})
        save_file(state, path)

    return write


def _added(key, value):
    def write(path, state, canary):
        save_file({**state, key: value}, path)

    return write


def _pickled(make):
    def write(path, state, canary):
        torch.save(make(state, canary), path)

    return write


def _plain_pickle(path, state, canary):
    path.write_bytes(pickle.dumps(Payload(canary)))


def _nan(value):
    value[0, 0] = float("nan")
    return value


def _inf(value):
    value[-1, -1] = float("inf")
    return value


HOSTILE = {
    "empty.safetensors": (lambda path, state, canary: path.write_bytes(b""), "cannot be read"),
    "header cut.safetensors": (lambda path, state, canary: _cut(path, state, 0.005), "cannot be read"),
    "data cut.safetensors": (lambda path, state, canary: _cut(path, state, 0.7), "cannot be read"),
    "garbage.safetensors": (lambda path, state, canary: path.write_bytes(bytes(range(256)) * 40), "cannot be read"),
    "huge header.safetensors": (
        lambda path, state, canary: path.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        "cannot be read",
    ),
    "no tensors.safetensors": (lambda path, state, canary: save_file({}, path), "no table of tensors"),
    "no lora.safetensors": (lambda path, state, canary: save_file({"conv_in.weight": torch.ones(2)}, path), "no LoRA"),
    "half missing.safetensors": (_changed(to_k_lora__up__weight=lambda value: None), r"has no up \(B\)"),
    "layer missing.safetensors": (
        _changed(to_k_lora__up__weight=lambda value: None, to_k_lora__down__weight=lambda value: None),
        "31 of the 32",
    ),
    "wrong rank.safetensors": (_changed(to_k_lora__up__weight=lambda value: value[:, :4].clone()), "do not belong"),
    "wrong width.safetensors": (_changed(to_q_lora__down__weight=lambda value: value[:, :5].clone()), "another shape"),
    "one number.safetensors": (_changed(to_q_lora__down__weight=lambda value: value[0, 0].clone()), "do not belong"),
    "rank 0.safetensors": (_changed(to_q_lora__down__weight=lambda value: value[:0].clone()), "do not belong"),
    "nan.safetensors": (_changed(to_q_lora__down__weight=_nan), "not finite"),
    "inf.safetensors": (_changed(to_v_lora__up__weight=_inf), "not finite"),
    "integers.safetensors": (_changed(to_q_lora__down__weight=lambda value: value.int()), "floating-point"),
    "mixed.safetensors": (
        lambda path, state, canary: save_file({**state, **renamed(_clones(state), "kohya")}, path),
        "mixes layouts",
    ),
    "twice.safetensors": (
        lambda path, state, canary: save_file({**state, **renamed(_clones(state), "old, unet.")}, path),
        "twice",
    ),
    "stranger.safetensors": (_added("unet.some.other.weight", torch.ones(3)), "some.other.weight"),
    "strange layer.safetensors": (
        lambda path, state, canary: save_file({k.replace("mid_block", "mid_blok"): v for k, v in state.items()}, path),
        "mid_blok.attentions.0",
    ),
    "text encoder.safetensors": (
        _added("lora_te_text_model_q_proj.lora_down.weight", torch.ones(8, 4)),
        "text encoder",
    ),
    "loha.safetensors": (_added("lora_unet_a.hada_w1_a", torch.ones(8, 4)), "LoHa"),
    "payload.bin": (_pickled(lambda state, canary: {**state, "x": Payload(canary)}), "asks to run"),
    "payload alone.bin": (_pickled(lambda state, canary: Payload(canary)), "asks to run"),
    "payload in a key.pt": (_pickled(lambda state, canary: {("k", Payload(canary)): 1}), "asks to run"),
    "plain payload.bin": (_plain_pickle, "more than weights|cannot be read"),
    "list.bin": (_pickled(lambda state, canary: list(state.values())), "no table"),
    "not tensors.bin": (_pickled(lambda state, canary: {**state, "epoch": 3}), "epoch"),
    "text.bin": (lambda path, state, canary: path.write_text("<html>404</html>"), "cannot be read"),
    "folder.txt": (lambda path, state, canary: path.write_text("x"), "by its name"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_one_clear_error_and_nothing_runs(name, released, folder, tmp_path):
    write, message = HOSTILE[name]
    path, canary = tmp_path / name, tmp_path / "canary"
    write(path, released, canary)
    with pytest.raises(IloraError, match=message) as caught:
        import_adapter(path, told(folder))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_payloads_do_run_when_unpickled(tmp_path):
    """Else the test above could not fail."""
    with open(tmp_path / "plain.bin", "wb") as file:
        pickle.dump(Payload(tmp_path / "canary"), file)
    with open(tmp_path / "plain.bin", "rb") as file:
        pickle.load(file)
    assert (tmp_path / "canary").exists()


def test_alpha_from_peft_beside_the_file(released, folder, oracle, tmp_path):
    tensors = {k: v * (4 if "lora_B" in k else 1) for k, v in renamed(released, "peft").items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 2}))
    check(import_adapter(tmp_path / "adapter_model.safetensors", told(folder)), oracle)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 2, "use_rslora": True}))
    with pytest.raises(ArtefactError, match="rsLoRA"):
        import_adapter(tmp_path / "adapter_model.safetensors", told(folder))


def test_half_precision_files(released, folder, oracle, tmp_path):
    save_file({key: value.half() for key, value in released.items()}, tmp_path / "half.safetensors")
    artefact = import_adapter(tmp_path / "half.safetensors", told(folder))
    assert {value.dtype for value in artefact.tensors().values()} == {torch.float32}
    drawn_ = drawn(Predictor([artefact], runtime=CPU), oracle)
    torch.testing.assert_close(drawn_, expected(oracle), atol=5e-3, rtol=0)


def test_exports_that_do_not_fit(tmp_path, folder):
    artefact = import_adapter(RELEASED, told(folder))
    with pytest.raises(ConfigError, match="--to is one of"):
        export_adapter(artefact, "ckpt", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(ArtefactError, match="exists already"):
        export_adapter(artefact, "kohya", tmp_path / "full")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_fitting_needs_shapes_only(sites, tmp_path):
    path = full_file(sites["sd15"], tmp_path / "depth.safetensors")
    net = load_plugins().make_skeleton("generators", "sd15").net
    assert {p.device.type for p in net.parameters()} == {"meta"}
    assert len(fit_to(read_lora(path), net, what="sd15")) == 128
    shutil.rmtree(tmp_path)
