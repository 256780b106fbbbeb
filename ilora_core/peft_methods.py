"""Methods of peft beside LoRA, for comparison at equal places and ranks. W: a frozen layer's weight, m×n.

    LoHa   W + (alpha / r) (A₁ B₁) ∘ (A₂ B₂)                                    FedPara, Hyeon-Woo et al., arXiv 2108.06098
    LoKr   W + (alpha / r) C ⊗ D, D a product of rank r where it is large       LyCORIS, Yeh et al., arXiv 2309.14859
    OFT    W R, R block-diagonal and orthogonal (Cayley, a Neumann series)      Qiu et al., arXiv 2306.07280 and 2506.19847
    IA3    diag(l) W                                                            Liu et al., arXiv 2205.05638

DoRA is `LoraAdapter(dora=True)`. VeRA is not here: its random matrices belong to the whole network, and peft puts it on its own
models only. BOFT is not: peft's compiles a CUDA extension when it attaches.

`ilora plan --adapter NAME` counts what each of them trains. At one rank LoHa has twice as many parameters as LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft import IA3Config, LoHaConfig, LoKrConfig, OFTConfig, PeftConfig
from torch import nn

from ilora_core.adapters import PeftAdapter, sites_of
from ilora_core.errors import ConfigError

__all__ = ["MethodAdapter", "ia3", "loha", "lokr", "oft", "tiny_ia3", "tiny_loha", "tiny_lokr", "tiny_oft"]

_LAYERS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class _Method:
    """A method as peft has it: what messages call it, its configuration, the layers that it fits."""

    title: str
    configuration: Any
    fits: tuple[type[nn.Module], ...] = _LAYERS


_METHODS = {
    "loha": _Method("LoHa", LoHaConfig),
    "lokr": _Method("LoKr", LoKrConfig),
    "oft": _Method("OFT", OFTConfig, (nn.Linear,)),  # peft's does not leave a convolution's output bit for bit
    "ia3": _Method("IA3", IA3Config),
}


def loha(*, rank: int = 8, alpha: float | None = None, name: str = "default", seed: int = 0) -> MethodAdapter:
    """Hadamard products of two updates of rank r. alpha: numerator of the scale alpha / rank; None = rank."""
    return MethodAdapter("loha", _scaled(rank, alpha), name=name, seed=seed)


def lokr(*, rank: int = 8, alpha: float | None = None, name: str = "default", seed: int = 0) -> MethodAdapter:
    """Kronecker products. alpha: numerator of the scale alpha / rank; None = rank."""
    return MethodAdapter("lokr", _scaled(rank, alpha), name=name, seed=seed)


def oft(*, block: int = 16, name: str = "default", seed: int = 0) -> MethodAdapter:
    """Rotations of a layer's inputs, `block` of them together: as many parameters as LoRA of rank (block − 1) / 4
    where a layer is square."""
    if block < 2:
        raise ConfigError(f"adapter.block must be at least 2, not {block}.")
    return MethodAdapter("oft", {"r": 0, "oft_block_size": block}, name=name, seed=seed)


def ia3(*, name: str = "default", seed: int = 0) -> MethodAdapter:
    """One factor for each of a layer's outputs, 1 at first. seed: taken, but nothing is random here."""
    return MethodAdapter("ia3", {"feedforward_modules": []}, name=name, seed=seed)


tiny_loha, tiny_lokr, tiny_oft, tiny_ia3 = partial(loha, rank=2), partial(lokr, rank=2), partial(oft, block=3), ia3


class MethodAdapter(PeftAdapter):
    """A method of `_METHODS`, with peft's settings for it. Made by `loha`, `lokr`, `oft` and `ia3`."""

    def __init__(self, method: str, settings: Mapping[str, Any], *, name: str, seed: int):
        super().__init__(name=name, seed=seed)
        self._method, self._settings = _METHODS[method], dict(settings)
        self.method, self.fits = self._method.title, self._method.fits

    def _configuration(self, targets: str | list[str]) -> PeftConfig:
        return self._method.configuration(target_modules=targets, **self._settings)

    def _attached(self, net: nn.Module) -> None:
        for layer in sites_of(net).layers:
            layer.eval()  # in training mode LoHa and LoKr draw a number at every pass, for a dropout that is not there

    def _refuse(self, name: str, layer: Any) -> None:
        if getattr(layer, "groups", 1) > 1:
            raise ConfigError(
                f"the adapter cannot attach: {name} is a {type(layer).__name__} with {layer.groups} groups, and "
                f"{self.method} is for layers of one group. Leave the layer out of adapter.targets."
            )
        block = self._settings.get("oft_block_size")
        if block and layer.in_features % block:
            raise ConfigError(
                f"the adapter cannot attach: {name} has {layer.in_features} inputs, which blocks of {block} do not divide. "
                "Choose another adapter.block, or leave the layer out of adapter.targets."
            )


def _scaled(rank: int, alpha: float | None) -> dict[str, Any]:
    if rank < 1:
        raise ConfigError(f"adapter.rank must be at least 1, not {rank}.")
    return {"r": rank, "alpha": rank if alpha is None else alpha}
