"""What a cell can be: an adapter that is fitted, or a baseline that it is held against.

    adapter      what `ilora fit` does; the kind of adapter (lora, full, …) is the setting `adapter`
    random-init  the same on a network of random weights: the generator's own setting `random_…`
    mean-map     the mean of the training maps: looks at no picture

A method says what its result depends on (`plan`), makes it into a folder (`make`), and reads it back as something that draws
(`open`). Another baseline is another such class in METHODS.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig
from ilora_core.controls import MeanMap
from ilora_core.data import Prepared, open_source, split_keys, trained_as
from ilora_core.errors import ConfigError, UnknownName
from ilora_core.factories import options_of
from ilora_core.files import atomic_path, read_json, write_json
from ilora_core.fit import Event, fit
from ilora_core.intrinsics import BUILT_IN, Intrinsic, resize_map
from ilora_core.plugins import PluginHost
from ilora_core.predict import Predictor
from ilora_core.protocols import Adapter, Batch, Generator
from ilora_core.runtime import pick_device
from ilora_core.sources import Subset

__all__ = ["METHODS", "Drawer", "Method", "get_method", "random_setting"]


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


class Method(Protocol):
    """One way to come to maps."""

    def plan(self, config: FitConfig, host: PluginHost) -> tuple[str, FitConfig]:
        """The method that does it, and the configuration without what does not matter. ConfigError where it cannot be."""
        ...

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        """Make it in `folder`, or go on there; yields progress as `fit` does, and returns facts for tables."""
        ...

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        """What draws the intrinsic `name`."""
        ...


def get_method(name: str) -> Method:
    """The method of that name. Raises UnknownName that lists them."""
    if name not in METHODS:
        raise UnknownName(f"no method is called {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]


def random_setting(host: PluginHost, generator: str) -> str:
    """The setting that gives a generator random weights: a switch whose name begins with random_. ConfigError for none."""
    owner, card = host.find("generators", generator)
    switches = [
        o.name for o in options_of(card.factory, plugin=owner) if o.name.startswith("random_") and o.default is False
    ]
    if len(switches) != 1:
        raise ConfigError(
            f"generator {generator!r} has no setting random_… that would give it random weights; leave random-init out."
        )
    return switches[0]


class _Adapter:
    """`ilora fit`, and `ilora predict` with what it left."""

    def plan(self, config: FitConfig, host: PluginHost) -> tuple[str, FitConfig]:
        return "adapter", config

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from fit(config, folder / "fit", resume=True, host=host)
        record = find_artefacts(folder / "fit")[0].record
        return {name: record[name] for name in ("data", "generator", "licences", "versions")}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return _Fitted(config, folder / "fit" / name, host)


class _RandomInit(_Adapter):
    """The same fit on random weights."""

    def plan(self, config: FitConfig, host: PluginHost) -> tuple[str, FitConfig]:
        switch = random_setting(host, config.generator)
        if config.samples:
            raise ConfigError(
                "random-init cannot learn from --samples: a network of random weights draws other pictures. "
                "Use a --source that brings codes with their maps."
            )
        groups = {**config.settings, "generator": {**config.settings.get("generator", {}), switch: True}}
        return "adapter", replace(config, settings=groups)


class _MeanMap:
    """One map for all pictures."""

    def plan(self, config: FitConfig, host: PluginHost) -> tuple[str, FitConfig]:
        seed = {"seed": config.train.seed}  # decides which pictures are held out
        kept = {name: config.settings.get(name, {}) for name in ("generator", "labeler", "source")}
        device = {k: v for k, v in config.settings.get("runtime", {}).items() if k == "device"}
        groups = {**kept, "train": seed, "runtime": device}
        intrinsics = tuple(_by_rule(intrinsic) for intrinsic in config.intrinsics)
        return "mean-map", replace(config, intrinsics=intrinsics, adapter="lora", preset="", settings=groups)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
        source = yield from open_source(config, generator, host, pick_device(config.runtime.device))
        held_out = split_keys(source.keys, config.validation, seed=config.train.seed)
        train = Subset(source, [key for key in source.keys if key not in held_out])
        means = {i.name: MeanMap(trained_as(i, source)) for i in config.intrinsics}
        done = 0
        for batch in train:
            for name, mean in means.items():
                mean.add(*batch.maps[name])
            done += len(batch.keys)
            yield Prepared("average", done, len(train))
        for name, mean in means.items():
            with atomic_path(folder / "mean-map" / f"{name}.safetensors") as path:
                save_file({"map": mean.map().contiguous()}, path)
            write_json(folder / "mean-map" / f"{name}.json", mean.intrinsic.predicted().to_json())
        return {"data": {"train": len(train), "validation": len(held_out)}}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        value = load_file(folder / "mean-map" / f"{name}.safetensors")["map"]
        return _Constant(Intrinsic.from_json(read_json(folder / "mean-map" / f"{name}.json")), value)


METHODS: dict[str, Method] = {"adapter": _Adapter(), "random-init": _RandomInit(), "mean-map": _MeanMap()}


class _Fitted:
    def __init__(self, config: FitConfig, folder: Path, host: PluginHost):
        drawing = config.settings.get("generator", {})
        self._predictor = Predictor(find_artefacts(folder), runtime=config.runtime, settings=drawing, host=host)
        ((self.name, adapter),) = self._predictor.adapters.items()
        self.intrinsic = self._predictor.intrinsics[self.name]
        self.size = self._predictor.generator.resolution[0]
        self.parameters = _parameters(self._predictor.generator, adapter)

    def __call__(self, batch: Batch) -> Tensor:
        if batch.codes is not None:
            return self._predictor.from_codes(batch.codes)[self.name]
        return self._predictor(batch.pictures)[self.name]


@dataclass(frozen=True)
class _Constant:
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


def _by_rule(intrinsic: Intrinsic) -> Intrinsic:
    """The usual intrinsic with this one's rule: all that a mean of maps can depend on."""
    usual = BUILT_IN.get(intrinsic.name, intrinsic)
    return replace(intrinsic, loss=usual.loss, prompt=usual.prompt, metric=usual.metric)


def _parameters(generator: Generator, adapter: Adapter) -> dict[str, int]:
    own = {id(parameter): parameter.numel() for parameter in adapter.parameters()}
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
