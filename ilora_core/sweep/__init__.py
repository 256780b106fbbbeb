"""Sweeps: a grid over any setting of a fit, every cell computed once, one table, a plot per axis, one report.

    sweep = Sweep({"generator": "rooms", "source": "rooms", "intrinsic": "normals", "train.steps": 300},
                  (Axis.of("adapter.rank", (1, 2, 4, 8)), Axis.of("train.seed", (0, 1, 2))), test="rooms:test:100")
    for event in run_sweep(sweep, "runs/rank"):
        ...

`grid` says what is varied and `cells` resolves it; `methods` are what a cell can be, `held_out` what it is scored on; `compute`
does one cell, `store` keeps it, `run` and `on_ray` do all; `average`, `results`, `tables`, `report` and `output` tell of them.
"""

from ilora_core.sweep.cells import Cell, Plan, Scoring, plan_sweep
from ilora_core.sweep.grid import Axis, Choice, Point, Sweep
from ilora_core.sweep.methods import METHODS
from ilora_core.sweep.run import EXECUTORS, Failed, Finished, Planned, Started, SweepEvent, Swept, Working, run_sweep

__all__ = [
    "EXECUTORS",
    "METHODS",
    "Axis",
    "Cell",
    "Choice",
    "Failed",
    "Finished",
    "Plan",
    "Planned",
    "Point",
    "Scoring",
    "Started",
    "Sweep",
    "SweepEvent",
    "Swept",
    "Working",
    "plan_sweep",
    "run_sweep",
]
