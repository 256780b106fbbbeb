"""What a fit will need, before anything is downloaded: counts, memory and arithmetic of a weightless generator.

    counted    parameters, adapter sites, weights, optimiser and cache sizes: on torch's meta device, exact
    counted    FLOPs (2 per multiply-add): torch's FlopCounterMode over the generator's own code
    recorded   activations: every tensor that autograd keeps for the backward pass of one loss, each storage once
    estimated  total memory (no allocator or workspace overhead is in it); time = FLOPs / throughput

The generator's own methods are run (`encode`, `prepare`, `loss`, `render`), so the figures hold for any of them. The loss
is run on fake CPU tensors, whose attention is fused as on a GPU; on the meta device it would keep the attention maps.
A decoder that the loss looks through is part of all of this; its weights are float32, as in a fit.
The reference's step encodes picture, target and prompt every time; ours reads them from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ilora_core.adapters import sites_of
from ilora_core.attaching import attach
from ilora_core.config import RuntimeConfig, TrainConfig, build
from ilora_core.errors import CannotEncode, ConfigError
from ilora_core.factories import call_factory
from ilora_core.intrinsics import NORMALS
from ilora_core.plugins import PluginHost
from ilora_core.protocols import Adapter, Codes, Generator

__all__ = ["Plan", "count", "make_plan"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MOMENTS = {"adamw": 8, "adamw8bit": 2}  # bytes per trained parameter


@dataclass(frozen=True)
class Plan:
    """The figures. Memory in bytes; FLOPs per batch for steps, per picture where the name says so; seconds estimated."""

    generator: str
    resolution: int
    batch: int
    accumulate: int
    steps: int
    precision: str
    pictures: int
    parameters: Mapping[str, int]
    adapter: Mapping[str, float]
    memory: Mapping[str, int]
    flops: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with what was counted and what is an estimate."""
        return {
            **asdict(self),
            "how": {
                "counted": ["parameters", "adapter", "flops", "memory.weights", "memory.optimiser", "memory.cache"],
                "recorded": ["memory.activations"],
                "estimated": ["memory.total", "seconds"],
            },
        }


def make_plan(
    host: PluginHost,
    name: str,
    *,
    settings: Mapping[str, Mapping[str, Any]],
    adapter: str = "lora",
    resolution: int | None = None,
    pictures: int = 1000,
    tflops: float | None = None,
) -> Plan:
    """Plan a fit of the generator called `name`.

    settings    the groups of `--set`: generator, adapter, train and runtime count here
    adapter     card of the adapter
    resolution  side of the pictures; None = the generator's own
    tflops      sustained throughput, 10¹² FLOP/s, for an estimate of time
    Raises ConfigError for a card without a skeleton.
    """
    train: TrainConfig = build(TrainConfig, "train", settings.get("train", {}))
    runtime: RuntimeConfig = build(RuntimeConfig, "runtime", settings.get("runtime", {}))
    generator = _skeleton(host, name, settings.get("generator", {})).to("meta")
    side = resolution or generator.resolution[0]
    if side < 1 or side % generator.stride:
        raise ConfigError(f"--resolution must be a multiple of {generator.stride} for {name}, not {side}.")
    parameters = _parameters(generator)
    flops, codes = _dry_codes(generator, train.batch, side)
    # In a batch of one, what all pictures share, the prompt, could not be told from what is each one's own.
    two = codes if train.batch > 1 else _dry_codes(generator, 2, side)[1]
    given = settings.get("adapter", {})
    about = _about(_attach(host, adapter, generator, given), generator, parameters)
    # A second one, whose device is the CPU: a module of fake tensors cannot be moved.
    generator = _skeleton(host, name, settings.get("generator", {}))
    forward, backward, activations, behind = _dry_loss(
        generator, codes, runtime, lambda: _attach(host, adapter, generator, given), adopts=about.pop("adopts")
    )
    flops |= {"forward": forward, "backward": backward, "step": forward + backward}
    flops["reference_step"] = flops["encode"] + flops["prepare"] + flops["step"]
    memory = {
        "weights": parameters["net"] * _DTYPES[runtime.precision].itemsize + 4 * sum(parameters[n] for n in behind),
        "optimiser": about["parameters"] * (4 + 4 + _MOMENTS[train.optimizer]),  # weight, gradient, two moments
        "cache": _cached_bytes(two) * pictures,
        "activations": activations,
    }
    memory["total"] = sum(memory.values())
    plan = Plan(
        name,
        side,
        train.batch,
        train.accumulate,
        train.steps,
        runtime.precision,
        pictures,
        parameters,
        about,
        memory,
        flops,
    )
    return plan if not tflops else Plan(**{**vars(plan), "seconds": _seconds(plan, tflops * 1e12)})


def count(
    host: PluginHost, name: str, settings: Mapping[str, Mapping[str, Any]], *, adapter: str = "lora"
) -> tuple[dict[str, int], dict[str, Any]]:
    """(parameters by part, the adapter's figures) alone: the quick part of `make_plan`."""
    generator = _skeleton(host, name, settings.get("generator", {})).to("meta")
    parameters = _parameters(generator)
    about = _about(_attach(host, adapter, generator, settings.get("adapter", {})), generator, parameters)
    return parameters, {key: value for key, value in about.items() if key != "adopts"}


def _skeleton(host: PluginHost, name: str, settings: Mapping[str, Any]) -> Any:
    owner, card = host.find("generators", name)
    if not card.skeleton:
        raise ConfigError(
            f"generator {name!r} ({owner}) has no skeleton, so nothing can be planned without its weights. "
            'Its author can add one: Card(skeleton="module:callable"), the same network on torch\'s meta device.'
        )
    given = {**card.options, **settings}
    return call_factory(card.skeleton, given, what=f"the skeleton of generator {name!r}", plugin=owner)


def _parameters(generator: Any) -> dict[str, int]:
    """Parameters of the network and of the generator's other modules, by attribute."""
    return {name: _count(module) for name, module in _modules(generator).items()}


def _modules(generator: Any) -> dict[str, nn.Module]:
    others = {name: value for name, value in vars(generator).items() if isinstance(value, nn.Module)}
    return {"net": generator.net} | {n.lstrip("_"): m for n, m in others.items() if m is not generator.net}


def _attach(host: PluginHost, name: str, generator: Generator, settings: Mapping[str, Any]) -> Adapter:
    given = dict(settings)
    targets = given.pop("targets", None) or generator.targets
    adapter: Adapter = host.make("adapters", name, **given)
    attach(adapter, generator, NORMALS, targets)
    return adapter


def _about(adapter: Adapter, generator: Generator, parameters: Mapping[str, int]) -> dict[str, Any]:
    """How many layers carry the adapter, what it trains, and whether it asks for the whole generator."""
    trained = sum(p.numel() for p in adapter.parameters())
    base = parameters["net"] + parameters.get("vae", 0)
    return {
        "sites": len(sites_of(generator.net).layers),
        "parameters": trained,
        "base_parameters": base,
        "share": trained / base,
        "bytes": 4 * trained,
        "adopts": hasattr(adapter, "adopt"),
    }


def _dry_codes(generator: Generator, batch: int, side: int) -> tuple[dict[str, int], dict[str, Tensor]]:
    """FLOPs of encoding pictures, preparing targets and drawing one picture; the codes as meta tensors."""
    pictures = torch.empty(batch, 3, side, side, device="meta")
    valid = torch.ones(batch, 1, side, side, dtype=torch.bool, device="meta")
    try:
        encode, codes = _counted(lambda: dict(generator.encode(pictures)))
    except CannotEncode:
        encode, codes = 0, dict(generator.sample(batch, seed=0))
    prepare, prepared = _counted(lambda: generator.prepare(codes, NORMALS, pictures, valid))
    one = {name: value[:1] for name, value in codes.items()}
    draw, _ = _counted(lambda: generator.render(one, NORMALS))
    flops = {"encode": encode, "prepare": prepare, "render_picture": draw, "predict_picture": draw + encode // batch}
    return flops, {**codes, **prepared}


def _dry_loss(
    generator: Any, codes: Codes, runtime: RuntimeConfig, attach: Callable[[], Any], *, adopts: bool
) -> tuple[int, int, int, set[str]]:
    """(forward FLOPs, backward FLOPs, bytes that autograd keeps) of one loss, and what it goes through behind the network."""
    dtype, net = _DTYPES[runtime.precision], generator.net
    if not adopts:
        attach()
    modules = _modules(generator)
    if runtime.checkpointing:
        net.enable_gradient_checkpointing()
        net.train()
    batch = max(value.shape[0] for value in codes.values())
    with FakeTensorMode():
        _materialise(modules.values(), dtype)
        if adopts:  # it starts from what the text encoders give, which are fake from here on
            attach()
        fake: dict[str, Any] = {name: torch.empty(v.shape, dtype=v.dtype) for name, v in codes.items()}
        fake["seed"] = list(range(batch))
        kept: dict[int, tuple[int, Any]] = {}
        owners = {p.untyped_storage()._cdata: name for name in reversed(modules) for p in modules[name].parameters()}
        behind: set[str] = set()

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if owner := owners.get(storage._cdata):
                behind.add(owner)
            else:
                kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no address comes twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward, loss = _counted(lambda: generator.loss(fake, NORMALS).mean())
        backward, _ = _counted(loss.backward)
    return forward, backward, sum(size for size, _ in kept.values()), behind - {"net"}


def _materialise(parts: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Fake tensors in place of meta ones, all in the network's precision, as autocast computes it."""
    made: dict[int, nn.Parameter] = {}
    for module in dict.fromkeys(module for part in parts for module in part.modules()):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fresh = torch.empty(parameter.shape, dtype=dtype)
                made.setdefault(id(parameter), nn.Parameter(fresh, requires_grad=parameter.requires_grad))
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _counted(call: Callable[[], Any]) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        result = call()
    return int(counter.get_total_flops()), result


def _cached_bytes(codes: Codes) -> int:
    """Bytes of prepared samples per picture; what a whole run shares counts for nothing."""
    batch = max(value.shape[0] for value in codes.values())
    return sum(v.numel() * v.element_size() for v in codes.values() if v.shape[0] == batch) // batch


def _seconds(plan: Plan, rate: float) -> dict[str, float]:
    """FLOPs / throughput."""
    step = plan.flops["step"] * plan.accumulate
    once = (plan.flops["encode"] + plan.flops["prepare"]) / plan.batch * plan.pictures
    return {
        "step": step / rate,
        "encode_once": once / rate,
        "fit": (step * plan.steps + once) / rate,
        "reference_fit": plan.flops["reference_step"] * plan.accumulate * plan.steps / rate,
        "predict_picture": plan.flops["predict_picture"] / rate,
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
