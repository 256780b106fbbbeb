"""Adapters that leave every network frozen and learn what it is told: the paper's trainable alternatives to LoRA.

    textual inversion   c = E(t₁ … [v₁ … v_k] …)   v: embeddings of k tokens before the frozen text encoder E
    VISII-like          c = v                      v: the text encoder's output itself

Gal et al., arXiv 2208.01618; Nguyen et al., "Visual Instruction Inversion", arXiv 2307.14331. Both start from the intrinsic's
prompt, so that a fresh one changes nothing: v₁ … v_k are the embeddings of the prompt's first k tokens (behind the one that
begins every text; end and padding count), or v is the prompt's output. Both learn by the generator's own loss. VISII adds a loss
on the direction between pictures in CLIP's space, which is left out here: it needs CLIP, and maps are none of its pictures.

Only the intrinsic's prompt is replaced: guidance's empty prompt stays. `targets` are ignored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.adapters import check_state
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_sd.latent import LatentGenerator

__all__ = ["Instruction", "TextualInversion", "Visii", "tiny_textual_inversion", "tiny_visii"]

_LONGEST = 512  # some tokenizers name no length


class Instruction(ABC):
    """What a generator is told in place of an intrinsic's prompt. Several can share a generator; one is active.

    name  for the folder it is saved in
    seed  is taken so that every adapter can be made alike; nothing is random here
    """

    kind = ""
    encodes = False
    """Whether the text encoders are needed at every step."""

    def __init__(self, *, name: str = "default", seed: int = 0):
        self.name = name
        self.prompt = ""
        self._generator: LatentGenerator | None = None
        self._values: dict[str, nn.Parameter] = {}

    @abstractmethod
    def conditions(self, prompt: str) -> dict[str, Tensor]:
        """What `LatentGenerator._embed` gives, by name, each (1,…) float32."""

    @abstractmethod
    def _initial(self, generator: LatentGenerator) -> dict[str, Tensor]:
        """The values by which a fresh one changes nothing."""

    def adopt(self, generator: Any, intrinsic: Intrinsic) -> None:
        """Start from the intrinsic's prompt. Raises ConfigError for a generator that is not told by words what to draw."""
        if not isinstance(generator, LatentGenerator):
            raise ConfigError(
                f"{self.kind} needs a generator that is told by words what to draw (a card of ilora-sd, rooms, rooms-aug); "
                f"{type(generator).__name__} is not. Use --adapter lora."
            )
        self._generator, self.prompt = generator, intrinsic.prompt
        with torch.no_grad():
            self._values = {name: nn.Parameter(v.float().clone()) for name, v in self._initial(generator).items()}

    def attach(self, net: nn.Module, targets: Sequence[str] | str) -> None:
        """Make this the active one. The output does not change."""
        if self.generator.net is not net:
            raise ConfigError(f"{self.kind} was adopted by another generator than the one whose network it is given.")
        self.activate()

    def activate(self, *, trainable: bool = True) -> None:
        """Tell the generator this; what it was told before sleeps and is frozen."""
        before = self.generator.instruction
        if before is not None and before is not self:
            before._free(False)
        self.generator.instruction = self
        self._free(trainable)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The values."""
        self.generator  # noqa: B018, raises before it has adopted one
        return iter(self._values.values())

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The prompt itself inside the `with` block."""
        generator = self.generator
        active, generator.instruction = generator.instruction, None
        try:
            yield
        finally:
            generator.instruction = active

    def state_dict(self) -> dict[str, Tensor]:
        """Name -> tensor: per text encoder (k,D), or per condition (1,…)."""
        return {name: value.detach().cpu().clone() for name, value in sorted(self._values.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` gave. Raises ArtefactError that names what does not fit."""
        check_state(self.state_dict(), state)
        with torch.no_grad():
            for name, value in self._values.items():
                value.copy_(state[name])

    def config(self) -> dict[str, Any]:
        """What adapter_config.json says."""
        return {"peft_type": self.kind.upper().replace("-", "_"), "prompt": self.prompt}

    @property
    def generator(self) -> LatentGenerator:
        """Raises ConfigError before it has adopted one."""
        if self._generator is None:
            raise ConfigError(f"{self.kind} needs its generator before a network: call adopt(generator, intrinsic).")
        return self._generator

    def _free(self, trainable: bool) -> None:
        for value in self._values.values():
            value.requires_grad_(trainable)


class TextualInversion(Instruction):
    """New embeddings for the first tokens of the prompt, before the text encoders.

    tokens  how many are learnt, per text encoder
    """

    kind = "textual-inversion"
    encodes = True

    def __init__(self, *, tokens: int = 8, name: str = "default", seed: int = 0):
        if tokens < 1:
            raise ConfigError(f"adapter.tokens must be at least 1, not {tokens}.")
        super().__init__(name=name, seed=seed)
        self.tokens = tokens

    def conditions(self, prompt: str) -> dict[str, Tensor]:
        """The prompt through the text encoders, with the learnt embeddings in their places."""
        with ExitStack() as stack:
            for name, (encoder, tokenizer) in self.generator.encoders().items():
                hook = _in_place(self._values[name], _start(tokenizer))
                for layer in _embeddings(encoder):
                    stack.callback(layer.register_forward_hook(hook).remove)
            return self.generator.embed(prompt)

    def config(self) -> dict[str, Any]:
        """What adapter_config.json says."""
        return {**super().config(), "tokens": self.tokens}

    def _initial(self, generator: LatentGenerator) -> dict[str, Tensor]:
        return {name: self._first(generator, *pair) for name, pair in generator.encoders().items()}

    def _first(self, generator: LatentGenerator, encoder: Any, tokenizer: Any) -> Tensor:
        """(k,D): the embeddings of the prompt's own tokens."""
        start, length = _start(tokenizer), min(tokenizer.model_max_length, _LONGEST)
        if self.tokens > length - 2 * start:  # the first and the last one stay
            raise ConfigError(
                f"adapter.tokens is at most {length - 2 * start} for this generator's text encoder, not {self.tokens}."
            )
        places = generator._tokens(self.prompt, tokenizer, length)[0, start : start + self.tokens]
        return encoder.get_input_embeddings()(places)


class Visii(Instruction):
    """The text encoder's output, every number of it."""

    kind = "visii"

    def conditions(self, prompt: str) -> dict[str, Tensor]:
        """The values, whatever the prompt."""
        return dict(self._values)

    def _initial(self, generator: LatentGenerator) -> dict[str, Tensor]:
        return generator.embed(self.prompt)


def tiny_textual_inversion() -> TextualInversion:
    """Three tokens, for the conformance checks."""
    return TextualInversion(tokens=3)


def tiny_visii() -> Visii:
    """For the conformance checks."""
    return Visii()


def _start(tokenizer: Any) -> int:
    """Where the text begins: behind the first token, where the tokenizer has one that begins every text."""
    return int(getattr(tokenizer, "bos_token_id", None) is not None)


def _embeddings(encoder: Any) -> list[nn.Module]:
    """What embeds tokens. T5 has it twice, on one weight, and asks the one that `get_input_embeddings` does not give."""
    weight = encoder.get_input_embeddings().weight
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Embedding) and layer.weight is weight]


def _in_place(values: Tensor, start: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook on an embedding layer (1,L,D) that puts values (k,D) from `start` on."""

    def put(_layer: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        learnt = values.to(out)[None].expand(len(out), -1, -1)
        return torch.cat([out[:, :start], learnt, out[:, start + len(values) :]], 1)

    return put
