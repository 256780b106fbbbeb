"""What the core itself provides, through the same hooks as any plugin."""

from collections.abc import Iterator

from ilora_core.cards import Card
from ilora_core.hookspecs import hookimpl

__all__ = ["ilora_adapters"]

_METHODS = (
    ("loha", "Hadamard products of low-rank updates (peft)"),
    ("lokr", "Kronecker products as updates (peft)"),
    ("oft", "Orthogonal rotations of a layer's inputs (peft)"),
    ("ia3", "One learned factor for each output of a layer (peft)"),
)


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
        name="dora",
        summary="LoRA with magnitude and direction apart: lora with adapter.dora=true",
        licence="Apache-2.0",
        factory="ilora_core.adapters:LoraAdapter",
        tiny="ilora_core.adapters:tiny_dora",
        options={"dora": True},
    )
    for name, summary in _METHODS:
        yield Card(
            name=name,
            summary=summary,
            licence="Apache-2.0",
            factory=f"ilora_core.peft_methods:{name}",
            tiny=f"ilora_core.peft_methods:tiny_{name}",
        )
    yield Card(
        name="full",
        summary="Full fine-tuning, as a baseline: every weight is trained and saved",
        licence="Apache-2.0",
        factory="ilora_core.full:FullAdapter",
        tiny="ilora_core.full:tiny",
    )
