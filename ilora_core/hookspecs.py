"""The five hooks a plugin may implement. Each returns its cards; each is optional."""

from collections.abc import Iterable

import pluggy

from ilora_core.cards import Card

__all__ = ["HOOKS", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("ilora")
hookimpl = pluggy.HookimplMarker("ilora")

HOOKS = ("ilora_generators", "ilora_labelers", "ilora_adapters", "ilora_sources", "ilora_metrics")


@hookspec
def ilora_generators() -> Iterable[Card]:  # pyright: ignore[reportReturnType]
    """Frozen generators: `yield Card("my-gan", "…", "MIT", "my_plugin.model:MyGan", "my_plugin.model:tiny")`."""


@hookspec
def ilora_labelers() -> Iterable[Card]:  # pyright: ignore[reportReturnType]
    """Picture → map predictors: `yield Card("my-depth", …, intrinsics=("depth",))`."""


@hookspec
def ilora_adapters() -> Iterable[Card]:  # pyright: ignore[reportReturnType]
    """Ways to attach trainable weights to a frozen network: `yield Card("my-adapter", …)`."""


@hookspec
def ilora_sources() -> Iterable[Card]:  # pyright: ignore[reportReturnType]
    """Pictures to learn from, with or without true maps: `yield Card("my-data", …, intrinsics=("normals",))`."""


@hookspec
def ilora_metrics() -> Iterable[Card]:  # pyright: ignore[reportReturnType]
    """Figures of merit for one intrinsic: `yield Card("my-metric", …, intrinsics=("depth",))`."""
