"""Ensembles of trainings over loop and vmap axes."""

from jaxdyn.ensemble.plan import Cell, Plan, plan
from jaxdyn.ensemble.progress import Bar, Lines, Progress, Silent, watch
from jaxdyn.ensemble.sweep import sweep

__all__ = ["Bar", "Cell", "Lines", "Plan", "Progress", "Silent", "plan", "sweep", "watch"]
