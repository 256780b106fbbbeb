"""Against numbers of the official code, from a checkpoint file as Lightning writes it, through the converter."""

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.intrinsics import NORMALS
from ilora_vqgan.key_map import first_stage_name
from ilora_vqgan.loading import load_components
from ilora_vqgan.model import VQGAN

CLOSE = 5e-5


@pytest.fixture
def generator(project) -> VQGAN:
    return VQGAN(load_components(str(project)))


def _grid(codes):
    return codes.view(len(codes), 8, 8)


def _worst(a, b) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
def test_decoding_codes_is_the_official_decoder(generator, oracle):
    raw = generator.net(_grid(oracle.arrays["codes"]))
    assert _worst(raw, oracle.arrays["decode"]) < CLOSE
    picture = generator.picture({"codes": _grid(oracle.arrays["codes"]).to(torch.int16)})
    assert _worst(picture, (oracle.arrays["decode"] / 2 + 0.5).clamp(0, 1)) < CLOSE


@torch.no_grad()
def test_encoding_a_picture_gives_the_official_codes(generator, oracle):
    image = oracle.arrays["image"]
    assert _worst(generator.encoder(image), oracle.arrays["encode_prequant"]) < CLOSE
    codes = generator.encode(image / 2 + 0.5)["codes"]
    assert codes.dtype == torch.int16
    assert torch.equal(codes.long(), _grid(oracle.arrays["encode_indices"]))
    assert _worst(generator.net(codes), oracle.arrays["reconstruct"]) < CLOSE


@torch.no_grad()
def test_the_prior_gives_the_official_logits_and_greedy_codes(generator, oracle):
    assert _worst(generator.prior(oracle.arrays["tokens"]).logits, oracle.arrays["logits"]) < CLOSE
    greedy = oracle.arrays["greedy_codes"]
    fed = torch.cat([torch.zeros(len(greedy), 1, dtype=torch.long), greedy[:, :-1]], 1)
    assert torch.equal(generator.prior(fed).logits.argmax(-1)[:, 1:], greedy[:, 1:])


@torch.no_grad()
def test_an_adapter_acts_as_the_same_update_of_the_official_decoder(generator, oracle):
    adapter = LoraAdapter(rank=oracle.facts["rank"])
    adapter.attach(generator.net, generator.targets)
    state = {}
    for module, (a, b) in oracle.lora().items():
        name = first_stage_name(f"{module}.weight", 3).removesuffix(".weight")
        state |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    adapter.load_state_dict(state)
    assert sum(p.numel() for p in adapter.parameters()) == oracle.facts["info"]["lora_params"]
    codes = _grid(oracle.arrays["codes"])
    assert _worst(generator.net(codes), oracle.arrays["decode_lora"]) < CLOSE
    drawn = generator.render({"codes": codes}, NORMALS)
    assert _worst(drawn, (oracle.arrays["decode_lora"] / 2 + 0.5).clamp(0, 1)) < CLOSE
    picture = generator.picture({"codes": codes})
    assert _worst(picture, (oracle.arrays["decode"] / 2 + 0.5).clamp(0, 1)) < CLOSE
