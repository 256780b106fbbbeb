"""A rooms generator's own samples with the maps that the rooms labeller gives them, as a source.

What `ilora fit --generator NAME --samples N --labeler rooms` learns from, under a name of its own: a control can then be fitted
to the same codes and the same maps although its own network would draw something else from those codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ilora_core.data import SampledSource
from ilora_core.intrinsics import Intrinsic
from ilora_core.plugins import load_plugins
from ilora_core.protocols import Batch, Generator, Labeler

__all__ = ["SampledRooms", "rooms_samples", "tiny"]


class SampledRooms:
    """n samples of `generator`, drawn with `seed`, and the labeller's maps of them."""

    def __init__(self, generator: Generator, labeler: Labeler, *, n: int, seed: int = 0, batch_size: int = 8):
        self.labeler = labeler
        self.samples = SampledSource(generator, n, seed=seed, batch_size=batch_size)
        self.keys = self.samples.keys
        self.intrinsics: tuple[Intrinsic, ...] = labeler.intrinsics

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.samples:
            yield Batch(batch.keys, batch.pictures, self.labeler.label(batch.pictures), batch.codes)


def rooms_samples(
    *, generator: str = "rooms-stylegan2", n: int = 250, seed: int = 0, weights: str = ""
) -> SampledRooms:
    """n samples of a generator card; weights: another folder than the shipped one."""
    host, given = load_plugins(), {"weights": weights} if weights else {}
    drawn: Any = host.make("generators", generator, **given)
    return SampledRooms(drawn, host.make("labelers", "rooms"), n=n, seed=seed)


def tiny() -> SampledRooms:
    """Four samples of an untrained GAN, labelled by an untrained network."""
    from ilora_rooms.labeller import tiny as tiny_labeler
    from ilora_stylegan.factories import tiny as tiny_generator

    return SampledRooms(tiny_generator(), tiny_labeler(), n=4, batch_size=2)
