"""What draws maps of the test pictures: a fitted adapter, one map for all, or a frozen generator asked in some way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig
from ilora_core.intrinsics import Intrinsic, resize_map
from ilora_core.plugins import PluginHost
from ilora_core.predict import Predictor, pad_to_stride, to_native
from ilora_core.protocols import Adapter, Batch, Codes, Generator
from ilora_core.runtime import make_accelerator, place
from ilora_core.tiling import resize_maps

__all__ = ["Constant", "Drawer", "DrawsTruth", "Fitted", "Frozen", "count_parameters"]


class Drawer(Protocol):
    """Draws one intrinsic's maps of pictures."""

    @property
    def intrinsic(self) -> Intrinsic:
        """With the kind of depth that it draws."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures it was made for."""
        ...

    @property
    def parameters(self) -> Mapping[str, int]:
        """trained, network (the one that adapters attach to, without them), generator (all of its modules)."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """Maps (B,C,H,W) at the size of the batch's pictures."""
        ...


@runtime_checkable
class DrawsTruth(Drawer, Protocol):
    """A drawer that looks at the batch's own maps."""

    def reading(self, truth: Intrinsic) -> Drawer:
        """The same for maps that are to be read as `truth`, with its kind of depth."""
        ...


class Fitted:
    """The adapter in `folder`."""

    def __init__(self, config: FitConfig, folder: Path, host: PluginHost):
        drawing = config.settings.get("generator", {})
        self._predictor = Predictor(find_artefacts(folder), runtime=config.runtime, settings=drawing, host=host)
        ((self.name, adapter),) = self._predictor.adapters.items()
        self.intrinsic = self._predictor.intrinsics[self.name]
        self.size = self._predictor.generator.resolution[0]
        self.parameters = count_parameters(self._predictor.generator, adapter)

    def __call__(self, batch: Batch) -> Tensor:
        if batch.codes is not None:
            return self._predictor.from_codes(batch.codes)[self.name]
        return self._predictor(batch.pictures)[self.name]


@dataclass(frozen=True)
class Constant:
    """The same map (1,C,H,W) for every picture."""

    intrinsic: Intrinsic
    value: Tensor
    parameters: Mapping[str, int] = field(default_factory=lambda: {"trained": 0})

    @property
    def size(self) -> int:
        return min(self.value.shape[-2:])

    def __call__(self, batch: Batch) -> Tensor:
        size = (batch.pictures.shape[-2], batch.pictures.shape[-1])
        everywhere = torch.ones_like(self.value[:, :1], dtype=torch.bool)
        drawn = resize_map(self.intrinsic, self.value, everywhere, size)[0]
        return drawn.expand(len(batch.keys), -1, -1, -1)


class Frozen(ABC):
    """A generator that carries no adapter, on the device and in the precision of a fit.

    intrinsic  as its maps come out: depth without its scale
    """

    def __init__(self, config: FitConfig, intrinsic: Intrinsic, host: PluginHost, *, trained: int = 0):
        self.intrinsic = intrinsic.predicted()
        self.accelerator = make_accelerator(config.runtime)
        self.generator: Generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
        place(self.generator, config.runtime, self.accelerator)
        self.generator.net.eval()
        self.parameters = {**count_parameters(self.generator), "trained": trained}

    @property
    def size(self) -> int:
        return self.generator.resolution[0]

    @abstractmethod
    def draw(self, codes: Codes) -> Tensor:
        """The map as a picture, (B,3,H,W) in [0,1], at the size of the codes."""

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        return self.map(batch.codes) if batch.codes is not None else self.at_size(batch.pictures)

    def at_size(self, pictures: Tensor) -> Tensor:
        """Maps (B,C,H,W) of pictures (B,3,H,W) of any size, brought to the generator's and back as by `ilora predict`."""
        small = to_native(pictures, self.size)
        height, width = small.shape[-2:]
        value = self.map(self.generator.encode(pad_to_stride(small, self.generator.stride)))[..., :height, :width]
        name = self.intrinsic.name
        return resize_maps({name: value}, {name: self.intrinsic}, (pictures.shape[-2], pictures.shape[-1]))[name]

    def map(self, codes: Codes) -> Tensor:
        """The map (B,C,H,W), on the CPU."""
        with self.accelerator.autocast():
            drawn = self.draw(codes)
        return self.intrinsic.from_picture(drawn.float()).cpu()


def count_parameters(generator: Generator, adapter: Adapter | None = None) -> dict[str, int]:
    """`Drawer.parameters`."""
    own = {id(parameter): parameter.numel() for parameter in adapter.parameters()} if adapter else {}
    modules = [m for m in {id(v): v for v in vars(generator).values()}.values() if isinstance(m, nn.Module)]
    net, everything = (
        {id(p): p.numel() for m in found for p in m.parameters()}
        for found in ([generator.net], [generator.net, *modules])
    )
    added = own if set(own) < set(net) else {}  # full fine-tuning adds none
    count = {"network": net, "generator": everything}
    return {
        "trained": sum(own.values()),
        **{n: sum(v for k, v in p.items() if k not in added) for n, p in count.items()},
    }
