"""A VQGAN as an intrinsic generator: codes drawn once by the frozen prior, then one decoder with and without an adapter.

    c        ~ p(c) = Π p(c_t | c_<t)      by the transformer, or c = argmin_k ‖E(picture) − e_k‖ for a picture of yours
    picture  = D(e_c)                      the frozen decoder
    map      = D_θ(e_c)                    the same with rank-r updates of q, k, v and proj of its attention blocks
    loss     = 1 − cos + L1 for normals, mean square otherwise, on the raw three channels

(I-LoRA, arXiv 2311.17137, section 3 and Table 5; VQGAN: Esser et al. 2021.) The prior is needed for the codes alone, 512 bytes
for a picture of 256², and leaves the device afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import isqrt
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilora_core.adapters import bare
from ilora_core.errors import ConfigError
from ilora_core.intrinsics import Intrinsic
from ilora_core.losses import picture_loss
from ilora_core.noise import mix_seeds
from ilora_core.protocols import Codes
from ilora_vqgan.loading import Components
from ilora_vqgan.networks import CodeDecoder, CodeEncoder, nearest, randomised
from ilora_vqgan.sampling import cache_rows, check_sampling, draw_codes

__all__ = ["ADAPT", "VQGAN"]

_ATTENTION = r"decoder\..*attentions\.\d+\.to_(q|k|v|out\.0)"
ADAPT: Mapping[str, str] = {
    "attention": _ATTENTION,
    "convolutions": rf"{_ATTENTION}|decoder\.(.+\.)?(conv_in|conv_out|conv1|conv2|conv_shortcut|conv)",
}
"""What an adapter attaches to, as regular expressions over the decoder's modules."""


class VQGAN:
    """A VQModel, and a GPT over its codes, as a map generator.

    components      first stage and prior (`ilora_vqgan.loading`)
    adapt           "attention" (the paper's), or "convolutions": those and every convolution of the decoder
    resolution      side of its pictures; None = what the prior draws, or what the first stage was made for
    top_k           draw among the likeliest codes; 0 = among all
    temperature     of the draw; 0 = the likeliest code
    use_cache       whether the prior keeps keys and values (the same codes, sooner)
    sample_batch    sequences drawn at once; 0 = what 4 GB of keys and values hold
    random_decoder  the control: a seed, and `render` and `loss` go through a decoder that never saw a picture

    Codes: "codes" int16 (B,h,w), one per `stride` pixels. Prepared: "target" (B,3,H,W) in [-1,1], "valid" (B,1,H,W).
    """

    takes_weights = True
    one_pass = True

    def __init__(
        self,
        components: Components,
        *,
        adapt: str = "attention",
        resolution: int | None = None,
        top_k: int = 250,
        temperature: float = 1.0,
        use_cache: bool = True,
        sample_batch: int = 0,
        random_decoder: int | None = None,
    ):
        if adapt not in ADAPT:
            raise ConfigError(f"generator.adapt is one of {', '.join(ADAPT)}, not {adapt!r}.")
        first_stage: Any = components.first_stage
        self.targets: Sequence[str] | str = ADAPT[adapt]
        self.net: nn.Module = _frozen(CodeDecoder(first_stage))
        self.encoder: nn.Module = _frozen(CodeEncoder(first_stage))
        self.prior: Any = components.prior and _frozen(components.prior)
        self._codebook = first_stage.quantize.embedding.weight.detach().clone()  # stays float32, whatever `net` becomes
        self._dtype = torch.int16 if len(self._codebook) <= 2**15 else torch.int32
        self._intact: nn.Module | None = None
        if random_decoder is not None:
            fresh = randomised(first_stage, random_decoder)
            fresh.quantize, fresh.post_quant_conv = first_stage.quantize, first_stage.post_quant_conv
            self._intact, self.net = self.net, _frozen(CodeDecoder(fresh))
        self.stride = 2 ** (len(first_stage.config.block_out_channels) - 1)
        self.resolution = _resolution(first_stage, self.prior, self.stride, resolution)
        check_sampling(top_k, temperature, len(self._codebook))
        self.start, self._why_not = components.start, components.without_prior
        self._sampling = {"top_k": top_k, "temperature": temperature, "use_cache": use_cache}
        self._rows = sample_batch
        self.provenance = {**components.provenance, **self._sampling, "random_decoder": random_decoder}
        self._device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Self:
        """Choose the device. The decoder moves now, encoder and prior when they are needed."""
        self._device = torch.device(device)
        self.net.to(self._device)
        return self

    def park(self) -> None:
        """Leave only the decoder on the device."""
        for module in (self.encoder, self.prior, self._intact):
            if module is not None and self._device.type != "meta":
                module.to("cpu")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def sample(self, n: int, *, seed: int) -> Codes:
        """Codes of n pictures that the prior draws; it leaves the device afterwards. Raises ConfigError without a prior."""
        if self.prior is None:
            raise ConfigError(
                f"this VQGAN draws no pictures of its own ({self._why_not}). Give it pictures (--pictures FOLDER), or weights "
                "with an unconditional transformer."
            )
        height, width = (side // self.stride for side in self.resolution)
        if self._device.type == "meta":
            return {"codes": torch.empty(n, height, width, dtype=self._dtype, device="meta")}
        seeds = [mix_seeds(seed, i) for i in range(n)]
        self.prior.to(self._device)
        rows = self._rows or cache_rows(self.prior)
        settings: dict[str, Any] = {"length": height * width, "start": self.start, **self._sampling}
        drawn = [draw_codes(self.prior, seeds[i : i + rows], **settings) for i in range(0, n, rows)]
        self.prior.to("cpu")
        return {"codes": torch.cat(drawn).view(n, height, width).to(self._dtype)}

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Codes:
        """The first stage's own codes, in float32. pictures: (B,3,H,W) in [0,1], sides multiples of `stride`."""
        if next(self.encoder.parameters()).device != self._device:  # `to` rebuilds parameters, which tracing forbids
            self.encoder.to(self._device)
        with _exact(self._device):
            vectors = self.encoder((pictures.to(self._device) * 2 - 1).float())
            return {"codes": nearest(vectors, self._codebook.to(self._device)).to(self._dtype)}

    @torch.no_grad()
    def picture(self, codes: Codes) -> Tensor:
        """(B,3,H,W) in [0,1], through the first stage's own decoder with every adapter off."""
        net = self.net if self._intact is None else self._intact.to(self._device)
        with bare(net):
            return _unit(net(codes["codes"].to(self._device)))

    @torch.no_grad()
    def prepare(self, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor) -> Codes:
        """The target in the decoder's own range."""
        return {"target": target * 2 - 1, "valid": valid}

    def loss(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """The intrinsic's loss on the raw output; (B,) float32."""
        raw = self._draw(codes)
        return picture_loss(raw, codes["target"].to(raw.device), codes["valid"].to(raw.device), intrinsic.loss)

    @torch.no_grad()
    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        """The map as a picture, (B,3,H,W) in [0,1]."""
        return _unit(self._draw(codes))

    @torch.no_grad()
    def render_many(self, codes: Codes, intrinsics: Sequence[Intrinsic]) -> Sequence[Tensor]:
        """`render` for several intrinsics in one pass."""
        k = len(intrinsics)
        return _unit(self._draw({"codes": codes["codes"].repeat(k, 1, 1)})).chunk(k)

    @torch.no_grad()
    def features(self, codes: Codes, intrinsic: Intrinsic, *, size: tuple[int, int] | None = None) -> Tensor:
        """What the decoder's blocks put out, side by side, (B,K,*size): a linear probe's input. size None = the picture's."""
        with _caught(self.net.decoder) as values:  # pyright: ignore[reportArgumentType]
            shape = self._draw(codes).shape[-2:]
        return torch.cat([F.interpolate(value.float(), size=size or shape) for value in values], 1)

    def target_picture(self, target: Tensor) -> Tensor:
        """What is in "target", as a picture."""
        return _unit(target)

    def layouts(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]:
        """None: no other tool reads adapters of a VQGAN."""
        return {}

    def _draw(self, codes: Codes) -> Tensor:
        return self.net(codes["codes"].to(self._device))


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)


def _unit(raw: Tensor) -> Tensor:
    """[-1,1] -> [0,1], float32, cut."""
    return (raw.float() / 2 + 0.5).clamp(0, 1)


def _exact(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast: a code is an argmin, and reduced precision moves it."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def _caught(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Outputs of the middle block and of every level, in order, of what runs inside the `with` block."""
    values: list[Tensor] = []
    blocks: list[Any] = [decoder.mid_block, *decoder.up_blocks]  # pyright: ignore[reportGeneralTypeIssues]
    hooks = [block.register_forward_hook(lambda _m, _i, out: values.append(out)) for block in blocks]
    try:
        yield values
    finally:
        for hook in hooks:
            hook.remove()


def _resolution(first_stage: Any, prior: Any, stride: int, given: int | None) -> tuple[int, int]:
    """(H, W) of the generator's pictures. Raises ConfigError for a size that cannot be."""
    if given is not None and (given < 1 or given % stride):
        raise ConfigError(f"generator.resolution must be a multiple of {stride}, not {given}.")
    if prior is None:
        side = given or int(first_stage.config.sample_size)
        return (side, side)
    side = isqrt(prior.config.n_positions)
    if side * side != prior.config.n_positions:
        raise ConfigError(f"the prior draws {prior.config.n_positions} codes, which is no square.")
    if given is not None and given != side * stride:
        raise ConfigError(f"the prior draws pictures of {side * stride}², so generator.resolution cannot be {given}.")
    return (side * stride, side * stride)
