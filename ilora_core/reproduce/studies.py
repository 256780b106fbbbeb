"""The paper's tables and figures by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ilora_core.errors import UnknownName
from ilora_core.reproduce.figures import fig5, fig8, fig9, fig10, fig11, fig13, fig14, fig15
from ilora_core.reproduce.study import Study
from ilora_core.reproduce.tables import table1, table2, table3, table4, table5
from ilora_core.reproduce.world import World

__all__ = ["STUDIES", "make_study"]

STUDIES: Mapping[str, Callable[[World], Study]] = {
    study.__name__: study
    for study in (table1, table2, table3, table4, table5, fig5, fig8, fig9, fig10, fig11, fig13, fig14, fig15)
}


def make_study(name: str, world: World) -> Study:
    """The study of that name. Raises UnknownName that lists them."""
    if name not in STUDIES:
        raise UnknownName(f"there is no target {name!r}; there are {', '.join(STUDIES)}.")
    return STUDIES[name](world)
