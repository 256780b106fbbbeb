"""LoRA on nn.ConvTranspose2d, which peft does not know (the method: Hu et al., arXiv 2106.09685).

    y = Wᵀ∗x + b + (alpha / r) B Aᵀ∗x        Aᵀ∗: transposed convolution to r channels    B: mixes r channels, 1×1, 0 at first

A has the layer's own kernel, stride, padding, output padding and dilation, so that the update is a change of its weight:

    ΔW[i,o,y,x] = (alpha / r) Σ_k A[i,k,y,x] B[o,k]

`LAYERS` is for peft's mechanism of custom modules, which is per configuration: nothing in the process changes. Whoever
loads such an adapter with peft alone calls `config._register_custom_module(LAYERS)` before.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from peft.tuners.lora import Conv2d, LoraLayer
from torch import Tensor, nn

from ilora_core.errors import ConfigError

__all__ = ["LAYERS", "LoraConvTranspose2d", "refuse_transposed"]


def refuse_transposed(name: str, layer: nn.ConvTranspose2d, *, dora: bool) -> None:
    """Raise ConfigError that names the layer where LoRA does not fit it: several groups, or DoRA."""
    if dora:
        raise ConfigError(
            f"{name} is a {type(layer).__name__}: adapter.dora is not for transposed convolutions. "
            "Set adapter.dora to false, or leave the layer out of adapter.targets."
        )
    if layer.groups > 1:
        raise ConfigError(
            f"{name} is a {type(layer).__name__} with {layer.groups} groups: LoRA fits transposed convolutions of one "
            "group only. Leave the layer out of adapter.targets."
        )


class LoraConvTranspose2d(Conv2d):
    """peft's LoRA layer around an nn.ConvTranspose2d; several named adapters on one layer, one of them active.

    What peft does for convolutions (merge, unmerge, names of the state) holds here too.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, r: int = 0, lora_alpha: float = 1, **settings: Any):
        """As peft calls it. Raises ConfigError as `refuse_transposed` does, or for lora_bias or use_rslora."""
        nn.Module.__init__(self)  # not Conv2d's: it would build ordinary convolutions
        with warnings.catch_warnings():
            # peft before 0.19 asks no `_get_in_out_features`, and warns.
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha, **settings)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: float, config: Any = None, **settings: Any) -> None:
        """Add a fresh adapter to the layer, as peft calls it."""

        def setting(name: str) -> Any:
            # peft before 0.19 gives the settings themselves in place of their configuration.
            return settings[name] if config is None else getattr(config, name)

        base: Any = self.get_base_layer()
        refuse_transposed(settings.get("target_name", "the layer"), base, dora=setting("use_dora"))
        for name in ("lora_bias", "use_rslora"):
            if setting(name):
                raise ConfigError(f"LoRA on a transposed convolution has no {name}: leave it off.")
        self.r[adapter_name], self.lora_alpha[adapter_name] = r, lora_alpha
        self.scaling[adapter_name] = lora_alpha / r
        self.use_dora[adapter_name] = self.lora_bias[adapter_name] = False
        dropout = setting("lora_dropout")
        self.lora_dropout[adapter_name] = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        geometry = base.kernel_size, base.stride, base.padding, base.output_padding
        self.lora_A[adapter_name] = nn.ConvTranspose2d(
            base.in_channels, r, *geometry, bias=False, dilation=base.dilation
        )
        self.lora_B[adapter_name] = nn.Conv2d(r, base.out_channels, 1, bias=False)
        self.reset_lora_parameters(adapter_name, setting("init_lora_weights"))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def reset_lora_parameters(self, adapter_name: str, init_lora_weights: bool | str) -> None:
        """Initial values: as on nn.Conv2d. B is 0."""
        super().reset_lora_parameters(adapter_name, init_lora_weights)
        if init_lora_weights is True:
            # torch takes r·k·k for the fan-in of this layout, (in, r, k, k), and draws too wide; it is in·k·k.
            nn.init.kaiming_uniform_(self._weights(adapter_name)[0].transpose(0, 1), a=math.sqrt(5))

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What the adapter adds to the layer's weight: (in, out, k, k)."""
        a, b = self._weights(adapter)
        return torch.einsum("ikyx,ok->ioyx", a, b[:, :, 0, 0]) * self.scaling[adapter]

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B,in,H,W) -> (B,out,H',W'). output_size: of the result, where the stride leaves several possible."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, output_size)
        if self.disable_adapters or self.merged:
            return result
        dtype, size = result.dtype, list(result.shape[-2:])
        for name in self.active_adapters:
            if name in self.lora_A:
                a: Any = self.lora_A[name]
                given = self.lora_dropout[name](self._cast_input_dtype(x, a.weight.dtype))
                result = result + self.lora_B[name](a(given, output_size=size)) * self.scaling[name]
        return result.to(dtype)

    def _weights(self, adapter: str) -> tuple[Tensor, Tensor]:
        a: Any = self.lora_A[adapter]
        b: Any = self.lora_B[adapter]
        return a.weight, b.weight

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        layer: Any = module
        return layer.in_channels, layer.out_channels


LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.ConvTranspose2d: LoraConvTranspose2d}
"""Layer -> its LoRA layer."""
