"""A LoRA file of another tool as an ilora artefact: what it draws, on which generator, how its maps are read.

A file says little about itself, so the rest is told or worked out, and nothing is guessed in silence: the intrinsic from its
name, the generator from its layers (registry.toml's [imports] names the cards that a family of models is usually meant by). What
stays open is refused with the choices. Imported weights keep their exact values; ranks and alphas that differ between layers are
brought to one of each by padding with zeros and scaling B, which leaves the product alpha / r · B A as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor

from ilora_core.artefact import Artefact, save_artefact
from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.files import atomic_path, file_sha256
from ilora_core.interchange.layouts import listed
from ilora_core.interchange.lora_file import LoraFile, Misfit, Site, fit_to, read_lora
from ilora_core.interchange.networks import network_for
from ilora_core.intrinsics import BUILT_IN, Intrinsic, get_intrinsic
from ilora_core.plugins import PluginHost, load_plugins
from ilora_core.protocols import Generator
from ilora_core.registry import load_registry

__all__ = ["Told", "import_adapter", "intrinsic_of_name", "save_imported"]

_WORDS = {"normal": "normals", "surface normal": "normals", "surface normals": "normals", "shade": "shading"}
_LICENCES = ("license", "licence", "modelspec.license")


@dataclass(frozen=True)
class Told:
    """What the user says of a file.

    intrinsic  the name of a built-in or registered one, or one with its own prompt; None = from the file's name
    generator  a card's name; "" = from the layers
    settings   of the generator: local weights, the timestep it is read at
    alpha      of every layer; None = what the file says, else the rank
    decoding   `Intrinsic.decoding`
    prompt     "" = the intrinsic's own
    licence    of the file; "" = what its header says
    """

    intrinsic: Intrinsic | str | None = None
    generator: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    alpha: float | None = None
    decoding: str = ""
    prompt: str = ""
    licence: str = ""


def import_adapter(path: Path | str, told: Told | None = None, *, host: PluginHost | None = None) -> Artefact:
    """The file as an artefact in memory; nothing is written (`save_imported` does).

    Raises ArtefactError or WeightsError for a file that cannot be used, ConfigError for what has to be told.
    """
    told, host, path = told or Told(), host or load_plugins(), Path(path)
    lora, intrinsic = read_lora(path), _intrinsic(told, path)
    if told.alpha is not None:
        lora = replace(lora, sites={name: replace(site, alpha=told.alpha) for name, site in lora.sites.items()})
    name, generator, sites = _find_generator(lora, told, host)
    _whole(lora, sites, generator, name)
    state, rank, alpha = _state(sites)
    config = _config(state, generator, rank, alpha)
    return Artefact(path, _record(lora, told, name, generator, intrinsic, host), config, state)


def save_imported(artefact: Artefact, folder: Path, host: PluginHost | None = None) -> None:
    """Write an imported artefact as a folder, whole or not at all. Raises ArtefactError when there is one already."""
    if folder.exists():
        raise ArtefactError(f"{folder} exists already. Choose another --out, or move it away.")
    generator = network_for(artefact.generator, artefact.generator_settings, host or load_plugins())
    with atomic_path(folder) as temporary:
        save_artefact(temporary, artefact.tensors(), artefact.config, artefact.record, generator)


def intrinsic_of_name(name: str) -> str:
    """The built-in intrinsic that a file's name speaks of: "intrinsic_lora_sd15_normal" -> "normals"; "" for none or several."""
    words = " ".join(re.findall(r"[a-z]+", name.lower()))
    found = {known for known in BUILT_IN if re.search(rf"\b{known}\b", words)}
    found |= {known for word, known in _WORDS.items() if re.search(rf"\b{word}\b", words)}
    return found.pop() if len(found) == 1 else ""


def _intrinsic(told: Told, path: Path) -> Intrinsic:
    wanted = told.intrinsic or intrinsic_of_name(path.stem) or intrinsic_of_name(path.parent.name)
    if not wanted:
        raise ConfigError(
            f"what {path} draws cannot be told from its name. Say it: --intrinsic {', '.join(sorted(BUILT_IN))}, "
            "or one of your own."
        )
    found = get_intrinsic(wanted) if isinstance(wanted, str) else wanted
    return replace(found.predicted(), decoding=told.decoding, prompt=told.prompt or found.prompt)


def _find_generator(lora: LoraFile, told: Told, host: PluginHost) -> tuple[str, Generator, dict[str, Site]]:
    """The card, its network and the file's share of each layer."""
    if told.generator:
        generator = network_for(told.generator, told.settings, host)
        return told.generator, generator, fit_to(lora, generator.net, what=told.generator)
    installed = {card.name for _, card in host.cards("generators")}
    families = load_registry().imports
    known = {family: [name for name in cards if name in installed] for family, cards in families.items()}
    fitting: dict[str, tuple[Generator, dict[str, Site]]] = {}
    misfits: list[Misfit] = []
    for family, cards in known.items():
        if cards:
            generator = network_for(cards[0], told.settings, host)
            try:
                fitting[family] = generator, fit_to(lora, generator.net, what=family)
            except Misfit as error:
                misfits.append(error)
    choices = [name for family in fitting for name in known[family]]
    if len(choices) == 1:
        ((generator, sites),) = fitting.values()
        return choices[0], generator, sites
    if choices:
        raise ConfigError(
            f"{lora.path} fits several generators, which read it differently. Say which: --generator {' or '.join(choices)}."
        )
    if not misfits:
        raise ConfigError("no installed generator takes LoRA files by itself. Say which is meant: --generator NAME.")
    nearest = min(misfits, key=lambda misfit: misfit.layers)
    raise ArtefactError(
        f"{lora.path} fits none of {', '.join(misfit.what for misfit in misfits)}. For {nearest.what}, {nearest.why}. "
        "If it is another model's, name that with --generator."
    )


def _whole(lora: LoraFile, sites: Mapping[str, Site], generator: Generator, what: str) -> None:
    """The layout of the attention processors always has all of them: a file that lacks some was cut short."""
    lacking = sorted(_usual_layers(generator) - set(sites))
    if lora.layout == "attention processors" and lacking:
        raise ArtefactError(
            f"{lora.path} is incomplete: it has {len(sites)} of the {len(sites) + len(lacking)} attention layers of {what} "
            f"and lacks {listed(lacking)}. Fetch it again."
        )


def _usual_layers(generator: Generator) -> set[str]:
    """The layers that the generator's own adapters sit on; none where they are given as an expression."""
    endings = () if isinstance(generator.targets, str) else tuple(generator.targets)
    return {name for name, _ in generator.net.named_modules() if any(f".{name}".endswith(f".{end}") for end in endings)}


def _state(sites: Mapping[str, Site]) -> tuple[dict[str, Tensor], int, float]:
    """(peft's names -> tensors, one rank, one alpha) with the same product at every layer."""
    rank = max(site.rank for site in sites.values())
    scales = {name: 1.0 if site.alpha is None else site.alpha / site.rank for name, site in sites.items()}
    common = next(iter(scales.values()))
    alike = common != 0 and all(scale == common for scale in scales.values())
    state = {}
    for name, site in sorted(sites.items()):
        lacking = rank - site.rank
        a, b = site.a, site.b if alike else site.b * scales[name]
        state[f"{name}.lora_A.weight"] = _padded(a, 0, lacking).contiguous()
        state[f"{name}.lora_B.weight"] = _padded(b, 1, lacking).contiguous()
    return state, rank, common * rank if alike else float(rank)


def _padded(tensor: Tensor, axis: int, rows: int) -> Tensor:
    """With so many zeros at the end of an axis."""
    return tensor if not rows else F.pad(tensor, [0, 0] * (tensor.ndim - 1 - axis) + [0, rows])


def _config(state: Mapping[str, Tensor], generator: Generator, rank: int, alpha: float) -> dict[str, Any]:
    paths = {key.rpartition(".lora_")[0] for key in state}
    targets = list(generator.targets) if paths == _usual_layers(generator) else sorted(paths)
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "init_lora_weights": "gaussian"}
    config = LoraConfig(target_modules=targets, inference_mode=True, **settings)
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(config.to_dict().items())}


def _record(
    lora: LoraFile, told: Told, name: str, generator: Generator, intrinsic: Intrinsic, host: PluginHost
) -> dict[str, Any]:
    plugin, card = host.find("generators", name)
    stated = told.licence or next((lora.header[key] for key in _LICENCES if lora.header.get(key)), "")
    return {
        "intrinsic": intrinsic.to_json(),
        "generator": {"name": card.name, "plugin": plugin, "settings": dict(told.settings), "provenance": {}},
        "adapter": "lora",
        "imported": {
            "file": lora.path.name,
            "sha256": file_sha256(lora.path),
            "layout": lora.layout,
            "layers": len(lora.sites),
            "usual_layers": len(_usual_layers(generator)),
            "alpha": "told" if told.alpha is not None else _where_alpha(lora.sites.values()),
            **({"timestep": timestep} if (timestep := getattr(generator, "timestep", None)) is not None else {}),
        },
        "licences": {
            f"generator {card.name}": card.licence,
            "adapter weights": stated or "not stated in the file: ask whoever made it",
        },
    }


def _where_alpha(sites: Any) -> str:
    known: Sequence[bool] = [site.alpha is not None for site in sites]
    return "from the file" if all(known) else "not in the file: taken as the rank, a scale of 1"
