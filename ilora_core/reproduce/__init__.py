"""The paper's tables and figures as commands, in more than one world.

    world = load_world("rooms", quick=True)
    for event in reproduce(make_study("table4", world), "runs/reproduce/rooms"):
        ...

`study` says what a reproduction is made of, `world` what it is made with; `studies` are the paper's tables and figures,
`published` its own numbers; `run` computes one, `results` decides its claims, `report` and `markdown` tell of it.
"""

from ilora_core.reproduce.run import Reproduced, reproduce
from ilora_core.reproduce.studies import STUDIES, make_study
from ilora_core.reproduce.study import Claim, Part, Published, Study
from ilora_core.reproduce.world import WORLDS, Family, World, load_world

__all__ = [
    "STUDIES",
    "WORLDS",
    "Claim",
    "Family",
    "Part",
    "Published",
    "Reproduced",
    "Study",
    "World",
    "load_world",
    "make_study",
    "reproduce",
]
