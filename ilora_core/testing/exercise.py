"""A short use of each kind of thing, for the checks that watch what happens meanwhile; and inputs for the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ilora_core.intrinsics import NORMALS, Intrinsic
from ilora_core.protocols import Codes, Generator, Labeler, Metric, Source
from ilora_core.testing.scenes import Scenes, make_scenes

if TYPE_CHECKING:
    from ilora_core.adapters import LoraAdapter

__all__ = [
    "CUSTOM",
    "EXERCISES",
    "attach_lora",
    "disturb",
    "loss_of",
    "maps_for",
    "parameters_of",
    "same_codes",
    "seeded",
    "small_net",
    "targets_for",
]

CUSTOM = Intrinsic("roughness", 1, "", "linear")
"""An intrinsic as a user would declare it."""


def seeded(codes: Codes, seed: int = 0) -> Codes:
    """Codes with the per-sample seeds that the trainer adds."""
    batch = max(value.shape[0] for value in codes.values())
    return {**codes, "seed": torch.arange(seed, seed + batch)}


def targets_for(generator: Generator, intrinsic: Intrinsic, batch: int = 2) -> tuple[Tensor, Tensor]:
    """(target, valid) of the analytic scenes as pictures of the generator's own size."""
    scenes = make_scenes(*generator.resolution)
    value = scenes.maps.get(intrinsic.name, scenes.maps["depth"])
    if intrinsic.name not in scenes.maps:
        value = (value / value.amax()).expand(-1, intrinsic.channels, -1, -1)
    repeats = -(-batch // value.shape[0])
    value, valid = value.repeat(repeats, 1, 1, 1)[:batch], scenes.valid.repeat(repeats, 1, 1, 1)[:batch]
    return intrinsic.to_picture(value, valid), valid


def loss_of(
    generator: Generator, codes: Codes, intrinsic: Intrinsic, target: Tensor, valid: Tensor, *, seed: int = 0
) -> Tensor:
    """The loss as the trainer asks for it: codes, what `prepare` adds, and one seed per sample."""
    return generator.loss(seeded({**codes, **generator.prepare(codes, intrinsic, target, valid)}, seed), intrinsic)


def maps_for(metric: Metric) -> tuple[Tensor, Tensor]:
    """(truth, valid) for a metric: the analytic scenes' map of its intrinsic; any positive map where it takes any."""
    scenes: Scenes = make_scenes(24, 24)
    return scenes.maps[metric.intrinsic if metric.intrinsic in scenes.maps else "albedo"], scenes.valid


def small_net() -> nn.Module:
    """A convolution, a transposed one and two linear layers with fixed weights, for adapters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential()
        net.add_module("conv", nn.Conv2d(3, 8, 3, padding=1))
        net.add_module("act", nn.SiLU())
        net.add_module("up", nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1))
        net.add_module("bend", nn.SiLU())
        net.add_module("pool", nn.AdaptiveAvgPool2d(1))
        net.add_module("flat", nn.Flatten())
        net.add_module("linear", nn.Linear(6, 6))
        net.add_module("head", nn.Linear(6, 4))
    return net.eval().requires_grad_(False)


def attach_lora(generator: Any) -> LoraAdapter:
    """A fresh rank-2 LoRA on the generator's default targets."""
    from ilora_core.adapters import LoraAdapter  # imports peft, which the other kinds' checks do without

    adapter = LoraAdapter(rank=2)
    adapter.attach(generator.net, generator.targets)
    return adapter


def disturb(adapter: LoraAdapter, seed: int = 0) -> LoraAdapter:
    """Weights as if trained: a fresh LoRA's second matrix is zero."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source).to(parameter) * 0.2)
    return adapter


def parameters_of(generator: object) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter that the generator's attributes hold, in modules or bare, in lists or dicts; each once."""
    seen: set[int] = set()
    for attribute, value in {"net": getattr(generator, "net", None), **vars(generator)}.items():
        for name, parameter in _held(value):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{attribute}{name}", parameter


def _held(value: object) -> Iterator[tuple[str, nn.Parameter]]:
    if isinstance(value, nn.Parameter):
        yield "", value
    elif isinstance(value, nn.Module):
        yield from ((f".{name}", parameter) for name, parameter in value.named_parameters())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]{name}", p) for i, item in enumerate(value) for name, p in _held(item))
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]{name}", p) for key, item in value.items() for name, p in _held(item))


def same_codes(a: Codes, b: Codes) -> bool:
    """Equal bit for bit."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def _use_generator(generator: Any) -> None:
    codes = generator.sample(2, seed=0)
    target, valid = targets_for(generator, NORMALS)
    loss_of(generator, codes, NORMALS, target, valid)
    generator.render(codes, NORMALS)


def _use_labeler(labeler: Labeler) -> None:
    labeler.label(make_scenes(32, 32).pictures)


def _use_source(source: Source) -> None:
    for _ in source:
        pass


def _use_metric(metric: Metric) -> None:
    truth, valid = maps_for(metric)
    metric(truth, truth, valid)


EXERCISES = {
    "generator": _use_generator,
    "labeler": _use_labeler,
    "source": _use_source,
    "metric": _use_metric,
}
