"""ZoeDepth N, K and NK as a labeler for ilora: depth in metres, from the hub or official checkpoints. Cards only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl


@hookimpl
def ilora_labelers() -> Iterator[Card]:
    """`zoedepth`: one card for the three published variants."""
    yield Card(
        "zoedepth",
        "ZoeDepth: depth in metres. variant=nk (rooms and streets), n (rooms) or k (streets)",
        "MIT",
        "ilora_zoedepth.labeler:zoedepth",
        "ilora_zoedepth.labeler:tiny",
        intrinsics=("depth",),
        convert="ilora_zoedepth.conversion:convert",
    )
