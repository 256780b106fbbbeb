"""What the synthesis layers put out while a picture is drawn, brought to the picture's size: a linear probe's input.

StyleGAN2: every modulated 3x3 convolution, after its activation. StyleGAN3: every layer before ToRGB, without the margin that
it carries around the picture. Smaller maps are enlarged linearly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_stylegan.modulated import ModulatedLayer
from ilora_stylegan.stylegan3 import StyleGAN3, SynthesisLayer

__all__ = ["layer_features"]


def layer_features(net: nn.Module, run: Callable[[], object], size: tuple[int, int]) -> Tensor:
    """(B,K,*size), float32, layer after layer, of the one pass that `run` makes."""
    sides = _sides(net)
    sites = [m for m in net.modules() if isinstance(m, ModulatedLayer) or m in sides]
    caught: list[Tensor] = []

    def catch(module: nn.Module, _: object, output: Tensor) -> None:
        side = sides.get(module, output.shape[-1])
        margin = (output.shape[-1] - side) // 2
        inner = output[..., margin : margin + side, margin : margin + side].float()
        inner = inner.contiguous(memory_format=torch.channels_last)  # enlarged in a third of the time
        caught.append(F.interpolate(inner, size=size, mode="bilinear", align_corners=False))

    hooks = [site.register_forward_hook(catch) for site in sites]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(caught, 1)


def _sides(net: nn.Module) -> dict[nn.Module, int]:
    """Layers of a StyleGAN3 before ToRGB -> samples across the picture itself."""
    if not isinstance(net, StyleGAN3):
        return {}
    rate, sides = net.config.input.sampling_rate, {}
    for name in net.synthesis.names:
        layer = net.synthesis.get_submodule(name)
        assert isinstance(layer, SynthesisLayer)
        rate *= layer.config.up / layer.config.down
        if not layer.config.is_torgb:
            sides[layer] = min(round(rate), layer.config.out_size)
    return sides
