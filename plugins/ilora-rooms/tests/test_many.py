"""The shipped generators draw four maps in one pass as they draw them in four."""

from itertools import pairwise

import pytest
import torch

from ilora_core.adapters import LoraAdapter
from ilora_core.intrinsics import BUILT_IN
from ilora_core.mixture import mix
from ilora_core.testing.exercise import disturb
from ilora_rooms.gan import stylegan2
from ilora_rooms.generator import rooms
from ilora_rooms.source import RoomsSource
from ilora_rooms.vqgan import vqgan


@pytest.mark.parametrize("make", [rooms, stylegan2, vqgan], ids=lambda make: make.__name__)
def test_one_pass_draws_what_four_passes_draw(make):
    generator, intrinsics = make(), list(BUILT_IN.values())
    adapters = [LoraAdapter(rank=8, name=intrinsic.name) for intrinsic in intrinsics]
    for seed, adapter in enumerate(adapters):
        adapter.attach(generator.net, generator.targets)
        disturb(adapter, seed)
    mixture = mix(adapters)
    assert mixture is not None
    pictures = next(iter(RoomsSource(split="test", n=2))).pictures
    codes = generator.sample(2, seed=0) if make is stylegan2 else generator.encode(pictures)
    apart = []
    for adapter, intrinsic in zip(adapters, intrinsics, strict=True):
        adapter.activate(trainable=False)
        apart.append(generator.render(codes, intrinsic))
    mixture.activate()
    torch.testing.assert_close(tuple(generator.render_many(codes, intrinsics)), tuple(apart), atol=1e-5, rtol=0)
    assert min((a - b).abs().max() for a, b in pairwise(apart)) > 0.01
