"""Adapters by peft, and LoRA: W x + (alpha / r) B A x on frozen layers, B = 0 at the start (Hu et al., arXiv 2106.09685).

LoRA's defaults are the reference's: A ~ N(0, 1/r) ("gaussian"; peft's own default is 4 to 8 times smaller, which changes the
effective learning rate under Adam) and alpha = r, so that the scale stays 1 whatever the rank. Its layers are peft's (linear,
convolution, embedding, attention) and `ilora_core.transposed`. Other methods: `ilora_core.peft_methods`.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ilora_core.errors import ArtefactError, ConfigError
from ilora_core.noise import mix_seeds
from ilora_core.transposed import LAYERS, refuse_transposed

__all__ = ["LoraAdapter", "PeftAdapter", "Sites", "bare", "check_state", "sites_of", "tiny", "tiny_dora"]

# peft knows more (PiSSA, OLoRA, …), but those rewrite the base weights, which stay frozen here.
_INITS: dict[str, Any] = {"gaussian": "gaussian", "kaiming": True}

# A parameter's path -> its adapter's name.
_OWNER = re.compile(r"(?:.*\.)?(?:lora|hada|lokr|oft|ia3)_\w+\.([^.]+)(?:\.|$)")


class PeftAdapter(ABC):
    """One of peft's methods on a network's layers; several named ones of one method can share a network.

    name  of this adapter among those on the network
    seed  of the initial values
    """

    method = ""
    """What messages call it."""
    fits: tuple[type[nn.Module], ...] = ()
    """The layers it is made for."""

    def __init__(self, *, name: str, seed: int):
        if "." in name or not name:
            raise ConfigError(f"{name!r} is not a name for an adapter: it may not be empty or hold a '.'.")
        self.name, self.seed = name, seed
        self._net: nn.Module | None = None

    @abstractmethod
    def _configuration(self, targets: str | list[str]) -> PeftConfig:
        """peft's configuration."""

    @abstractmethod
    def _refuse(self, name: str, layer: nn.Module) -> None:
        """Raise ConfigError for a layer, one of `fits`, that the method cannot change with these settings."""

    def _attached(self, net: nn.Module) -> None:  # noqa: B027, most methods have nothing to mend
        """Mend what peft has just put onto the network."""

    def attach(self, net: nn.Module, targets: Sequence[str] | str) -> None:
        """Attach to the modules of `net` that match and make this the active adapter. The output does not change.

        targets: module-name suffixes, or one regular expression that must match a whole name.
        Raises ConfigError when nothing matches, a match is no layer that the method fits, or the name is taken.
        """
        if self.name in getattr(net, "peft_config", {}):
            raise ConfigError(f"the network carries an adapter called {self.name!r} already.")
        config = self._configuration(targets if isinstance(targets, str) else list(targets))
        if others := {type(other).__name__ for other in _configs(net)} - {type(config).__name__}:
            named = ", ".join(sorted(other.removesuffix("Config") for other in others))
            raise ConfigError(f"{self.method} cannot share a network with {named}: use them one after the other.")
        self._check_targets(net, config)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # A second adapter on one network is meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            # peft's LoHa, of its own initial values.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
            torch.manual_seed(mix_seeds(self.seed, 0x10BA))
            try:
                inject_adapter_in_model(config, net, self.name)
            except ValueError as error:
                raise ConfigError(f"the adapter cannot attach: {error}") from error
        self._net = net
        self._attached(net)
        for parameter in self.parameters():
            parameter.data = parameter.data.float()
        self.activate()

    def activate(self, *, trainable: bool = True) -> None:
        """Switch the network to this adapter; the others on it sleep and are frozen."""
        sites_of(self.net).switch(self.name, trainable=trainable)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's parameters, in the network's order."""
        return iter(sites_of(self.net).parameters[self.name])

    def disabled(self) -> AbstractContextManager[None]:
        """The bare network inside the `with` block, bit for bit."""
        return bare(self.net)

    def state_dict(self) -> dict[str, Tensor]:
        """Module path + ".lora_A.weight" / ".lora_B.weight", or the method's own -> tensor, as peft saves them."""
        state = get_peft_model_state_dict(self.net, adapter_name=self.name)
        return {key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` gave. Raises ArtefactError that names keys and shapes which do not fit."""
        own = self.state_dict()
        check_state(own, state)
        set_peft_model_state_dict(self.net, dict(state), adapter_name=self.name)

    def config(self) -> dict[str, Any]:
        """peft's adapter_config.json as plain data."""
        net: Any = self.net
        data = net.peft_config[self.name].to_dict()
        data["inference_mode"] = True
        return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(data.items())}

    @property
    def net(self) -> nn.Module:
        """The network that it is attached to. Raises ConfigError before."""
        if self._net is None:
            raise ConfigError("the adapter is not attached to a network yet.")
        return self._net

    def _check_targets(self, net: nn.Module, config: PeftConfig) -> None:
        """Before anything is changed, raise ConfigError that names a matching module which the method does not fit."""
        wrapped: tuple[str, ...] = ()
        for name, module in net.named_modules():
            if name.startswith(wrapped):
                continue  # a part of an adapter that is there already
            if isinstance(module, BaseTunerLayer):
                wrapped += (f"{name}.",)
                module = module.get_base_layer()
            if not name or not check_target_module_exists(config, name):
                continue
            if not isinstance(module, self.fits):
                known = ", ".join(dict.fromkeys(kind.__name__ for kind in self.fits))
                raise ConfigError(
                    f"the adapter cannot attach: {name} is a {type(module).__name__}, and {self.method} fits {known}. "
                    "Name such layers in adapter.targets, and leave this one out."
                )
            self._refuse(name, module)


class LoraAdapter(PeftAdapter):
    """Rank-r updates on a network's linear layers and (transposed) convolutions; several named ones can share one network.

    rank     of the update
    alpha    numerator of the scale alpha / rank; None = rank
    init     "gaussian" (the reference's) or "kaiming" (peft's default)
    dropout  on the adapter's input
    dora     magnitude and direction apart (Liu et al., arXiv 2402.09353); unlike the rest, a fresh one is exact in float32 only
    name     of this adapter among those on the network
    seed     of the initial values
    """

    method = "LoRA"
    fits = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *LAYERS, nn.Embedding, nn.MultiheadAttention, Conv1D)

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float | None = None,
        init: str = "gaussian",
        dropout: float = 0.0,
        dora: bool = False,
        name: str = "default",
        seed: int = 0,
    ):
        if rank < 1:
            raise ConfigError(f"adapter.rank must be at least 1, not {rank}.")
        if init not in _INITS:
            raise ConfigError(f"adapter.init is one of {', '.join(_INITS)}, not {init!r}.")
        super().__init__(name=name, seed=seed)
        self.rank, self.alpha = rank, rank if alpha is None else alpha
        self._settings: dict[str, Any] = {
            "r": rank,
            "lora_alpha": self.alpha,
            "init_lora_weights": _INITS[init],
            "lora_dropout": dropout,
            "use_dora": dora,
        }

    def _configuration(self, targets: str | list[str]) -> PeftConfig:
        config = LoraConfig(target_modules=targets, **self._settings)
        config._register_custom_module(LAYERS)
        return config

    def _refuse(self, name: str, layer: nn.Module) -> None:
        if isinstance(layer, nn.ConvTranspose2d):
            refuse_transposed(name, layer, dora=self._settings["use_dora"])

    def _attached(self, net: nn.Module) -> None:
        _follow_dilation(net, self.name)


class Sites:
    """Where a network's adapters sit.

    layers      those that carry one
    parameters  name of an adapter -> its parameters, in the network's order
    """

    def __init__(self, net: nn.Module):
        self.layers: list[Any] = [module for module in net.modules() if isinstance(module, BaseTunerLayer)]
        self.parameters: dict[str, list[nn.Parameter]] = {}
        for path, parameter in net.named_parameters():
            if owner := _OWNER.match(path):
                self.parameters.setdefault(owner[1], []).append(parameter)
        self._configs = _configs(net)

    def current(self, net: nn.Module) -> bool:
        """Whether the network carries the same adapters as when this was looked up."""
        configs = _configs(net)
        return len(configs) == len(self._configs) and all(a is b for a, b in zip(configs, self._configs, strict=True))

    def switch(self, name: str, *, trainable: bool) -> None:
        """Make this adapter the active one in every layer, and freeze the others. Touches only what is not so already."""
        for layer in self.layers:
            if layer.active_adapters != [name]:
                layer._active_adapter = [name]  # its `set_adapter` walks over all parameters of all adapters
        for owner, parameters in self.parameters.items():
            wanted = trainable and owner == name
            for parameter in parameters:
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)


def sites_of(net: nn.Module) -> Sites:
    """Looked up once for the adapters that a network carries, and again when there is another one."""
    known = net.__dict__.get("_ilora_sites")
    if known is None or not known.current(net):
        known = Sites(net)
        if _configs(net):
            object.__setattr__(net, "_ilora_sites", known)
    return known


@contextmanager
def bare(net: nn.Module) -> Iterator[None]:
    """A network without any of its adapters inside the `with` block, bit for bit; trained parameters stay as they were."""
    layers = [layer for layer in sites_of(net).layers if not layer.disable_adapters]
    for layer in layers:
        layer._disable_adapters = True  # its `enable_adapters` freezes and frees parameters as well
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def tiny() -> LoraAdapter:
    """A rank-2 adapter for the conformance checks."""
    return LoraAdapter(rank=2)


def tiny_dora() -> LoraAdapter:
    """`tiny` with DoRA."""
    return LoraAdapter(rank=2, dora=True)


def _configs(net: nn.Module) -> list[Any]:
    """peft's configuration of each adapter on a network."""
    configs: Any = getattr(net, "peft_config", {})
    return list(configs.values())


def _follow_dilation(net: nn.Module, adapter: str) -> None:
    """Dilate A as its layer is: peft leaves A at 1, and the two differ in size as soon as they run."""
    for layer in net.modules():
        base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        if isinstance(base, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            a: Any = layer.lora_A
            if adapter in a:
                a[adapter].dilation = base.dilation


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ArtefactError unless names and shapes are the same."""
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        examples = ", ".join([*(f"missing {key}" for key in missing[:2]), *(f"unknown {key}" for key in unknown[:2])])
        raise ArtefactError(
            f"the adapter does not fit this network: {len(missing)} of {len(own)} tensors are missing and "
            f"{len(unknown)} are unknown ({examples}). Was it trained for another generator or other targets?"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ArtefactError(
                f"the adapter does not fit this network: {key} is {tuple(value.shape)}, but the network needs "
                f"{tuple(own[key].shape)}. Was it trained for another generator?"
            )
