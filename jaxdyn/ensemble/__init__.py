"""Ensembles of trainings over loop and vmap axes."""

from jaxdyn.ensemble.placement import use_cores
from jaxdyn.ensemble.plan import Cell, Layout, Plan, plan
from jaxdyn.ensemble.progress import Bar, Lines, Progress, Silent, watch
from jaxdyn.ensemble.sweep import sweep

__all__ = ["Bar", "Cell", "Layout", "Lines", "Plan", "Progress", "Silent", "plan", "sweep", "use_cores", "watch"]
