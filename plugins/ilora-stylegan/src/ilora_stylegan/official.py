"""What every reader of a foreign format hands over: official keys on tensors still in the file, and what folding needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ilora_stylegan.configs import Config, StyleGAN2Config
from ilora_stylegan.folding import MAPPING_LR, fold_stylegan2, fold_stylegan3
from ilora_stylegan.layout import check_shapes, check_values
from ilora_stylegan.pickle_nodes import Broken, StoredTensor

__all__ = ["Official"]


@dataclass(frozen=True, eq=False)
class Official:
    """What `folded` makes our state from.

    stored      official keys -> tensors, mostly still in the file
    about       plain facts to keep
    mapping_lr  the mapping's learning-rate multiplier
    gains       constants for some of the weights, before anything else
    """

    config: Config
    stored: Mapping[str, StoredTensor | Tensor]
    about: dict[str, Any]
    mapping_lr: float = MAPPING_LR
    gains: Mapping[str, float] = field(default_factory=dict)

    def folded(self, limit: int) -> dict[str, Tensor]:
        """Our keys -> float32. Raises Broken before anything is read when keys or shapes are wrong or exceed `limit` bytes."""
        kept = {key: value for key, value in self.stored.items() if not self._constant(key)}
        check_shapes(self.config, {key: tuple(value.shape) for key, value in kept.items()})
        stored = [value for value in kept.values() if isinstance(value, StoredTensor)]
        if sum(value.numel * value.dtype.itemsize for value in stored) > limit:
            raise Broken("the weights together are larger than the file: they overlap")
        official = {key: self._loaded(key, value) for key, value in kept.items()}
        check_values(official)
        fold = fold_stylegan2 if isinstance(self.config, StyleGAN2Config) else fold_stylegan3
        state = fold(official, mapping_lr=self.mapping_lr)
        check_values(state)
        return {key: value.contiguous() for key, value in state.items()}

    def _loaded(self, key: str, value: StoredTensor | Tensor) -> Tensor:
        loaded = (value.load() if isinstance(value, StoredTensor) else value).float()
        return loaded * self.gains[key] if key in self.gains else loaded

    def _constant(self, key: str) -> bool:
        return isinstance(self.config, StyleGAN2Config) and key.endswith("resample_filter")
