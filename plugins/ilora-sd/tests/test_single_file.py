"""Single-file checkpoints: written here in the original layout from tiny random networks, and read back."""

import os
import pickle
import re
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ilora_core.errors import WeightsError
from ilora_core.intrinsics import NORMALS
from ilora_sd.architectures import ARCHITECTURES, Architecture
from ilora_sd.factories import tiny_components
from ilora_sd.loading import Components, load_components
from ilora_sd.model import StableDiffusion
from ilora_sd.single_file import detect, load_single_file

TINY_UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
TINY_VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.18215,
}
TINY_TEXT = {
    "vocab_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
TINY = {
    "sd1": Architecture(
        "sd1",
        {**TINY_UNET, "cross_attention_dim": 16},
        TINY_VAE,
        {**TINY_TEXT, "hidden_size": 16, "intermediate_size": 32, "hidden_act": "quick_gelu"},
    ),
    "sd2": Architecture(
        "sd2",
        {**TINY_UNET, "cross_attention_dim": 24, "use_linear_projection": True},
        TINY_VAE,
        {**TINY_TEXT, "hidden_size": 24, "intermediate_size": 48, "hidden_act": "gelu"},
    ),
}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def build(architecture):
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(dict(architecture.unet))
    vae = AutoencoderKL.from_config(dict(architecture.vae))
    text = CLIPTextModel(CLIPTextConfig(**architecture.text))
    return unet, vae, text


def resnet(rest):
    name, _, end = rest.rpartition(".")
    return f"{RESNET[name]}.{end}"


def unet_key(key, per_block, with_attention):
    """LDM's name of a diffusers UNet tensor; with_attention: up blocks whose upsampler comes after an attention."""
    name, _, end = key.rpartition(".")
    if name in UNET_ENDS:
        return f"{UNET_ENDS[name]}.{end}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{rest if kind == 'attentions' else resnet(rest)}"
    side, block, kind, number, rest = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", key).groups()
    block, number = int(block), int(number)
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (per_block + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (per_block + 1) + per_block}.{2 if block in with_attention else 1}.{rest}"
    place = f"input_blocks.{1 + block * (per_block + 1) + number}"
    if side == "up":
        place = f"output_blocks.{block * (per_block + 1) + number}"
    return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{resnet(rest)}"


def vae_key(key, levels):
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"mid_block\.attentions\.0\.(.+)\.", lambda m: f"mid.attn_1.{VAE_ATTENTION[m[1]]}.", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)


def open_clip(state):
    """OpenCLIP's names; q, k and v in one tensor."""
    made = {}
    for key, value in state.items():
        key = key.removeprefix("text_model.")
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            stem = key.rpartition(".q_proj")[0]
            prefix = "text_model." if f"text_model.{key}" in state else ""
            joined = [state[f"{prefix}{stem}.{part}_proj.{match[2]}"] for part in "qkv"]
            made[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(joined)
        elif ".k_proj." not in key and ".v_proj." not in key:
            key = key.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn", "attn")
            key = key.replace("layer_norm", "ln_").replace("fc1", "c_fc").replace("fc2", "c_proj")
            key = key.replace("final_ln_", "ln_final").replace("embeddings.token_embedding", "token_embedding")
            made[key.replace("embeddings.position_embedding.weight", "positional_embedding")] = value
    width = made["ln_final.weight"].shape[0]
    return {**made, "text_projection": torch.eye(width), "logit_scale": torch.ones(())}


def ldm(architecture, unet, vae, text):
    """The original layout, with the extra tensors that such files have."""
    ups = {i for i, kind in enumerate(architecture.unet["up_block_types"]) if "CrossAttn" in kind}
    per_block, levels = architecture.unet["layers_per_block"], len(architecture.vae["block_out_channels"])
    made = {"betas": torch.ones(10), "model_ema.decay": torch.ones(())}
    for key, value in unet.state_dict().items():
        made[f"model.diffusion_model.{unet_key(key, per_block, ups)}"] = value
    for key, value in vae.state_dict().items():
        convolution = ".attentions." in key and "group_norm" not in key and value.ndim == 2
        made[f"first_stage_model.{vae_key(key, levels)}"] = value[..., None, None] if convolution else value
    words = text.state_dict()
    if architecture.name == "sd2":
        made |= {f"cond_stage_model.model.{key}": value for key, value in open_clip(words).items()}
    else:
        prefix = "cond_stage_model.transformer.text_model."
        made |= {f"{prefix}{key.removeprefix('text_model.')}": value for key, value in words.items()}
        made[f"{prefix}embeddings.position_ids"] = torch.arange(16)[None]
    return {key: value.contiguous() for key, value in made.items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_components().tokenizer.save_pretrained(folder)
    return str(folder)


def load(path, tokenizer):
    return load_single_file(path, tokenizer=tokenizer, local_only=True, architectures=TINY)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_outputs_are_those_of_the_networks(name, suffix, tmp_path, tokenizer):
    architecture, path = TINY[name], tmp_path / f"model{suffix}"
    unet, vae, text = build(architecture)
    state = ldm(architecture, unet, vae, text)
    if suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 875000}, path)
    else:
        save_file(state, path)
    loaded = load(path, tokenizer)
    words = tiny_components().tokenizer
    made = StableDiffusion(Components(unet, vae, text, words, loaded.scheduler_config))
    read = StableDiffusion(loaded)
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    codes, expected = read.encode(pictures), made.encode(pictures)
    torch.testing.assert_close(codes, expected)
    torch.testing.assert_close(read._conditions("surface normal"), made._conditions("surface normal"))
    torch.testing.assert_close(read.render(codes, NORMALS), made.render(codes, NORMALS))
    assert loaded.provenance["architecture"] == name
    assert loaded.provenance["tokenizer"] == tokenizer


def test_half_precision_is_read_as_float32(tmp_path, tokenizer):
    state = ldm(TINY["sd1"], *build(TINY["sd1"]))
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors", tokenizer)
    assert {p.dtype for m in (loaded.unet, loaded.vae, loaded.text_encoder) for p in m.parameters()} == {torch.float32}


def test_the_moving_average_is_preferred(tmp_path, tokenizer):
    unet, vae, text = build(TINY["sd1"])
    state = ldm(TINY["sd1"], unet, vae, text)
    prefix = "model.diffusion_model."
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value + 1
        for key, value in state.items()
        if key.startswith(prefix)
    }
    save_file({**state, **averages}, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors", tokenizer)
    for one, other in zip(loaded.unet.parameters(), unet.parameters(), strict=True):
        torch.testing.assert_close(one, other + 1)


@pytest.mark.parametrize(
    ("name", "file", "step", "expected"),
    [
        ("sd1", "m.ckpt", 5, "epsilon"),
        ("sd2", "m.ckpt", 875000, "epsilon"),
        ("sd2", "m.ckpt", 110000, "v_prediction"),
        ("sd2", "v2-1_512-ema-pruned.ckpt", None, "epsilon"),
        ("sd2", "v2-1_768-ema-pruned.ckpt", None, "v_prediction"),
    ],
)
def test_prediction_is_recorded(name, file, step, expected, tmp_path, tokenizer):
    torch.save({"state_dict": ldm(TINY[name], *build(TINY[name])), "global_step": step}, tmp_path / file)
    loaded = load(tmp_path / file, tokenizer)
    assert loaded.scheduler_config["prediction_type"] == expected
    assert loaded.provenance["prediction_type"].startswith(expected)


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("zip", r"asks to run \w+\.system.*safetensors"),
        (2, r"asks to run \w+\.system.*safetensors"),
        (4, r"cannot be read: Unsupported operand"),
    ],
)
def test_a_hostile_checkpoint_runs_nothing(protocol, message, tmp_path, tokenizer):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "was-here"
    data = {"state_dict": {"x": torch.ones(1)}, "callbacks": Hostile(f"touch {trace}")}
    if protocol == "zip":
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps({"callbacks": Hostile(f"touch {trace}")}, protocol))
    with pytest.raises(WeightsError, match=rf"evil\.ckpt.*{message}"):
        load(path, tokenizer)
    assert not trace.exists()


def test_callbacks_of_old_training_tools_are_ignored(tmp_path, tokenizer):
    class ModelCheckpoint:
        pass

    ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    import sys
    import types

    module = types.ModuleType(ModelCheckpoint.__module__)
    module.ModelCheckpoint = ModelCheckpoint
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", ModelCheckpoint.__module__]
    sys.modules.update(dict.fromkeys(names, module))
    try:
        state = ldm(TINY["sd1"], *build(TINY["sd1"]))
        torch.save({"state_dict": state, "callbacks": {ModelCheckpoint: {"best": 1}}}, tmp_path / "m.ckpt")
    finally:
        for name in names:
            del sys.modules[name]
    assert load(tmp_path / "m.ckpt", tokenizer).provenance["architecture"] == "sd1"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_truncated_file_is_named(suffix, keep, tmp_path, tokenizer):
    path = tmp_path / f"cut{suffix}"
    state = ldm(TINY["sd1"], *build(TINY["sd1"]))
    torch.save({"state_dict": state}, path) if suffix == ".ckpt" else save_file(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=rf"cut{suffix} cannot be read.*incomplete"):
        load(path, tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {f"conditioner.embedders.0.{k}": v for k, v in s.items()}, "SDXL"),
        (lambda s: {"model.diffusion_model.double_blocks.0.x": torch.ones(1)}, "Flux"),
        (lambda s: {"model.diffusion_model.joint_blocks.0.x": torch.ones(1)}, "Stable Diffusion 3"),
        (lambda s: {"lora_unet_x.lora_down.weight": torch.ones(1)}, "LoRA"),
        (lambda s: {"down_blocks.0.x": torch.ones(1)}, "part of a diffusers folder"),
        (lambda s: {"words": torch.ones(1)}, "no Stable Diffusion checkpoint"),
        (lambda s: {k: v for k, v in s.items() if "first_stage" not in k}, "without its VAE"),
        (lambda s: {k: v for k, v in s.items() if "cond_stage" not in k}, "without its text encoder"),
        (lambda s: {k: v for k, v in s.items() if "middle_block.0.in_layers.2" not in k}, "incomplete.*mid_block"),
    ],
)
def test_other_files_are_recognised(change, message, tmp_path, tokenizer):
    path = tmp_path / "m.safetensors"
    save_file(change(ldm(TINY["sd1"], *build(TINY["sd1"]))), path)
    with pytest.raises(WeightsError, match=message):
        load(path, tokenizer)


def test_other_shapes_are_recognised(tmp_path):
    first, prompt = "model.diffusion_model.input_blocks.0.0.weight", "attn2.to_k.weight"
    prompt = f"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.{prompt}"
    parts = {"first_stage_model.x": (1,), "cond_stage_model.x": (1,)}
    path = tmp_path / "m.ckpt"
    assert detect({first: (320, 4, 3, 3), prompt: (320, 768), **parts}, path).name == "sd1"
    assert detect({first: (320, 4, 3, 3), prompt: (320, 1024), **parts}, path).name == "sd2"
    with pytest.raises(WeightsError, match="inpainting"):
        detect({first: (320, 9, 3, 3), prompt: (320, 768), **parts}, path)
    with pytest.raises(WeightsError, match="prompt width is 1280"):
        detect({first: (320, 4, 3, 3), prompt: (320, 1280), **parts}, path)


def test_a_tokenizer_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "m.safetensors"
    save_file(ldm(TINY["sd1"], *build(TINY["sd1"])), path)
    with pytest.raises(WeightsError, match=r"(?s)openai/clip-vit-large-patch14.*generator\.tokenizer"):
        load(path, None)


def test_a_missing_file_and_the_way_in(tmp_path, tokenizer, monkeypatch):
    with pytest.raises(WeightsError, match=r"no file .*nowhere\.ckpt"):
        load_components(str(tmp_path / "nowhere.ckpt"))
    save_file(ldm(TINY["sd1"], *build(TINY["sd1"])), tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="prompt width is 16"):  # full-size architectures are what a user gets
        load_components(str(tmp_path / "m.safetensors"), tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_full_size_names_map_one_to_one(name):
    """Our inverse mapping gives as many names as the real networks have tensors (counts only, no weights)."""
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        unet, vae, text = build(replace(architecture))
        state = ldm(architecture, unet, vae, text)
    assert sum(key.startswith("model.diffusion_model.") for key in state) == 686
    assert sum(key.startswith("first_stage_model.") for key in state) == 248
