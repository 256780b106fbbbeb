"""From what a user writes to a FitConfig: names checked, presets merged, intrinsics found, before anything heavy is loaded.

    config, notes = resolve_fit(host, {"generator": "rooms", "source": "rooms", "intrinsic": "normals"}, {"train": {"lr": 1e-3}})

Defaults < preset < what is given. `notes` are sentences for the user about what was assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilora_core.config import FitConfig, merge_settings
from ilora_core.errors import ConfigError
from ilora_core.folders import infer_intrinsic, load_intrinsic, map_folders
from ilora_core.intrinsics import BUILT_IN, Intrinsic, get_intrinsic
from ilora_core.labelling import labeler_names
from ilora_core.plugins import PluginHost

__all__ = ["OPTIONS", "resolve_fit"]

OPTIONS: dict[str, type] = {
    "generator": str,
    "intrinsic": str,
    "pairs": str,
    "pictures": str,
    "source": str,
    "samples": int,
    "labeler": str,
    "adapter": str,
    "limit": int,
    "validation": float,
    "preset": str,
}
"""What a fit is told beside its groups of settings, as the command line's options are called."""

_PLACES = ("pairs", "pictures", "source", "samples")
_SAMPLES = 250


def resolve_fit(
    host: PluginHost,
    options: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    declared: Mapping[str, Any] | None = None,
) -> tuple[FitConfig, list[str]]:
    """The configuration and notes on what was assumed. Raises ConfigError (UnknownName for names).

    options   by the names of OPTIONS; what is missing or empty is not given
    settings  by group, as after --set
    declared  channels, range and space of an intrinsic that nobody knows
    """
    given = {name: value for name, value in options.items() if value or (name == "validation" and value is not None)}
    generator, notes = given.pop("generator", ""), []
    if not generator:
        raise ConfigError("say which generator with --generator NAME (`ilora list-plugins` shows them).")
    host.card("generators", generator)
    for name in labeler_names(given.get("labeler", "")):
        host.card("labelers", name)
    if given.get("labeler") and not any(given.get(place) for place in _PLACES):
        given["samples"] = _SAMPLES
        notes.append(f"No pictures given: learning from {_SAMPLES} of {generator}'s own samples (--samples N).")
    if given.get("source"):
        host.card("sources", given["source"])
    for name in ("pairs", "pictures"):
        if given.get(name) and not Path(given[name]).is_dir():
            raise ConfigError(f"--{name}: there is no folder {given[name]}.")
    intrinsics = _intrinsics(host, given.pop("intrinsic", ""), given, declared or {}, notes)
    merged = merge_settings(generator, given.get("preset", ""), settings)
    return FitConfig(generator, tuple(intrinsics), settings=merged, **given), notes


def _intrinsics(
    host: PluginHost, names: str, given: Mapping[str, Any], declared: Mapping[str, Any], notes: list[str]
) -> list[Intrinsic]:
    found, pairs = [], given.get("pairs", "")
    for name in [name.strip() for name in names.split(",") if name.strip()] or _offered(host, given):
        if name.endswith(".toml"):
            found.append(load_intrinsic(name))
        elif name in BUILT_IN:
            found.append(get_intrinsic(name))
        elif any(declared.values()):
            found.append(_declared(name, declared))
        elif pairs and (Path(pairs) / name).is_dir():
            inferred, assumed = infer_intrinsic(pairs, name)
            notes.append(assumed)
            found.append(inferred)
        else:
            found.append(get_intrinsic(name))
    return found


def _offered(host: PluginHost, given: Mapping[str, Any]) -> list[str]:
    """Every intrinsic that the chosen pairs, labelers or source have."""
    if given.get("pairs"):
        return map_folders(given["pairs"])
    if given.get("labeler"):
        cards = [host.card("labelers", name) for name in labeler_names(given["labeler"])]
    else:
        cards = [host.card("sources", given["source"])] if given.get("source") else []
    return list(dict.fromkeys(name for card in cards for name in card.intrinsics))


def _declared(name: str, declared: Mapping[str, Any]) -> Intrinsic:
    try:
        low, high = (float(part) for part in (declared["range"] or "0,1").split(","))
    except ValueError as error:
        raise ConfigError(f"--range is low,high (two numbers), not {declared['range']!r}.") from error
    return Intrinsic(name, declared["channels"] or 1, "", declared["space"] or "linear", low, high)
