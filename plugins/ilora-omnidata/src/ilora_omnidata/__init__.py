"""Omnidata v2 normals and depth as labelers: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl

_LICENCE = "Omnidata Starter Dataset EULA: non-commercial research only; the weights are not part of this package"


@hookimpl
def ilora_labelers() -> Iterator[Card]:
    """One card per network: a checkpoint knows either normals or depth."""
    yield Card(
        "omnidata-normal",
        "Omnidata v2 surface normals, DPT-hybrid 384: the paper's labels",
        _LICENCE,
        "ilora_omnidata.labeler:normal",
        "ilora_omnidata.labeler:tiny_normal",
        intrinsics=("normals",),
        convert="ilora_omnidata.weights:convert_normal",
    )
    yield Card(
        "omnidata-depth",
        "Omnidata v2 depth up to scale and shift (far = large), DPT-hybrid 384",
        _LICENCE,
        "ilora_omnidata.labeler:depth",
        "ilora_omnidata.labeler:tiny_depth",
        intrinsics=("depth",),
        convert="ilora_omnidata.weights:convert_depth",
    )
