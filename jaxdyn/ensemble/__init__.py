"""Ensembles of trainings over loop and vmap axes."""

from jaxdyn.ensemble.compiling.placement import use_cores
from jaxdyn.ensemble.deciding.accelerators import ACCELERATORS, Accelerator, Budget, budget
from jaxdyn.ensemble.deciding.calibration import calibrate
from jaxdyn.ensemble.deciding.cells import Cell, Layout, Plan
from jaxdyn.ensemble.deciding.plan import plan
from jaxdyn.ensemble.deciding.speed import Speed
from jaxdyn.ensemble.doing.processes import connect
from jaxdyn.ensemble.doing.progress import Bar, Glance, Lines, Progress, Silent, watch
from jaxdyn.ensemble.search import maximal_learning_rate
from jaxdyn.ensemble.sweep import sweep

__all__ = [
    "ACCELERATORS",
    "Accelerator",
    "Bar",
    "Budget",
    "Cell",
    "Glance",
    "Layout",
    "Lines",
    "Plan",
    "Progress",
    "Silent",
    "Speed",
    "budget",
    "calibrate",
    "connect",
    "maximal_learning_rate",
    "plan",
    "sweep",
    "use_cores",
    "watch",
]
