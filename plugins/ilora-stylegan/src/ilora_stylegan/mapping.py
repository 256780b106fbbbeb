"""Codes to styles: z (and a class) -> w, one per slot of the synthesis network, with truncation.

    z / rms(z)                  second-moment normalisation; the class embedding has its own
    x <- √2 lrelu(W x + b)      slope 0.2, gains folded into W and b
    w <- w_avg + ψ (w - w_avg)  truncation, in the first `cutoff` slots

(Karras et al. 2018, arXiv 1812.04948, and 2019, arXiv 1912.04958; per-class means: Sauer et al. 2022, arXiv 2202.00273.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ilora_core.errors import ConfigError
from ilora_stylegan.configs import MappingConfig
from ilora_stylegan.modulated import GAIN, SLOPE, linear, without_autocast, without_init

__all__ = ["Mapping"]


class Mapping(nn.Module):
    """The fully connected layers fc0 … fc{n-1} of a MappingConfig, and its class embedding if it has one.

    Buffer `w_avg`: (w_dim,), or (c_dim, w_dim) with a table of classes. Raises ConfigError for an unknown `embed`.
    """

    w_avg: Tensor
    embed: nn.Linear | nn.Embedding

    def __init__(self, config: MappingConfig):
        super().__init__()
        if config.embed not in ("none", "linear", "table"):
            raise ConfigError(f'a mapping embeds its classes by "none", "linear" or "table", not by {config.embed!r}.')
        self.config = config
        if config.embed == "linear":
            self.embed = linear(config.c_dim, config.embed_dim)
        elif config.embed == "table":
            rows, width = config.table
            self.embed = without_init(nn.Embedding, rows, width)
            self.embed_proj = linear(width, config.embed_dim) if config.c_dim else None
        before = config.z_dim + (config.embed_dim if self.conditional else 0)
        for index, width in enumerate(config.widths):
            self.add_module(f"fc{index}", linear(before, width))
            before = width
        per_class = self.conditional and config.embed == "table"
        self.register_buffer("w_avg", torch.zeros((config.c_dim, config.w_dim) if per_class else config.w_dim))

    @property
    def conditional(self) -> bool:
        """Whether a class takes part."""
        return self.config.c_dim > 0 and self.config.embed != "none"

    def forward(
        self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Styles (N,num_ws,w_dim), in the precision of the weights.

        z       (N,z_dim), standard normal
        labels  int64 (N,), classes in [0, c_dim); ignored by a network without classes
        psi     1 = no truncation, 0 = the mean style
        cutoff  truncate the first so many slots only; None = all
        Raises ConfigError when labels are needed and missing, of another shape, or out of range.
        """
        self._check(z, labels)
        with without_autocast(z):
            x = _normalised(z)
            if self.conditional:
                assert labels is not None
                x = torch.cat((x, _normalised(self._embedded(labels))), 1)
            x = x.to(self.w_avg.dtype)
            for index in range(len(self.config.widths)):
                x = F.leaky_relu(self.get_submodule(f"fc{index}")(x), SLOPE) * GAIN
            return self._truncated(x, labels, psi, cutoff)

    def _embedded(self, labels: Tensor) -> Tensor:
        if self.config.embed == "linear":
            return self.embed(F.one_hot(labels, self.config.c_dim).to(self.embed.weight.dtype))
        assert self.embed_proj is not None
        return F.leaky_relu(self.embed_proj(self.embed(labels)), SLOPE) * GAIN

    def _truncated(self, w: Tensor, labels: Tensor | None, psi: float, cutoff: int | None) -> Tensor:
        ws = w.unsqueeze(1).repeat(1, self.config.num_ws, 1)
        if psi == 1:
            return ws
        mean = self.w_avg[labels] if self.w_avg.ndim == 2 else self.w_avg.unsqueeze(0)
        pulled = (mean + psi * (w - mean)).unsqueeze(1)
        count = self.config.num_ws if cutoff is None else cutoff
        chosen = torch.arange(self.config.num_ws, device=w.device).view(1, -1, 1) < count
        return torch.where(chosen, pulled, ws)

    def _check(self, z: Tensor, labels: Tensor | None) -> None:
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise ConfigError(f"codes are (N,{self.config.z_dim}) here, not {tuple(z.shape)}.")
        if not self.conditional:
            return
        if labels is None:
            raise ConfigError(f"this network draws classes: give one label in 0…{self.config.c_dim - 1} per sample.")
        if labels.shape != z.shape[:1] or labels.dtype != torch.int64:
            raise ConfigError(f"labels are int64 ({len(z)},), not {labels.dtype} {tuple(labels.shape)}.")
        # Values are not there to be read on the meta device, as fake tensors, or while a graph is traced.
        if labels.is_meta or isinstance(labels, FakeTensor) or torch.compiler.is_compiling():
            return
        if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < self.config.c_dim):
            raise ConfigError(f"labels must lie in 0…{self.config.c_dim - 1}, not {labels.tolist()}.")


def _normalised(x: Tensor) -> Tensor:
    """x / rms(x) over the features, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
