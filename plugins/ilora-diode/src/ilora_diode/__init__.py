"""DIODE as a source of pictures with measured depth and normals: cards and hooks only."""

from collections.abc import Iterator

from ilora_core import Card, hookimpl


@hookimpl
def ilora_sources() -> Iterator[Card]:
    """`diode`: the archives as they are published, or as the reference code lays them out."""
    yield Card(
        "diode",
        "DIODE, indoors and outdoor: depth in metres and normals by a laser scanner",
        "MIT (DIODE's devkit); the data are not part of this package, see diode-dataset.org for their terms",
        "ilora_diode.source:DiodeSource",
        "ilora_diode.source:tiny",
        intrinsics=("depth", "normals"),
    )
