"""Methods that learn nothing: what the adapters of a sweep are held against at no cost of training.

labeler  a labeler's own maps of the test pictures; the fit's setting `labeler` names it
picture  the picture itself, taken for its albedo or its shading
ceiling  the true map through the generator's encoder and decoder
prompt   the frozen generator, told by its prompt (`intrinsic.prompt`) to draw the map: for models of many steps this is
         what InstructPix2Pix (Brooks et al., arXiv 2211.09800) does, or SDEdit (Meng et al., arXiv 2108.01073) for the
         cards that never see the picture
"""

from __future__ import annotations

import copy
from collections.abc import Generator as Yields
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ilora_core.config import FitConfig
from ilora_core.errors import CannotEncode, ConfigError, first_line
from ilora_core.files import read_json, write_json
from ilora_core.fit import Event
from ilora_core.intrinsics import DEPTH, NORMALS, Intrinsic
from ilora_core.labelling import labeler_names, own_settings
from ilora_core.mixes import mix_labels, mixed_intrinsics
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Batch, Codes, Generator, Labeler
from ilora_core.runtime import pick_device
from ilora_core.sweep.drawers import Drawer, Frozen
from ilora_core.sweep.held_out import HeldOut
from ilora_core.sweep.learnt import settle

__all__ = ["Ceiling", "Labels", "Picture", "Prompt"]

_PICTURED = ("albedo", "shading")
_NOTHING = {"data": {"train": 0, "validation": 0}}


class Labels:
    """A labeler's maps, through the same encoding as an adapter's: depth without its scale, shading by its white level."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        names = labeler_names(config.labeler)
        if not names:
            raise ConfigError(
                "method=labeler needs a labeler: give --labeler NAME, or vary both at once (docs/sweeps.md)."
            )
        cards = [host.card("labelers", name) for name in names]
        for intrinsic in config.intrinsics:
            if not any(not card.intrinsics or intrinsic.name in card.intrinsics for card in cards):
                raise ConfigError(f"labeler {config.labeler} draws no {intrinsic.name}: leave method=labeler out.")
        judge = held_out.settings.get("labeler", config.labeler) if held_out.kind == "samples" else config.labeler
        if held_out.kind in ("samples", "validation") and judge == config.labeler:
            raise ConfigError(
                f"method=labeler: {config.labeler} would be judged by itself. Score on a --test with true maps, or by another "
                "labeler."
            )
        return "labeler", _idle(config, held_out, labeler=True)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from ()
        _note_size(config, folder, host)
        return {**_NOTHING}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return _Labelled(config, _named(config, name), _noted_size(folder), host)


class Picture:
    """The identity."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        for intrinsic in config.intrinsics:
            if intrinsic.name not in _PICTURED:
                raise ConfigError(
                    f"method=picture: a picture is no {intrinsic.name}; it stands for {', '.join(_PICTURED)}."
                )
        return "picture", _idle(config, held_out)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from ()
        _note_size(config, folder, host)
        return {**_NOTHING}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return _Itself(_named(config, name), _noted_size(folder))


class Ceiling:
    """decode(encode(true map)): what a perfect fit would draw where encoder and decoder are not adapted."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        miniature: Generator = host.make_tiny("generators", config.generator)
        try:
            miniature.encode(torch.zeros(1, 3, *miniature.resolution))
        except CannotEncode as error:
            raise ConfigError(f"method=ceiling needs an encoder: {first_line(error)}") from error
        return "ceiling", _idle(config, held_out)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from ()
        return {**_NOTHING}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return _Roundtrip(config, _named(config, name), host)


class Prompt:
    """`render` without an adapter."""

    def plan(self, config: FitConfig, host: PluginHost, held_out: HeldOut) -> tuple[str, FitConfig]:
        if not _reads_prompts(host.make_tiny("generators", config.generator)):
            raise ConfigError(
                f"generator {config.generator!r} draws the same whatever the prompt says; leave method=prompt out."
            )
        return "prompt", _idle(config, held_out, prompt=True)

    def make(self, config: FitConfig, folder: Path, host: PluginHost) -> Yields[Event, None, dict[str, Any]]:
        yield from ()
        return {**_NOTHING}

    def open(self, config: FitConfig, folder: Path, name: str, host: PluginHost) -> Drawer:
        return _Prompted(config, _named(config, name), host)


class _Labelled:
    def __init__(self, config: FitConfig, wanted: Intrinsic, size: int, host: PluginHost):
        names = labeler_names(config.labeler)
        self._mode, own = own_settings(names, config.settings.get("labeler", {}))
        self._labelers: list[Labeler] = [host.make("labelers", name, **own[name]) for name in names]
        self._device = pick_device(config.runtime.device)
        for labeler in self._labelers:
            if callable(move := getattr(labeler, "to", None)):
                move(self._device)
        self._given = [tuple(labeler.intrinsics) for labeler in self._labelers]
        offered = mixed_intrinsics(self._given) if len(names) > 1 else self._given[0]
        self._read = replace(next(i for i in offered if i.name == wanted.name), rule=wanted.rule)
        self.intrinsic, self.size, self.parameters = self._read.predicted(), size, {"trained": 0}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        value, valid = self._label(batch.pictures.to(self._device))
        return self.intrinsic.from_picture(self._read.to_picture(value, valid)).cpu()

    def _label(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map and Valid of the intrinsic, mixed if there are several labelers."""
        name, labels = self.intrinsic.name, [labeler.label(pictures) for labeler in self._labelers]
        if len(labels) == 1:
            return labels[0][name]
        rows = [
            mix_labels([{n: (m[i], v[i]) for n, (m, v) in one.items()} for one in labels], self._given, self._mode)[
                name
            ]
            for i in range(len(pictures))
        ]
        return torch.stack([value for value, _ in rows]), torch.stack([valid for _, valid in rows])


@dataclass(frozen=True)
class _Itself:
    intrinsic: Intrinsic
    size: int
    parameters: Mapping[str, int] = field(default_factory=lambda: {"trained": 0})

    def __call__(self, batch: Batch) -> Tensor:
        return self.intrinsic.from_picture(batch.pictures)


class _Roundtrip(Frozen):
    def __init__(self, config: FitConfig, intrinsic: Intrinsic, host: PluginHost):
        super().__init__(config, intrinsic, host)
        self._truth = intrinsic

    def reading(self, truth: Intrinsic) -> _Roundtrip:
        told = copy.copy(self)
        told._truth, told.intrinsic = truth, truth.predicted()
        return told

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        return self.at_size(self._truth.to_picture(*batch.maps[self._truth.name]))

    def draw(self, codes: Codes) -> Tensor:
        return self.generator.picture(codes)


class _Prompted(Frozen):
    def draw(self, codes: Codes) -> Tensor:
        return self.generator.render(codes, self.intrinsic)


def _idle(config: FitConfig, held_out: HeldOut, *, labeler: bool = False, prompt: bool = False) -> FitConfig:
    """The configuration of what learns nothing: what training pictures there are matters only where they are the test.

    labeler, prompt  whether it depends on them
    """
    apart = held_out.kind in ("source", "pairs")  # the test does not depend on the configuration
    config = settle(config, prompt=prompt, runtime=("device", "precision"), seed=not apart or bool(config.samples))
    if held_out.kind == "validation":
        return config
    config = replace(config, limit=0, validation=0.0)
    if labeler or not apart or not config.source:
        return config
    return replace(config, labeler="", settings={**config.settings, "labeler": {}})


def _reads_prompts(generator: Generator) -> bool:
    """Whether two prompts give two maps."""
    try:
        codes = generator.encode(torch.rand(1, 3, *generator.resolution, generator=torch.Generator().manual_seed(0)))
    except CannotEncode:
        codes = generator.sample(1, seed=0)
    one, other = (generator.render(codes, replace(NORMALS, prompt=i.prompt)) for i in (NORMALS, DEPTH))
    return not torch.equal(one, other)


def _named(config: FitConfig, name: str) -> Intrinsic:
    return next(intrinsic for intrinsic in config.intrinsics if intrinsic.name == name)


def _note_size(config: FitConfig, folder: Path, host: PluginHost) -> None:
    """The size of the test pictures, which is the generator's, kept so that scoring need not load it."""
    generator: Generator = host.make("generators", config.generator, **config.settings.get("generator", {}))
    write_json(folder / "size.json", {"size": generator.resolution[0]})


def _noted_size(folder: Path) -> int:
    return int(read_json(folder / "size.json")["size"])
