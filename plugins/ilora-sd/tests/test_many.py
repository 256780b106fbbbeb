"""Several maps in one pass: each with its own adapter and its own prompt, what `render` gives one after the other."""

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.intrinsics import ALBEDO, DEPTH, NORMALS, SHADING
from ilora_core.mixture import mix
from ilora_core.testing.exercise import disturb
from ilora_sd.factories import tiny
from ilora_sd.factories_large import tiny_sd3, tiny_sdxl

INTRINSICS = (NORMALS, DEPTH, ALBEDO, SHADING)


def with_adapters(generator):
    adapters = [LoraAdapter(rank=2, name=intrinsic.name) for intrinsic in INTRINSICS]
    for seed, adapter in enumerate(adapters):
        adapter.attach(generator.net, generator.targets)
        disturb(adapter, seed)
    mixture = mix(adapters)
    assert mixture is not None
    return adapters, mixture


@pytest.mark.parametrize("make", [tiny, tiny_sdxl, tiny_sd3], ids=lambda make: make.__name__)
def test_one_pass_draws_what_four_passes_draw(make):
    generator = make()
    adapters, mixture = with_adapters(generator)
    codes = generator.encode(torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)))
    apart = []
    for adapter, intrinsic in zip(adapters, INTRINSICS, strict=True):
        adapter.activate(trainable=False)
        apart.append(generator.render(codes, intrinsic))
    mixture.activate()
    together = generator.render_many(codes, INTRINSICS)
    torch.testing.assert_close(tuple(together), tuple(apart), atol=1e-5, rtol=0)
    elsewhere = generator.render_many(codes, INTRINSICS[::-1])  # the prompts change places, the adapters do not
    assert all((one - other).abs().max() > 1e-4 for one, other in zip(together, elsewhere, strict=True))


def test_the_clean_latent_is_that_of_its_own_row():
    generator = tiny_sd3()  # z − v: what is subtracted from must be the same row
    _, mixture = with_adapters(generator)
    mixture.activate()
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    both = generator.render_many(generator.encode(pictures), INTRINSICS)
    for row in range(2):
        one = generator.render_many(generator.encode(pictures[row : row + 1]), INTRINSICS)
        torch.testing.assert_close(tuple(m[row : row + 1] for m in both), tuple(one), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [tiny, tiny_sdxl, tiny_sd3], ids=lambda make: make.__name__)
def test_drawing_walks_over_no_network(make, monkeypatch):
    """What diffusers' `dtype` and torch's `to` do at every access and call, for milliseconds on a full-size network."""
    generator = make()
    adapters, mixture = with_adapters(generator)
    generator.tiny_vae = generator.vae
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def draw():
        for adapter, intrinsic in zip(adapters, INTRINSICS, strict=True):
            adapter.activate(trainable=False)
            generator.render(generator.encode(pictures), intrinsic)
        mixture.activate()
        generator.render_many(generator.encode(pictures), INTRINSICS)

    draw()  # prompts are embedded once
    seen, moved, sizes = [], [], [len(list(module.modules())) for module in (generator.net, generator.vae)]
    walk, move = torch.nn.Module.named_modules, torch.nn.Module._apply

    def named_modules(self, *given, **more):
        for found in walk(self, *given, **more):
            seen.append(self)
            yield found

    monkeypatch.setattr(torch.nn.Module, "named_modules", named_modules)
    monkeypatch.setattr(
        torch.nn.Module, "_apply", lambda self, *given, **more: moved.append(self) or move(self, *given, **more)
    )
    draw()
    assert not moved
    assert seen.count(generator.net) < sizes[0], "all five draws together see less than one walk would"
    assert seen.count(generator.vae) < sizes[1]
