"""A LoRA file of any layout, read and brought onto a network's layers.

Reading runs nothing that the file holds and needs no network: what can be refused without one is refused here. Fitting to a
network needs its layers' names and shapes alone (a skeleton on the meta device will do).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ilora_core.checkpoints import read_checkpoint
from ilora_core.errors import ArtefactError, DataError, WeightsError
from ilora_core.files import read_json
from ilora_core.interchange.layouts import kohya_paths, listed, sort_keys

__all__ = ["LoraFile", "Misfit", "Site", "fit_to", "read_lora"]

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


class Misfit(ArtefactError):
    """A file for another network. layers: how many of its layers this one lacks or has in another shape."""

    def __init__(self, file: LoraFile, what: str, layers: int, why: str):
        self.what, self.layers, self.why = what, layers, f"{layers} of its {len(file.sites)} layers {why}"
        super().__init__(
            f"{file.path} does not fit {what}: {self.why}. Was it trained for another model? Name that with --generator."
        )


@dataclass
class Site:
    """One layer's share: down A (r, in), up B (out, r), both float32, and alpha where it is known."""

    a: Tensor
    b: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class LoraFile:
    """What was read.

    layout  one of `layouts.LAYOUTS`
    sites   a layer's path, as the layout spells it -> its share
    header  text that the file carries about itself (safetensors only)
    """

    path: Path
    layout: str
    sites: Mapping[str, Site]
    header: Mapping[str, str] = field(default_factory=dict)


def read_lora(path: Path | str) -> LoraFile:
    """Read a file in one of the known layouts.

    Raises ArtefactError for what is incomplete, not finite, of several layouts or no LoRA; WeightsError for what is damaged or a
    pickle that asks for more than tensors; DataError for a file that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}. Check the path of the adapter.")
    if path.suffix not in _SUFFIXES:
        raise ArtefactError(f"{path} is no adapter file by its name: expected {', '.join(_SUFFIXES)}.")
    tensors, header = _tensors(path), _header(path)
    layout, pieces = sort_keys(tensors, file=path)
    _check_values(tensors, path)
    counts = Counter((piece.path, piece.part) for piece in pieces.values())
    if twice := sorted(f"{p}.{part}" for (p, part), count in counts.items() if count > 1):
        raise ArtefactError(f"{path} holds some layers twice ({listed(twice)}), so which one is meant cannot be told.")
    sites: dict[str, dict[str, Tensor]] = {}
    for key, piece in pieces.items():
        sites.setdefault(piece.path, {})[piece.part] = tensors[key]
    lora = LoraFile(path, layout, {name: _site(name, parts, path) for name, parts in sites.items()}, header)
    return _with_alphas(lora)


def fit_to(lora: LoraFile, net: nn.Module, *, what: str) -> dict[str, Site]:
    """Path of the layer in `net` -> its share, for every layer of the file.

    what  the generator, for messages
    Raises Misfit that names the layers which the network lacks or has in another shape.
    """
    layers = {name: weight for name, module in net.named_modules() if (weight := _weight(module)) is not None}
    names = kohya_paths(list(layers)) if lora.layout == "kohya" else {name: name for name in layers}
    if strange := sorted(path for path in lora.sites if path not in names):
        raise Misfit(lora, what, len(strange), f"have no counterpart there ({listed(strange)})")
    fitted = {names[path]: _squared(site, layers[names[path]].ndim) for path, site in lora.sites.items()}
    wrong = [name for name, site in fitted.items() if _shape(site) != _wanted(layers[name], site)]
    if wrong:
        name, weight = wrong[0], tuple(layers[wrong[0]].shape)
        down, up = (tuple(half.shape) for half in (fitted[name].a, fitted[name].b))
        raise Misfit(
            lora,
            what,
            len(wrong),
            f"have another shape there ({name}: down {down} and up {up} for a weight of {weight})",
        )
    return fitted


def _tensors(path: Path) -> dict[str, Tensor]:
    data = read_checkpoint(path, leftovers=())
    if isinstance(data, Mapping) and isinstance(data.get("state_dict"), Mapping):
        data = data["state_dict"]
    if not isinstance(data, Mapping) or not data:
        raise ArtefactError(f"{path} holds no table of tensors, so no LoRA.")
    if strange := sorted(
        str(key) for key, value in data.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ):
        raise ArtefactError(f"{path} holds more than a LoRA's tensors ({listed(strange)}) and was not imported.")
    return dict(data)


def _header(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error


def _check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    if odd := sorted(key for key, value in tensors.items() if not value.is_floating_point() or value.is_sparse):
        integer_alphas = [key for key in odd if key.endswith(".alpha") and tensors[key].numel() == 1]
        if odd != integer_alphas:
            raise ArtefactError(
                f"{path}: {listed(odd)} hold {tensors[odd[0]].dtype}, where a LoRA has floating-point numbers."
            )
    if broken := sorted(key for key, value in tensors.items() if not torch.isfinite(value.float()).all()):
        raise ArtefactError(
            f"{path}: {len(broken)} of {len(tensors)} tensors are not finite ({listed(broken)}). "
            "Its training diverged, or the file is damaged: use an earlier checkpoint."
        )


def _site(name: str, parts: Mapping[str, Tensor], path: Path) -> Site:
    if lacking := [part for part in "AB" if part not in parts]:
        words = {"A": "down (A)", "B": "up (B)"}
        raise ArtefactError(f"{path} is incomplete: {name} has no {words[lacking[0]]} tensor.")
    a, b = parts["A"].float(), parts["B"].float()
    if a.ndim not in (2, 4) or b.ndim != a.ndim or a.shape[0] != b.shape[1] or not a.numel() or not b.numel():
        raise ArtefactError(
            f"{path}: the two halves of {name} do not belong together: down is {tuple(a.shape)}, up is {tuple(b.shape)}; "
            "down's first and up's second number are the rank."
        )
    alpha = parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise ArtefactError(f"{path}: the alpha of {name} is {tuple(alpha.shape)} and not one number.")
    return Site(a, b, None if alpha is None else float(alpha))


def _with_alphas(lora: LoraFile) -> LoraFile:
    """With what the file's header, or peft's configuration beside it, says about alpha."""
    config = _recorded(lora)
    pattern, default = config.get("alpha_pattern") or {}, config.get("lora_alpha")
    if default is None:
        return lora
    if config.get("use_dora") or config.get("use_rslora"):
        method = "DoRA" if config.get("use_dora") else "rsLoRA"
        raise ArtefactError(f"{lora.path} says that it is a {method}, which its tensors alone do not make.")
    sites = {
        path: replace(site, alpha=float(next((v for k, v in pattern.items() if f".{path}".endswith(f".{k}")), default)))
        if site.alpha is None
        else site
        for path, site in lora.sites.items()
    }
    return replace(lora, sites=sites)


def _recorded(lora: LoraFile) -> dict[str, Any]:
    text = lora.header.get("lora_adapter_metadata")
    if text is not None:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ArtefactError(f"{lora.path}: its header's lora_adapter_metadata is not JSON ({error}).") from error
        found = found if isinstance(found, dict) else {}
        return {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in found.items()}
    beside = lora.path.with_name("adapter_config.json")
    if lora.layout == "peft" and lora.path.name.startswith("adapter_model") and beside.is_file():
        found = read_json(beside)
        return found if isinstance(found, dict) else {}
    return {}


def _weight(module: nn.Module) -> Tensor | None:
    return module.weight if isinstance(module, (nn.Linear, nn.Conv2d)) else None


def _squared(site: Site, ndim: int) -> Site:
    """1×1 convolutions and linear layers are the same numbers; some tools write one for the other."""
    if ndim == 2 and site.a.ndim == 4 and site.a.shape[2:] == site.b.shape[2:] == (1, 1):
        return replace(site, a=site.a[..., 0, 0], b=site.b[..., 0, 0])
    if ndim == 4 and site.a.ndim == 2:
        return replace(site, a=site.a[..., None, None], b=site.b[..., None, None])
    return site


def _shape(site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(site.a.shape), tuple(site.b.shape)


def _wanted(weight: Tensor, site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    out, *rest = weight.shape
    return (site.rank, *rest), (out, site.rank, *(1 for _ in rest[1:]))
