"""The closed-form codec: AutoencoderKL's interface, and the gate that guards every later figure."""

import pytest
import torch

from ilora_rooms.codec import PatchCodec, gate
from ilora_rooms.render import render
from ilora_rooms.splits import seeds


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return PatchCodec.fit(render(seeds("pretrain", 48), supersample=1).picture)


def test_the_gate_is_passed(codec: PatchCodec) -> None:
    ceiling = gate(codec, render(seeds("labels", 16), supersample=1))
    assert ceiling.passed, ceiling
    assert ceiling.picture_psnr_db > 25


def test_a_poor_codec_fails_the_gate(codec: PatchCodec) -> None:
    poor = PatchCodec.fit(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), channels=3)
    assert not gate(poor, render(seeds("labels", 2), supersample=1)).passed


def test_encode_and_decode_look_like_autoencoder_kl(codec: PatchCodec) -> None:
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = codec.encode(x).latent_dist
    assert posterior.mode().shape == (2, codec.config.latent_channels, 8, 12)
    assert posterior.mean is posterior.mode() or torch.equal(posterior.mean, posterior.mode())
    assert (posterior.logvar == -30).all()
    assert torch.allclose(posterior.sample(torch.Generator().manual_seed(1)), posterior.mode(), atol=1e-5)
    assert posterior.std.max() < 1e-6
    back = codec.decode(posterior.mode(), return_dict=True).sample
    assert back.shape == x.shape
    assert torch.equal(back, codec.decode(posterior.mode(), return_dict=False)[0])


def test_the_basis_is_orthonormal_and_projection_is_idempotent(codec: PatchCodec) -> None:
    channels = codec.config.latent_channels
    assert torch.allclose(codec.basis @ codec.basis.T, torch.eye(channels), atol=1e-5)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    once = codec(x).sample
    assert torch.allclose(codec(once).sample, once, atol=1e-5)


def test_latents_have_unit_spread(codec: PatchCodec) -> None:
    pictures = render(seeds("pretrain", 48), supersample=1).picture
    z = codec.encode(pictures * 2 - 1).latent_dist.mode() * codec.config.scaling_factor
    assert z.std().item() == pytest.approx(1, abs=0.05)


def test_save_and_load(codec: PatchCodec, tmp_path) -> None:
    codec.save_pretrained(tmp_path)
    loaded = PatchCodec.from_pretrained(tmp_path)
    assert torch.equal(loaded.basis, codec.basis)
    assert loaded.config.scaling_factor == codec.config.scaling_factor
    assert loaded.dtype == torch.float32
