"""The reference stack's numbers (diffusers 0.20.2, its own attention processors) from ours, for weights made from key names."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ilora_core.adapters import LoraAdapter
from ilora_core.intrinsics import NORMALS
from ilora_sd.loading import Components
from ilora_sd.model import StableDiffusion

ORACLES = Path(__file__).parent / "oracles"
FACTS = json.loads((ORACLES / "sd_tiny.json").read_text())


def draw(key: str, shape: list[int], scale: float) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return generator.standard_normal(tuple(shape), dtype=np.float32) * np.float32(scale)


def weights(prefix: str, table: list) -> dict[str, torch.Tensor]:
    made = {}
    for key, shape, rule, scale in table:
        value = draw(prefix + key, shape, scale)
        made[key] = torch.from_numpy(value + 1 if rule == "norm_weight" else value)
    return made


def lora_weights(table: list, *, up_scale: float) -> dict[str, torch.Tensor]:
    """Old attention-processor keys and values under peft's names."""
    made = {}
    for key, shape in table:
        down = key.endswith("down.weight")
        value = draw("lora/" + key, shape, 0.125 if down else up_scale)
        path, layer = re.fullmatch(r"(.+)\.processor\.to_(q|k|v|out)_lora\.(?:down|up)\.weight", key).groups()
        layer = "to_out.0" if layer == "out" else f"to_{layer}"
        made[f"{path}.{layer}.lora_{'A' if down else 'B'}.weight"] = torch.from_numpy(value)
    return made


@pytest.fixture(scope="module")
def oracle():
    with np.load(ORACLES / "sd_tiny.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(params=["conv", "linear"])
def case(request):
    name = request.param
    vae = AutoencoderKL(**FACTS["vae_config"])
    vae.load_state_dict(weights("vae/", FACTS["vae_state_dict"]))
    unet = UNet2DConditionModel(**FACTS[f"unet_{name}_config"])
    unet.load_state_dict(weights(f"unet_{name}/", FACTS[f"unet_{name}_state_dict"]))
    text = torch.nn.Identity()
    model = StableDiffusion(Components(unet, vae, text, None, {"num_train_timesteps": 1000}))
    adapter = LoraAdapter(rank=8)
    adapter.attach(model.net, model.targets)
    return name, model, adapter


def pictures(array: torch.Tensor) -> torch.Tensor:
    return array.permute(0, 3, 1, 2).float() / 255


def prepared(model, oracle, *, noise: bool) -> dict[str, torch.Tensor]:
    codes = dict(model.encode(pictures(oracle["rgb_u8"])))
    model._prompts[NORMALS.prompt] = {"prompt": oracle["context"][:1]}
    target = pictures(oracle["label_u8"])
    codes |= model.prepare(codes, NORMALS, target, torch.ones_like(target[:, :1], dtype=torch.bool))
    if noise:
        codes["target"] = codes["target"] + codes.pop("target_std") * oracle["label_eps"]
    codes["prompt"] = oracle["context"]
    return codes


def test_latents(case, oracle):
    _, model, _ = case
    codes = prepared(model, oracle, noise=True)
    torch.testing.assert_close(codes["latent"], oracle["cond_latents"], atol=1e-5, rtol=0)
    torch.testing.assert_close(codes["target"], oracle["target_latents"], atol=1e-5, rtol=0)


def test_target_posterior(case, oracle):
    _, model, _ = case
    codes = prepared(model, oracle, noise=False)
    torch.testing.assert_close(codes["target"], oracle["label_mode"], atol=1e-5, rtol=0)
    std = (oracle["label_logvar"] / 2).exp() * model.scale
    torch.testing.assert_close(codes["target_std"], std, atol=1e-5, rtol=0)


def test_unet_and_decoder(case, oracle):
    name, model, adapter = case
    codes = prepared(model, oracle, noise=True)
    with torch.no_grad(), adapter.disabled():
        base = model._predict(codes["latent"], {"prompt": oracle["context"]})
    torch.testing.assert_close(base, oracle[f"{name}/pred_base"], atol=1e-5, rtol=0)
    adapter.load_state_dict(lora_weights(FACTS[f"lora_{name}_keys"], up_scale=0.2))
    with torch.no_grad():
        adapted = model._predict(codes["latent"], {"prompt": oracle["context"]})
        decoded = model.vae.decode(adapted / model.scale).sample
    torch.testing.assert_close(adapted, oracle[f"{name}/pred_lora"], atol=1e-5, rtol=0)
    torch.testing.assert_close(decoded, oracle[f"{name}/decoded_lora"], atol=1e-5, rtol=0)
    assert not torch.allclose(base, adapted, atol=1e-3)


def test_three_training_steps(case, oracle):
    name, model, adapter = case
    codes = prepared(model, oracle, noise=True)
    table = FACTS[f"lora_{name}_keys"]
    adapter.load_state_dict(lora_weights(table, up_scale=0.0))
    optimiser = torch.optim.AdamW(list(adapter.parameters()), lr=1e-4, weight_decay=1e-2)
    expected = FACTS[f"{name}_train_noclip"]
    losses, norms = [], []
    for _ in range(3):
        loss = model.loss(codes, NORMALS).mean()
        loss.backward()
        norms.append(torch.stack([p.grad.norm() for p in adapter.parameters()]).norm().item())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    losses.append(model.loss(codes, NORMALS).mean().item())
    np.testing.assert_allclose(losses, expected["losses"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(norms, expected["grad_norms"], atol=1e-5, rtol=0)
    state = adapter.state_dict()
    for key, shape in table:
        (renamed,) = lora_weights([[key, shape]], up_scale=0.0)
        trained = oracle[f"{name}/trained3/{key}"]
        torch.testing.assert_close(state[renamed], trained, atol=1e-5, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
