"""The one-step model as a Generator: what it caches, what it ignores, what it keeps apart."""

import dataclasses

import pytest
import torch
from torch import nn

from ilora_core.adapters import LoraAdapter, bare
from ilora_core.cards import Card
from ilora_core.config import FitConfig
from ilora_core.fit import Step, fit
from ilora_core.intrinsics import BUILT_IN, DEPTH, NORMALS
from ilora_core.plugins import Plugin, PluginHost, load_plugins
from ilora_core.sources import TensorSource
from ilora_core.testing import parametrize_with_checks
from ilora_core.testing.exercise import loss_of
from ilora_core.testing.scenes import make_scenes
from ilora_sd.factories import tiny, tiny_components
from ilora_sd.loading import randomise
from ilora_sd.model import StableDiffusion

CREATED: list[StableDiffusion] = []


def remembered() -> StableDiffusion:
    """`tiny`, kept where a test can find it."""
    CREATED.append(tiny())
    return CREATED[-1]


def scene_source() -> TensorSource:
    scenes = make_scenes(64, 64)
    maps = {name: (scenes.maps[name], scenes.valid) for name in ("normals", "depth")}
    return TensorSource(scenes.pictures, maps, intrinsics=(NORMALS, DEPTH), keys=["a", "b"])


def local_host() -> PluginHost:
    core = load_plugins(only=()).plugins
    make, scenes = f"{__name__}:remembered", f"{__name__}:scene_source"
    cards = {
        "generators": (Card("watched", "", "none", make, make),),
        "sources": (Card("scenes", "", "none", scenes, scenes),),
    }
    return PluginHost([*core, Plugin("local", "0", __name__, cards)])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Cards name this module, which pytest's importlib mode does not make importable."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    CREATED.clear()


def _this_module():
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


@parametrize_with_checks("ilora-sd")
def test_conforms(case):
    case.run()


def trained(generator, name="default", seed=0):
    adapter = LoraAdapter(rank=2, name=name, seed=seed)
    adapter.attach(generator.net, generator.targets)
    noise = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise)
    return adapter


@pytest.fixture
def scenes():
    return make_scenes(64, 64)


def test_pixels_under_the_mask_do_not_reach_the_loss(scenes):
    generator = tiny()
    trained(generator)
    valid = scenes.valid.clone()
    valid[:, :, 8:20, 30:50] = False
    target = NORMALS.to_picture(scenes.maps["normals"])
    other = torch.where(valid, target, torch.rand(target.shape, generator=torch.Generator().manual_seed(1)))
    codes = generator.encode(scenes.pictures)
    first, second = (loss_of(generator, codes, NORMALS, t, valid) for t in (target, other))
    assert torch.equal(first, second)
    everything = torch.ones_like(valid)
    assert not torch.equal(*(loss_of(generator, codes, NORMALS, t, everything) for t in (target, other)))


def test_a_cell_beside_a_masked_one_does_not_count(scenes):
    generator = tiny()
    valid = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    valid[:, :, 21, 33] = False  # one pixel, in cell (5, 8) of 16 × 16
    prepared = generator.prepare({}, NORMALS, scenes.pictures[:1], valid)
    off = (~prepared["weight"][0, 0].bool()).nonzero().tolist()
    assert off == [[row, column] for row in (4, 5, 6) for column in (7, 8, 9)]


def test_a_cell_weighs_as_much_as_its_pixels_on_average(scenes):
    generator = tiny()
    weights = torch.ones(1, 1, 64, 64)
    weights[:, :, 20:24, 32:36] = 0.25  # cell (5, 8) of 16 × 16
    weights[:, :, 40, 40] = 0.5  # one pixel of sixteen in cell (10, 10)
    expected = torch.ones(1, 1, 16, 16)
    expected[..., 5, 8], expected[..., 10, 10] = 0.25, 1 - 0.5 / 16
    assert torch.equal(generator.prepare({}, NORMALS, scenes.pictures[:1], weights)["weight"], expected)
    weights[:, :, 21, 33] = 0  # as a masked one: its neighbours go too
    expected[..., 4:7, 7:10] = 0
    assert torch.equal(generator.prepare({}, NORMALS, scenes.pictures[:1], weights)["weight"], expected)


def test_nothing_valid_gives_no_loss(scenes):
    generator = tiny()
    codes = generator.encode(scenes.pictures)
    loss = loss_of(generator, codes, NORMALS, scenes.pictures, torch.zeros_like(scenes.valid))
    assert torch.equal(loss, torch.zeros(2))


class Counted(nn.Module):
    """A module with its calls and moves on record."""

    def __init__(self, inner, methods=("forward",)):
        super().__init__()
        self.inner, self.calls, self.devices = inner, 0, []
        for method in methods:
            setattr(self, method, self._counting(getattr(inner, method)))

    def _counting(self, function):
        def call(*arguments, **options):
            self.calls += 1
            return function(*arguments, **options)

        return call

    def to(self, *arguments, **options):
        self.devices.append(str(arguments[0]))
        return self

    @property
    def config(self):
        return self.inner.config

    @property
    def dtype(self):
        return next(self.inner.parameters()).dtype


def watched() -> StableDiffusion:
    parts = tiny_components()
    vae, text = Counted(parts.vae, ("encode", "decode")), Counted(parts.text_encoder)
    CREATED.append(StableDiffusion(dataclasses.replace(parts, vae=vae, text_encoder=text)))
    return CREATED[-1]


def test_training_steps_call_neither_vae_nor_text_encoder(tmp_path, monkeypatch):
    host = local_host()
    plugin = host.plugins[-1]
    card = dataclasses.replace(plugin.cards["generators"][0], factory=f"{__name__}:watched")
    host = PluginHost([*host.plugins[:-1], dataclasses.replace(plugin, cards={**plugin.cards, "generators": (card,)})])
    settings = {
        "train": {"steps": 6, "batch": 2, "keep_every": 6},
        "runtime": {"device": "cpu"},
        "adapter": {"rank": 2},
    }
    config = FitConfig("watched", (NORMALS, DEPTH), source="scenes", validation=0, settings=settings)
    seen = []
    for event in fit(config, tmp_path / "run", host=host):
        if isinstance(event, Step):
            generator = CREATED[-1]
            seen.append((generator.vae.calls, generator.text_encoder.calls))
            assert generator.vae.devices[-1] == generator.text_encoder.devices[-1] == "cpu"
    assert len(seen) == 12
    # One batch of two pictures, its targets for two intrinsics; one prompt each. Not a call more while training.
    assert set(seen) == {(3, 2)}


def test_the_vae_and_the_text_encoder_leave_the_device(scenes):
    generator = watched()
    generator._device = torch.device("meta")  # stands for a GPU: recorded, never moved to
    generator.vae.to(generator._device)
    generator.park()
    assert generator.vae.devices == ["meta", "cpu"]
    assert generator.text_encoder.devices == ["cpu"]
    generator._device = torch.device("cpu")
    generator.picture(generator.encode(scenes.pictures))
    assert generator.vae.devices[-1] == "cpu"


def test_adapters_are_switched_on_one_network(scenes):
    generator = tiny()
    codes = generator.encode(scenes.pictures)
    plain = generator.render(codes, NORMALS)
    first = trained(generator, "normals", 1)
    alone = generator.render(codes, NORMALS)
    second = trained(generator, "depth", 2)
    other = generator.render(codes, DEPTH)
    first.activate(trainable=False)
    assert torch.equal(generator.render(codes, NORMALS), alone)
    second.activate(trainable=False)
    assert torch.equal(generator.render(codes, DEPTH), other)
    with bare(generator.net):
        assert torch.equal(generator.render(codes, NORMALS), plain)
    assert not torch.equal(alone, plain)


def test_each_intrinsic_has_its_prompt(scenes):
    generator, asked = tiny(), []
    tokenizer = generator.tokenizer
    generator.tokenizer = lambda text, **options: (asked.append(text), tokenizer(text, **options))[1]
    generator.tokenizer.model_max_length = tokenizer.model_max_length
    codes = generator.encode(scenes.pictures)
    drawn = [generator.render(codes, intrinsic) for intrinsic in (*BUILT_IN.values(), NORMALS)]
    assert asked == [intrinsic.prompt for intrinsic in BUILT_IN.values()]
    assert asked[:2] == ["surface normal", "depth map"]
    assert torch.equal(drawn[0], drawn[-1])
    assert not torch.equal(drawn[0], drawn[1])


def test_the_last_timestep_is_the_default():
    components = tiny_components()
    assert StableDiffusion(components).timestep == 999
    shorter = dataclasses.replace(components, scheduler_config={"num_train_timesteps": 50})
    assert StableDiffusion(shorter).timestep == 49
    assert StableDiffusion(components, timestep=7).timestep == 7


def test_samples_depend_on_seed_and_place_alone():
    generator = tiny()
    generator.unet.double()  # 30 steps of a random network make much of a last bit, which depends on the batch
    three, two = generator.sample(3, seed=5), generator.sample(2, seed=5)
    torch.testing.assert_close(three["latent"][:2], two["latent"], atol=1e-4, rtol=0)
    assert torch.equal(generator.sample(2, seed=5)["latent"], two["latent"])
    assert not torch.allclose(generator.sample(2, seed=6)["latent"], two["latent"])


def test_samples_ignore_adapters():
    generator = tiny()
    before = generator.sample(1, seed=0)["latent"]
    trained(generator)
    assert torch.equal(generator.sample(1, seed=0)["latent"], before)


def test_the_random_control_is_seeded_and_differs():
    parts = tiny_components()
    first, again, other = randomise(parts, 1), randomise(parts, 1), randomise(parts, 2)
    weights = [p.unet.conv_in.weight for p in (parts, first, again, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], weights[3])
    assert not torch.equal(weights[0], weights[1])
    assert first.vae is parts.vae
    assert first.provenance["random_unet"] == 1


def test_parking_changes_nothing(scenes):
    generator = tiny()
    codes = generator.encode(scenes.pictures)
    target = NORMALS.to_picture(scenes.maps["normals"])
    before = generator.render(codes, NORMALS), loss_of(generator, codes, NORMALS, target, scenes.valid)
    generator.park()
    after = generator.render(codes, NORMALS), loss_of(generator, codes, NORMALS, target, scenes.valid)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_target_noise_follows_the_seed(scenes):
    generator = tiny()
    codes = generator.encode(scenes.pictures)
    losses = [loss_of(generator, codes, NORMALS, scenes.pictures, scenes.valid, seed=s) for s in (0, 0, 10)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    quiet = StableDiffusion(tiny_components(), noisy_target=False)
    assert "target_std" not in quiet.prepare(codes, NORMALS, scenes.pictures, scenes.valid)
