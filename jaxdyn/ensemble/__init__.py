"""Ensembles of trainings over loop and vmap axes."""

from jaxdyn.ensemble.accelerators import ACCELERATORS, Accelerator, Budget, budget
from jaxdyn.ensemble.placement import use_cores
from jaxdyn.ensemble.plan import Cell, Layout, Plan, plan
from jaxdyn.ensemble.processes import connect
from jaxdyn.ensemble.progress import Bar, Glance, Lines, Progress, Silent, watch
from jaxdyn.ensemble.speed import Speed, calibrate
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
    "plan",
    "sweep",
    "use_cores",
    "watch",
]
