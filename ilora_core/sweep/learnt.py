"""Methods that learn from the training pictures: adapters, and the baselines in closed form.

adapter      what `ilora fit` does; the kind of adapter (lora, full, …) is the setting `adapter`
random-init  the same on a network of random weights: the generator's own setting `random_…`
mean-map     the mean of the training maps: looks at no picture
probe        one matrix from the frozen generator's features to the map (`ilora_core.controls.LinearProbe`)
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ilora_core.artefact import find_artefacts
from ilora_core.config import FitConfig
from ilora_core.controls import LinearProbe, MeanMap, ProbeMoments
from ilora_core.data import Prepared, check_size, open_source, split_keys, trained_as
from ilora_core.errors import ConfigError
from ilora_core.factories import options_of
from ilora_core.files import atomic_path, read_json, write_json
from ilora_core.fit import Event, fit
from ilora_core.intrinsics import BUILT_IN, Intrinsic
from ilora_core.noise import mix_seeds
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Batch, Codes, Generator, Source
from ilora_core.runtime import make_accelerator, pick_device, place
from ilora_core.sources import Subset
from ilora_core.sweep.drawers import Constant, Drawer, Fitted, Frozen
from ilora_core.sweep.held_out import HeldOut

__all__ = ["AdapterFit", "Mean", "Probe", "RandomInit", "random_setting", "settle"]

PLACES = 256
"""The probe looks at so many places of a picture, drawn by the fit's seed and the picture's number; all where there are fewer."""
_PLACES = 0x9B


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


class AdapterFit:
    """`ilora fit`, and `ilora predict` with what it left."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        return "adapter", config

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from fit(config, folder / "fit", resume=True, host=host)
        record = find_artefacts(folder / "fit")[0].record
        return {name: record[name] for name in ("data", "generator", "licences", "versions")}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return Fitted(config, folder / "fit" / name, host)


class RandomInit(AdapterFit):
    """The same fit on random weights."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        switch = random_setting(host, config.generator)
        if config.samples:
            raise ConfigError(
                "random-init cannot learn from --samples: a network of random weights draws other pictures. "
                "Use a --source that brings codes with their maps."
            )
        groups = {**config.settings, "generator": {**config.settings.get("generator", {}), switch: True}}
        return "adapter", replace(config, settings=groups)


class Mean:
    """One map for all pictures."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        return "mean-map", settle(config)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
        train, count = yield from _training(config, generator, host, pick_device(config.runtime.device))
        means = {i.name: MeanMap(trained_as(i, train)) for i in config.intrinsics}
        done = 0
        for batch in train:
            for name, mean in means.items():
                mean.add(*batch.maps[name])
            done += len(batch.keys)
            yield Prepared("average", done, len(train))
        for mean in means.values():
            _save(folder / "mean-map", mean.intrinsic, {"map": mean.map().contiguous()})
        return {"data": count}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        intrinsic, tensors = _load(folder / "mean-map", name)
        return Constant(intrinsic, tensors["map"])


class Probe:
    """One matrix for all places, on what the frozen generator makes of the picture."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        miniature = host.make_tiny("generators", config.generator)
        if not (hasattr(miniature, "features") and hasattr(miniature, "target_picture")):
            raise ConfigError(
                f"generator {config.generator!r} shows no features that a probe could look at (its methods features and "
                "target_picture, docs/plugins.md); leave method=probe out."
            )
        return "probe", settle(config, prompt=True, runtime=("device", "precision"))

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        accelerator = make_accelerator(config.runtime)
        generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
        train, count = yield from _training(config, generator, host, accelerator.device)
        place(generator, config.runtime, accelerator)
        generator.net.eval()
        fits = {i.name: (trained_as(i, train), ProbeMoments()) for i in config.intrinsics}
        done = 0
        for batch in train:
            check_size(batch, generator)
            seeds = [mix_seeds(config.train.seed, _PLACES, done + row) for row in range(len(batch.keys))]
            with torch.inference_mode(), accelerator.autocast():
                codes = batch.codes or generator.encode(batch.pictures)
                for intrinsic, moments in fits.values():
                    moments.add(*_pairs(generator, batch, codes, intrinsic, seeds))
            done += len(batch.keys)
            yield Prepared("probe", done, len(train))
        for intrinsic, moments in fits.values():
            probe = moments.solve()
            _save(folder / "probe", intrinsic, {name: getattr(probe, name).cpu().contiguous() for name in _PARTS})
        return {"data": count, "probe": {name: moments.counted for name, (_, moments) in fits.items()}}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        intrinsic, tensors = _load(folder / "probe", name)
        return _Probed(config, intrinsic, host, LinearProbe(**tensors))


_PARTS = ("weights", "mean", "std")


class _Probed(Frozen):
    def __init__(self, config: FitConfig, intrinsic: Intrinsic, host: PluginHost, probe: LinearProbe):
        super().__init__(config, intrinsic, host, trained=probe.weights.numel())
        self._probe = probe.to(_precise(self.accelerator.device))

    def draw(self, codes: Codes) -> Tensor:
        generator: Any = self.generator  # the protocol leaves these two open
        values = self._probe(generator.features(codes, self.intrinsic).to(self._probe.weights.device))
        return generator.target_picture(values.to(self.accelerator.device))


def settle(
    config: FitConfig, *, prompt: bool = False, runtime: tuple[str, ...] = ("device",), seed: bool = True
) -> FitConfig:
    """The configuration of a baseline that no adapter, recipe, loss or metric changes.

    prompt   whether it depends on the prompt
    runtime  the settings of that group that it depends on
    seed     whether it depends on `train.seed`, which decides what is held out
    """
    kept = {name: config.settings.get(name, {}) for name in ("generator", "labeler", "source")}
    kept["train"] = {"seed": config.train.seed} if seed else {}
    kept["runtime"] = {k: v for k, v in config.settings.get("runtime", {}).items() if k in runtime}
    intrinsics = tuple(_usual(intrinsic, prompt=prompt) for intrinsic in config.intrinsics)
    return replace(config, intrinsics=intrinsics, adapter="lora", preset="", settings=kept)


def _usual(intrinsic: Intrinsic, *, prompt: bool) -> Intrinsic:
    """The usual intrinsic with this one's rule, and its prompt if it matters."""
    usual = BUILT_IN.get(intrinsic.name, intrinsic)
    kept = {"loss": usual.loss, "metric": usual.metric, "prompt": intrinsic.prompt if prompt else usual.prompt}
    return replace(intrinsic, **kept)


def _training(
    config: FitConfig, generator: Generator, host: PluginHost, device: torch.device
) -> Yields[Event, None, tuple[Source, dict[str, int]]]:
    """The pictures that `ilora fit` would learn from, and how many they and those held out are."""
    source = yield from open_source(config, generator, host, device)
    held_out = split_keys(source.keys, config.validation, seed=config.train.seed)
    train = Subset(source, [key for key in source.keys if key not in held_out])
    return train, {"train": len(train), "validation": len(held_out)}


def _pairs(
    generator: Any, batch: Batch, codes: Codes, intrinsic: Intrinsic, seeds: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, the map in the generator's target space and where it counts, at some places: (B,K,n,1), (B,C,n,1), (B,1,n,1)."""
    value, valid = batch.maps[intrinsic.name]
    prepared = generator.prepare(codes, intrinsic, intrinsic.to_picture(value, valid), valid)
    if "target" not in prepared:
        raise ConfigError(
            f"with these settings the generator prepares {', '.join(prepared)} and no target that a probe could learn: leave "
            "generator.loss out."
        )
    features = generator.features(codes, intrinsic)
    counts = prepared["weight"] if "weight" in prepared else prepared["valid"]
    device = _precise(features.device)
    features, target, counts = (part.to(device) for part in (features, prepared["target"], counts))
    return _pick(features, seeds), _pick(target, seeds), _pick(counts, seeds)


def _pick(values: Tensor, seeds: list[int]) -> Tensor:
    """(B,C,h,w) -> (B,C,n,1), n = PLACES of each picture, the same ones for the same seed; all if there are no more."""
    count = values.shape[-2] * values.shape[-1]
    if count <= PLACES:
        return values.flatten(2).unsqueeze(-1)
    drawn = [torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:PLACES] for seed in seeds]
    chosen, rows = torch.stack(drawn), torch.arange(len(values))[:, None]
    width = values.shape[-1]
    return values[rows, :, chosen // width, chosen % width].movedim(2, 1).unsqueeze(-1)


def _precise(device: torch.device) -> torch.device:
    """The device, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _save(folder: Path, intrinsic: Intrinsic, tensors: Mapping[str, Tensor]) -> None:
    with atomic_path(folder / f"{intrinsic.name}.safetensors") as path:
        save_file(dict(tensors), path)
    write_json(folder / f"{intrinsic.name}.json", intrinsic.predicted().to_json())


def _load(folder: Path, name: str) -> tuple[Intrinsic, dict[str, Tensor]]:
    """What `_save` left: the intrinsic as it is drawn, and the tensors."""
    return Intrinsic.from_json(read_json(folder / f"{name}.json")), load_file(folder / f"{name}.safetensors")
