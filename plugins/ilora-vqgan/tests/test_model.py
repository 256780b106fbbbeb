"""What is particular to this generator: two halves, sizes, controls, precision and where its parts are."""

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import NORMALS
from ilora_core.runtime import make_accelerator, place, prepare_network
from ilora_core.testing.scenes import make_scenes
from ilora_vqgan.architecture import FirstStage
from ilora_vqgan.factories import _TINY, tiny, untrained
from ilora_vqgan.loading import Components
from ilora_vqgan.model import VQGAN


@pytest.fixture
def components() -> Components:
    return untrained(_TINY)


def test_a_map_is_learnt_on_the_raw_picture(components):
    """The loss is the one of the paper, by hand."""
    generator = VQGAN(components)
    codes = generator.sample(2, seed=0)
    target, valid = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32) < 0.5
    got = generator.loss({**codes, **generator.prepare(codes, NORMALS, target, valid)}, NORMALS)
    raw, t = generator.net(codes["codes"]), target * 2 - 1
    each = 1 - torch.cosine_similarity(raw, t, dim=1) + (raw - t).abs().mean(1)
    wanted = torch.stack([each[i][valid[i, 0]].mean() for i in range(2)])
    assert torch.allclose(got, wanted, atol=1e-5)


def test_without_a_prior_real_pictures_work_and_samples_say_why_not(components):
    generator = VQGAN(Components(components.first_stage, without_prior="its prior is conditional"))
    with pytest.raises(ConfigError, match="its prior is conditional"):
        generator.sample(1, seed=0)
    codes = generator.encode(make_scenes(40, 24).pictures)
    assert codes["codes"].shape == (2, 10, 6)
    assert generator.picture(codes).shape == (2, 3, 40, 24)


@pytest.mark.parametrize(
    ("prior", "resolution", "told"), [(True, 64, "the prior draws pictures of 32"), (False, 30, "a multiple of 4")]
)
def test_a_size_that_cannot_be_is_refused(components, prior, resolution, told):
    parts = components if prior else Components(components.first_stage)
    with pytest.raises(ConfigError, match=told):
        VQGAN(parts, resolution=resolution)


def test_without_a_prior_the_size_is_the_first_stages_or_yours(components):
    assert VQGAN(Components(components.first_stage)).resolution == (32, 32)
    assert VQGAN(Components(components.first_stage), resolution=48).resolution == (48, 48)


def test_an_unknown_way_to_adapt_lists_the_known_ones(components):
    with pytest.raises(ConfigError, match="attention, convolutions"):
        VQGAN(components, adapt="everything")


def test_the_random_decoder_changes_maps_and_nothing_else(components):
    generator, control = VQGAN(components), VQGAN(components, random_decoder=1)
    codes = control.sample(2, seed=0)
    assert torch.equal(codes["codes"], generator.sample(2, seed=0)["codes"])
    assert torch.equal(control.picture(codes), generator.picture(codes))
    assert not torch.allclose(control.render(codes, NORMALS), generator.render(codes, NORMALS), atol=1e-2)
    again, other = (VQGAN(components, random_decoder=seed).render(codes, NORMALS) for seed in (1, 2))
    assert torch.equal(again, control.render(codes, NORMALS))
    assert not torch.equal(other, again)
    pictures = make_scenes(32, 32).pictures
    assert torch.equal(control.encode(pictures)["codes"], generator.encode(pictures)["codes"])
    assert not any(p.requires_grad for p in control.net.parameters())


def test_codes_of_pictures_do_not_depend_on_the_precision_of_the_run(components):
    exact = VQGAN(components)
    pictures = make_scenes(32, 32).pictures
    codes = exact.encode(pictures)["codes"]
    runtime = RuntimeConfig(device="cpu", precision="bf16")
    accelerator = make_accelerator(runtime)
    place(exact, runtime, accelerator)
    assert next(exact.net.parameters()).dtype == torch.bfloat16
    with accelerator.autocast():
        assert torch.equal(exact.encode(pictures)["codes"], codes)


def test_checkpointing_saves_memory_and_not_accuracy(components):
    gradients = []
    for checkpointing in (False, True):
        generator = VQGAN(untrained(_TINY))
        adapter = LoraAdapter(rank=2)
        adapter.attach(generator.net, generator.targets)
        prepare_network(generator, RuntimeConfig(device="cpu", checkpointing=checkpointing))
        kept = []
        codes = generator.sample(1, seed=0)
        ready = {**codes, **generator.prepare(codes, NORMALS, torch.rand(1, 3, 32, 32, generator=_rng()), _all())}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: (kept.append(t.nbytes), t)[1], lambda t: t):
            loss = generator.loss(ready, NORMALS).mean()
        gradients.append((torch.autograd.grad(loss, list(adapter.parameters())), sum(kept)))
    (plain, more), (again, less) = gradients
    assert less < more / 2
    assert any(g.abs().max() > 0 for g in plain)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, again, strict=True))


def test_features_are_the_decoders_levels_side_by_side(components):
    generator = VQGAN(components)
    codes = generator.sample(2, seed=0)
    features = generator.features(codes, NORMALS)
    assert features.shape == (2, 64 + 64 + 32 + 32, 32, 32)
    assert generator.features(codes, NORMALS, size=(8, 8)).shape == (2, 192, 8, 8)
    assert not any(module._forward_hooks for module in generator.net.modules())


def test_a_large_codebook_needs_wider_codes():
    stage = FirstStage(32, (1, 2), 1, (False, True), 4, 4, 2**15 + 1, 16)
    generator = VQGAN(untrained(type(_TINY)(stage)))
    assert generator.encode(torch.rand(1, 3, 16, 16))["codes"].dtype == torch.int32


def test_parking_takes_all_but_the_decoder_off_the_device():
    generator = tiny()
    moved = []
    for name in ("net", "encoder", "prior"):
        module = getattr(generator, name)
        module.to = lambda device, name=name, module=module: (moved.append((name, str(device))), module)[1]
    generator.park()
    assert moved == [("encoder", "cpu"), ("prior", "cpu")]


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _all() -> torch.Tensor:
    return torch.ones(1, 1, 32, 32, dtype=torch.bool)
