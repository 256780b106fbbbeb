"""Watching a plugin from outside: connections it tries to open, process-wide state it leaves changed."""

import os
import random
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["differences", "fresh_random_states", "global_state", "no_network"]


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuse every connection but local ones inside the block; the list says what was tried, even if it was caught."""
    attempts: list[str] = []
    real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any, *rest: Any) -> Any:
        if self.family == getattr(socket, "AF_UNIX", None):
            return real_connect(self, address, *rest)
        attempts.append(f"connect to {address}")
        raise OSError(f"the conformance checks allow no connection (to {address})")

    def lookup(host: Any, *rest: Any, **more: Any) -> Any:
        attempts.append(f"look up {host}")
        raise OSError(f"the conformance checks allow no connection (to {host})")

    socket.socket.connect, socket.getaddrinfo = connect, lookup  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield attempts
    finally:
        socket.socket.connect, socket.getaddrinfo = real_connect, real_lookup


@contextmanager
def fresh_random_states() -> Iterator[None]:
    """Unusual random states inside the block, so that seeding with 0 shows; the caller's own afterwards."""
    numpy = sys.modules.get("numpy")
    kept = torch.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy else None
    torch.manual_seed(0x5EED1)
    random.seed(0x5EED2)
    if numpy:
        numpy.random.seed(0x5EED3)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        if numpy:
            numpy.random.set_state(kept[2])


def global_state() -> Mapping[str, object]:
    """What a plugin shares with everything else in the process, by a name that a message can use."""
    state: dict[str, object] = {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
        "cuDNN's settings": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "the random module's state": random.getstate(),
        "the warning filters": tuple(map(str, warnings.filters)),
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
        "sys.path": tuple(sys.path),
    }
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy's random state"] = (kind, keys.tobytes(), *rest)
    return state


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Names of what changed."""
    return [name for name in before if before[name] != after.get(name)]
