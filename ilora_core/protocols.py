"""The five nouns: Generator, Labeler, Adapter, Source, Metric. Plugins match them by shape, not by inheritance.

B is the batch, H×W pixels.
Picture: float32 (B,3,H,W), RGB, sRGB-encoded, in [0,1], for everyone; a plugin rescales inside itself.
Map:     an intrinsic in its physical unit, float32 (B,C,H,W); see `ilora_core.intrinsics`.
Valid:   bool (B,1,H,W), True = trust this pixel.
Codes:   whatever a generator is conditioned on. Every tensor leads with B, or with 1 when the whole batch shares it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ilora_core.intrinsics import Intrinsic

__all__ = ["Adapter", "Batch", "Codes", "Generator", "Labeler", "Metric", "Source"]

Codes = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Batch:
    """Some pictures on their way to the trainer.

    keys      one per picture, stable across runs (a file's stem, a scene's seed)
    pictures  (B,3,H,W) in [0,1]
    maps      name of the intrinsic -> (Map, Valid); empty when the source knows no truth
    codes     the generator's codes, when the pictures are its own samples
    """

    keys: tuple[str, ...]
    pictures: Tensor
    maps: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    codes: Codes | None = None


@runtime_checkable
class Generator(Protocol):
    """A frozen image generator.

    What is constant for a training sample is computed once, by `prepare`, and cached by the trainer; `loss` sees only
    prepared codes, so a generator cannot pay for its encoder at every step by mistake.
    """

    @property
    def net(self) -> nn.Module:
        """Frozen network that adapters attach to."""
        ...

    @property
    def targets(self) -> Sequence[str] | str:
        """Default adapter targets in `net`: module-name suffixes, or one regular expression."""
        ...

    resolution: tuple[int, int]
    """(H, W) that the generator was made for."""
    stride: int
    """`encode` takes pictures whose sides are multiples of this."""

    def sample(self, n: int, *, seed: int) -> Codes:
        """n codes from the prior. Same seed, same codes; the first k of n do not depend on n."""
        ...

    def encode(self, pictures: Tensor) -> Codes:
        """Codes of real pictures. Raises CannotEncode where there is no such way."""
        ...

    def picture(self, codes: Codes) -> Tensor:
        """The RGB picture that codes stand for: (B,3,H,W) in [0,1]; not touched by an adapter."""
        ...

    def prepare(self, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor) -> Codes:
        """What `loss` needs beyond `codes`: targets in the network's own space, weights, prompt embeddings.

        target: the map as a picture (B,3,H,W) in [0,1]; valid: bool (B,1,H,W). Pixels that are not valid must not matter.

        A generator with an attribute `takes_weights = True` also accepts a float32 valid: weights in [0,1] for the mean over
        pixels. 0 is the same as not valid, weights of 1 give the loss of a bool mask, and one factor for all of a picture's
        weights changes nothing. Without the attribute it is only given bool masks.
        """
        ...

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """One float32 loss per sample, (B,), from `codes | prepare(...)`. The trainer takes the mean.

        The trainer adds `codes["seed"]`, int64 (B,): draw any noise from it (`ilora_core.noise`), so that a resumed or a
        distributed run sees the same noise.
        """
        ...

    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """The intrinsic as a picture, through the same decoder, with the adapter as attached: (B,3,H,W) in [0,1].

        Where `intrinsic.decoding` is "reference", values beyond [0,1] may be kept: they count in how it is read.

        A generator with an attribute `one_pass = True` says that `encode` and `render` are one deterministic pass of tensor
        operations each, without a sampler's loop or a search: it can be exported as one graph.

        A generator may also have `render_many(codes, intrinsics) -> Sequence[Tensor]`: what `render` gives for each intrinsic,
        with one call of `net` on a batch of K equal parts, all rows of the first intrinsic first. Each part then goes through
        that intrinsic's own adapter (`ilora_core.mixture`). Without the method maps are drawn one after the other.

        A generator that a linear probe can be put on also has two more. `features(codes, intrinsic) -> (B,K,h,w)`, float32:
        what its layers put out, adapters off, side by side at the size of `prepare`'s "target", which is then (B,C,h,w), with
        (B,1,h,w) under "weight" or "valid" for where it counts. `target_picture(target) -> (B,3,H,W)` in [0,1]: what stands in
        "target", as a picture.
        """
        ...

    def to(self, device: torch.device | str) -> Any:
        """Move to a device; returns self."""
        ...

    def park(self) -> None:
        """Free the device of all that `loss` does not need; the other methods bring it back when they are called."""
        ...

    def layouts(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]:
        """The adapter in other tools' layouts: file name -> (tensors, safetensors metadata). May be empty.

        For `ilora export` a generator may also have `network`, what diffusers calls `net` ("unet" allows kohya's layout);
        `comfyui(intrinsic, lora, checkpoint) -> Mapping[str, str]`, file name -> a ComfyUI workflow as JSON text, or ConfigError
        where ComfyUI's own nodes cannot draw the map; and `save_pipeline(folder)`, its parts as a diffusers pipeline.
        """
        ...


@runtime_checkable
class Labeler(Protocol):
    """A predictor that says what the maps of a picture should be."""

    intrinsics: tuple[Intrinsic, ...]

    def label(self, pictures: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Intrinsic's name -> (Map, Valid), at the pictures' own size. Results do not depend on the batch."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """Trainable weights attached to a frozen network.

    An adapter that needs more of a generator than `net` (its prompts, its text encoders) also has
    `adopt(generator, intrinsic)`, called before `attach`; it raises ConfigError for a generator that it does not fit.
    """

    def attach(self, net: nn.Module, targets: Sequence[str] | str) -> None:
        """Attach to every matching module. The network's output stays the same bit for bit."""
        ...

    def activate(self, *, trainable: bool = True) -> None:
        """Switch the network to this adapter, of several that sit on it; the others sleep and are frozen."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Exactly the parameters that are trained."""
        ...

    def disabled(self) -> AbstractContextManager[None]:
        """The bare network for the length of a `with` block."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...

    def config(self) -> Mapping[str, Any]:
        """What adapter_config.json holds: plain data."""
        ...


@runtime_checkable
class Source(Protocol):
    """Pictures to learn from: a folder, a dataset, a generator's samples."""

    intrinsics: tuple[Intrinsic, ...]
    """The true maps that its batches carry; empty when it has none."""

    @property
    def keys(self) -> Sequence[str]:
        """One per picture, unique, stable across runs, in the order of iteration; known without reading a picture."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]:
        """Batches in a fixed order. Keys are unique within the source and stable across runs."""
        ...


@runtime_checkable
class Metric(Protocol):
    """A figure of merit."""

    name: str
    intrinsic: str
    """The name of the intrinsic it is meant for, or "" for any."""
    unit: str
    higher_is_better: bool

    def __call__(self, prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Maps (B,C,H,W), bool (B,1,H,W) -> (B,), one figure per picture; NaN where no pixel is valid."""
        ...
