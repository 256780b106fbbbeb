"""Where a fit runs: device, precision, compilation."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from ilora_core.config import RuntimeConfig
from ilora_core.errors import ConfigError
from ilora_core.protocols import Generator

__all__ = ["make_accelerator", "pick_device", "place", "prepare_network"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" takes the best there is. Raises ConfigError when it is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is not a device; try auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no device {name} here ({torch.cuda.device_count()} CUDA devices). Try --device cpu."
        )
    return device


def make_accelerator(runtime: RuntimeConfig) -> Accelerator:
    """An Accelerator for these settings, also when the process made another one before."""
    device = pick_device(runtime.device)
    if runtime.precision == "fp16" and device.type == "cpu":
        raise ConfigError("runtime.precision=fp16 needs a GPU; use fp32 or bf16 on the CPU.")
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched:
        # accelerate keeps one state per process and refuses a second precision or device.
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
    if device.index is not None and not launched:
        torch.cuda.set_device(device)
    return Accelerator(
        mixed_precision="no" if runtime.precision == "fp32" else runtime.precision, cpu=device.type == "cpu"
    )


def place(generator: Generator, runtime: RuntimeConfig, accelerator: Accelerator) -> None:
    """Move the generator to the device, its frozen network in the wanted precision."""
    # torch's own `to`: diffusers' warns about modules to keep in float32, also where there are none.
    torch.nn.Module.to(generator.net, dtype=_DTYPES[runtime.precision])
    generator.to(accelerator.device)


def prepare_network(generator: Generator, runtime: RuntimeConfig) -> None:
    """Checkpointing and compilation, once an adapter is attached."""
    net: Any = generator.net
    if runtime.checkpointing:
        if not hasattr(net, "enable_gradient_checkpointing"):
            raise ConfigError(
                "this generator's network has no gradient checkpointing; leave runtime.checkpointing out."
            )
        net.enable_gradient_checkpointing()
        net.train()  # diffusers checkpoints in training mode only
    if runtime.compile:
        net.compile()
