"""What the core itself provides, through the same hooks as any plugin."""

from collections.abc import Iterator

from ilora_core.cards import Card
from ilora_core.hookspecs import hookimpl

__all__ = ["ilora_adapters"]


@hookimpl
def ilora_adapters() -> Iterator[Card]:
    yield Card(
        name="lora",
        summary="Low-rank updates of linear and convolution layers (peft)",
        licence="Apache-2.0",
        factory="ilora_core.adapters:LoraAdapter",
        tiny="ilora_core.adapters:tiny",
    )
    yield Card(
        name="full",
        summary="Full fine-tuning, as a baseline: every weight is trained and saved",
        licence="Apache-2.0",
        factory="ilora_core.full:FullAdapter",
        tiny="ilora_core.full:tiny",
    )
