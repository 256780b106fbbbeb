"""A generator's own samples as a source: pictures to label, with the codes they were drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ilora_core.intrinsics import Intrinsic
from ilora_core.protocols import Batch, Generator

__all__ = ["SampledSource", "draw_samples", "take_rows", "to_cpu"]


class SampledSource:
    """A generator's own samples: pictures with their codes, keys `sample-SEED-INDEX`.

    Pictures are drawn once and rounded to 8 bits, as those of a file: a label belongs to its picture's very numbers, and a
    second drawing in another precision or on another device would not repeat them.
    """

    intrinsics: tuple[Intrinsic, ...] = ()

    def __init__(self, generator: Generator, n: int, *, seed: int = 0, batch_size: int = 8):
        self.generator, self.seed, self.batch_size = generator, seed, batch_size
        self.keys = tuple(f"sample-{seed}-{index:06d}" for index in range(n))
        self._codes: dict[str, Tensor] = {}
        self._pictures: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def draw(self) -> Iterator[int]:
        """Draw every picture now and yield how many there are; afterwards the generator is not asked again."""
        done = 0
        for batch in self:
            done += len(batch.keys)
            yield done

    def __iter__(self) -> Iterator[Batch]:
        if not self._codes:  # labelling and training both go through the source; sampling is the costly part
            self._codes = to_cpu(self.generator.sample(len(self), seed=self.seed))
        for start in range(0, len(self), self.batch_size):
            rows = torch.arange(start, min(start + self.batch_size, len(self)))
            part = {name: take_rows(value, rows) for name, value in self._codes.items()}
            if start not in self._pictures:
                self._pictures[start] = (self.generator.picture(part).float().cpu() * 255).round().to(torch.uint8)
            keys = self.keys[start : start + self.batch_size]
            yield Batch(keys, self._pictures[start].float() / 255, {}, part)


def draw_samples(source: SampledSource, device: torch.device, *, keep: bool = False) -> Iterator[int]:
    """Bring the generator to the device, draw all pictures, and take it off again; yields how many are drawn.

    keep: the generator stays, and draws when the source is read.
    """
    source.generator.to(device)
    if keep:
        return
    yield from source.draw()
    source.generator.park()
    source.generator.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()


def take_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows of a code; a single row that the whole batch shares stays as it is."""
    return tensor if tensor.shape[0] == 1 and len(rows) != 1 else tensor[rows.to(tensor.device)]


def to_cpu(codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Codes, detached and on the CPU."""
    return {name: value.detach().cpu() for name, value in codes.items()}
