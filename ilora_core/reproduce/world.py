"""What reproductions are made with: generators, where their labelled pictures come from, how long they are trained.

A world is data. "rooms" comes with ilora-rooms: no download, exact truth, minutes on a CPU. "paper" has the paper's generators,
labelers and DIODE, for whoever has them and a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilora_core.errors import MissingDependency, UnknownName
from ilora_core.plugins import PluginHost
from ilora_core.report.parts import Table

__all__ = ["UNET_LAYERS", "WORLDS", "Family", "Quality", "World", "load_world"]

WORLDS = {"rooms": "ilora_rooms.world:world", "paper": "ilora_core.reproduce.paper:world"}

_PROJECTIONS = r"(to_q|to_k|to_v|to_out\.0)"
UNET_LAYERS = {
    "self": rf".*attn1\.{_PROJECTIONS}",
    "cross": rf".*attn2\.{_PROJECTIONS}",
    "down": rf"down_blocks\..*attn.*\.{_PROJECTIONS}",
    "mid": rf"mid_block\..*attn.*\.{_PROJECTIONS}",
    "up": rf"up_blocks\..*attn.*\.{_PROJECTIONS}",
}
"""Parts of a diffusers UNet's attention, as adapter targets."""


@dataclass(frozen=True)
class Family:
    """A generator with the pictures that it learns from and is judged on.

    name      in tables
    settings  flat, as for a sweep: generator, source or samples, preset
    count     the setting that says how many labelled pictures there are
    test      held-out pictures, as after --test of a sweep
    train     how long, in which batches
    rates     learning rate by kind of adapter, or by kind and intrinsic ("lora", "full", "lora.depth")
    labelers  intrinsic -> labeler, where pictures bring no true maps
    tests     intrinsic -> other held-out pictures, where `test` has no such maps; "" = the fit's own validation pictures
    """

    name: str
    settings: Mapping[str, Any]
    count: str
    test: str
    train: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    labelers: Mapping[str, str] = field(default_factory=dict)
    tests: Mapping[str, str] = field(default_factory=dict)

    def judged(self, intrinsic: str) -> str:
        """The held-out pictures for that intrinsic."""
        return self.tests.get(intrinsic, self.test)

    @property
    def has_random(self) -> bool:
        """Whether a network of random weights can be given the same codes and maps: its own samples would be others."""
        return self.count != "samples"

    def rate(self, kind: str, intrinsic: str = "") -> dict[str, float]:
        """The learning rate as a setting; none where the preset's stands."""
        found = self.rates.get(f"{kind}.{intrinsic}", self.rates.get(kind))
        return {} if found is None else {"train.lr": found}

    def of(self, intrinsic: str) -> dict[str, Any]:
        """Everything but the number of pictures."""
        labeler = self.labelers.get(intrinsic)
        return {**self.settings, **self.train, "intrinsic": intrinsic, **({"labeler": labeler} if labeler else {})}


@dataclass(frozen=True)
class Quality:
    """A generator at several qualities: name -> settings, the best last.

    tables: how good each one's own pictures are.
    """

    family: Family
    versions: Mapping[str, Mapping[str, Any]]
    tables: Callable[[Path, PluginHost], Sequence[Table]] | None = None


@dataclass(frozen=True)
class World:
    """All of it. families: the one that most figures are about comes first.

    labels     numbers of labelled pictures, and `usual`, the one for everything else
    layers     names for adapter targets
    many       the family in many steps beside the picture (AUG); sdedit: the same without seeing it
    steps, guidance, strengths    of samplers
    judges     intrinsic -> labeler that is held against as a supervised predictor
    prompts    what a generator that follows instructions is told, by intrinsic
    others     trainable alternatives: name -> settings with adapter and rate; others_many: those for `many`
    lengths    numbers of training steps
    counts     (name, card) of the generators whose parameters are counted
    notes      what must be known of its figures
    """

    name: str
    about: str
    quick: bool
    families: Sequence[Family]
    usual: int
    labels: Sequence[int]
    seeds: Sequence[int]
    ranks: Sequence[int]
    validation: int
    layers: Mapping[str, str]
    many: Family
    sdedit: Family
    steps: Sequence[int]
    guidance: Sequence[float]
    strengths: Sequence[float]
    quality: Quality
    judges: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    others_many: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lengths: Sequence[int] = ()
    counts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    device: str = "auto"


def load_world(name: str, *, quick: bool = False, data: str = "", device: str = "") -> World:
    """The world of that name. data: a dataset's folder; device: in place of its own.

    Raises UnknownName that lists the worlds, and MissingDependency for the plugin that brings it.
    """
    if name not in WORLDS:
        raise UnknownName(f"no world is called {name!r}; there are {', '.join(WORLDS)}.")
    module, _, function = WORLDS[name].partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise MissingDependency(f"the world {name!r} needs {error.name}, which is not installed here.") from error
    return make(quick=quick, data=data, device=device)
