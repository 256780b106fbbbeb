"""From the name of a labeler, or of several (`a+b`), to labels in the cache.

    labelers = open_labelers(host, "a+b", settings)                 # made, on the CPU; what is wrong with them shows here
    for progress in run_labelers(labelers, source, device=d): ...   # each alone on the device, each into its own cache
    fit on LabelledSource(source, labelers.cache)

Labelers of a mix run one after the other, so that the memory of the largest suffices, and a later mix finds their labels. What
`ilora_core.mixes` makes of them goes into a cache of its own, under the names of them all.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.label_cache import LabelCache, picture_key
from ilora_core.labels import LabelProgress, cache_for, label_source
from ilora_core.mixes import MODES, mix_labels, mixed_intrinsics
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Labeler, Source
from ilora_core.sources import Subset

__all__ = ["Labelers", "labeler_names", "open_labelers", "own_settings", "run_labelers", "share_of"]

MIX = "mix"
"""The setting that says how labelers are mixed, and the name under which mixing reports its progress."""
_VERSION = "1"


@dataclass
class _Member:
    """One labeler with its own cache; the labeler itself is let go when it is done."""

    name: str
    labeler: Labeler | None
    cache: LabelCache
    intrinsics: tuple[Intrinsic, ...]


@dataclass(frozen=True)
class Labelers:
    """One labeler or a mix of several. cache: where the labels to learn from will be."""

    members: Sequence[_Member]
    mode: str
    cache: LabelCache

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the mix."""
        return tuple(member.name for member in self.members)

    @property
    def intrinsics(self) -> tuple[Intrinsic, ...]:
        """What they give together, disagreements included."""
        given = [member.intrinsics for member in self.members]
        return mixed_intrinsics(given) if len(given) > 1 else given[0]


def labeler_names(text: str) -> tuple[str, ...]:
    """`"a+b"` -> ("a", "b"); "" -> (). Raises ConfigError for an empty or a repeated name."""
    names = tuple(name.strip() for name in text.split("+")) if text else ()
    if not all(names) or len(set(names)) != len(names):
        raise ConfigError(f"--labeler {text}: a mix is several labelers, each once, as in --labeler first+second.")
    return names


def own_settings(names: Sequence[str], settings: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """How to mix, and each labeler's own settings.

    One labeler takes all of `labeler.…`. Of a mix, `labeler.mix` says how, and `labeler.NAME.key` is NAME's; a dash or a dot
    in NAME is written as an underscore.
    """
    if len(names) == 1:
        return MODES[0], {names[0]: dict(settings)}
    left = dict(settings)
    mode = left.pop(MIX, MODES[0])
    if mode not in MODES:
        raise ConfigError(f"labeler.mix is one of {', '.join(MODES)}, not {mode!r}.")
    own = {name: left.pop(_written(name), {}) for name in names}
    wrong = [*left, *(_written(name) for name, value in own.items() if not isinstance(value, Mapping))]
    if wrong:
        known = ", ".join(f"labeler.{_written(name)}.…" for name in names)
        raise ConfigError(f"labeler.{wrong[0]}: the settings of a mix are labeler.mix and {known}.")
    return mode, {name: dict(value) for name, value in own.items()}


def open_labelers(
    host: PluginHost, text: str, settings: Mapping[str, Any], *, root: Path | str | None = None
) -> Labelers:
    """Make the labelers, on the CPU, with their caches under `root` (None = the default place).

    Licences, plugins and what the labelers say of their weights are kept with the labels.
    """
    names = labeler_names(text)
    mode, own = own_settings(names, settings)
    members = []
    for name in names:
        plugin, card = host.find("labelers", name)
        labeler: Labeler = host.make("labelers", name, **own[name])
        facts = json.loads(json.dumps(dict(getattr(labeler, "provenance", {})), default=str))
        told = {"plugin": plugin, "licence": card.licence, "summary": card.summary, "facts": facts}
        cache = cache_for(labeler, name, own[name], root=root, provenance=told)
        members.append(_Member(name, labeler, cache, tuple(labeler.intrinsics)))
    cache = members[0].cache if len(members) == 1 else _mix_cache(members, mode, root)
    return Labelers(members, mode, cache)


def run_labelers(
    labelers: Labelers, source: Source, *, batch_size: int = 8, device: torch.device | str = "cpu"
) -> Iterator[LabelProgress]:
    """Label what the caches lack, then mix into `labelers.cache`. Yields progress, by labeler.

    Each labeler is dropped when it is done.
    """
    for member in labelers.members:
        if member.labeler is not None:
            for progress in label_source(member.labeler, source, member.cache, batch_size=batch_size, device=device):
                yield replace(progress, labeler=member.name)
            member.labeler = None
            _free(device)
    if len(labelers.members) > 1:
        yield from _mix(labelers, source)


def share_of(source: Source, number: int, of: int) -> Source:
    """Every of-th picture from the number-th on: what one of several processes labels."""
    return Subset(source, tuple(source.keys)[number::of])


def _mix(labelers: Labelers, source: Source) -> Iterator[LabelProgress]:
    given = [member.intrinsics for member in labelers.members]
    cache, done, reused = labelers.cache, 0, 0
    try:
        for batch in source:
            for key in map(picture_key, batch.pictures):
                if key in cache:
                    reused += 1
                else:
                    cache.put(key, mix_labels([m.cache.get(key) for m in labelers.members], given, labelers.mode))
            done += len(batch.keys)
            yield LabelProgress(done, len(source), reused, MIX)
    finally:
        cache.flush()


def _mix_cache(members: Sequence[_Member], mode: str, root: Path | str | None) -> LabelCache:
    """Other versions, weights or settings of one labeler make another mix."""
    identity = json.dumps([member.cache.folder.name for member in members])
    about = [member.cache.provenance for member in members]
    cache = LabelCache(
        root,
        "+".join(member.name for member in members),
        version=f"{mode}-{_VERSION}",
        weights_hash=hashlib.sha256(identity.encode()).hexdigest(),
        provenance={
            "mix": mode,
            "licence": "; ".join(f"{m.name}: {told['licence']}" for m, told in zip(members, about, strict=True)),
            "labelers": about,
        },
    )
    cache.describe(mixed_intrinsics([member.intrinsics for member in members]))
    return cache


def _written(name: str) -> str:
    """A card's name as a key of `--set`."""
    return name.rpartition("/")[2].replace("-", "_").replace(".", "_")


def _free(device: torch.device | str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
