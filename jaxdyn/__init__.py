"""jaxdyn: simulate the training dynamics of over-parameterised neural networks.

A *model* is a pure function with an initialiser; a *training* says how it evolves on a *task* and which *probes* look
at it when; `sweep` runs an ensemble of trainings at once and returns one labelled dataset; *experiments* turn datasets
into verdicts on the claims of the theory. Everything is loaded on first use, so importing jaxdyn costs nothing and
changes no global setting.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdyn._version import __version__ as __version__

if TYPE_CHECKING:
    from jaxdyn import (
        analysis,
        dynamics,
        ensemble,
        experiments,
        geometry,
        losses,
        models,
        probes,
        results,
        tasks,
        theory,
    )
    from jaxdyn.dynamics import Snapshot, State, Training, Trajectory, at, every, log_spaced, train
    from jaxdyn.dynamics.record import record
    from jaxdyn.ensemble.sweep import sweep
    from jaxdyn.models import Model, exact, linear, quadratic, widths
    from jaxdyn.models.taylor import taylor
    from jaxdyn.tasks import Task, full_batch, minibatch

_HOMES = {
    "jaxdyn.dynamics": "Snapshot State Training Trajectory at every log_spaced record train",
    "jaxdyn.ensemble": "sweep",
    "jaxdyn.models": "Model exact linear quadratic taylor widths",
    "jaxdyn.tasks": "Task full_batch minibatch",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Model",
    "Snapshot",
    "State",
    "Task",
    "Training",
    "Trajectory",
    "analysis",
    "at",
    "dynamics",
    "ensemble",
    "every",
    "exact",
    "experiments",
    "full_batch",
    "geometry",
    "linear",
    "log_spaced",
    "losses",
    "minibatch",
    "models",
    "probes",
    "quadratic",
    "record",
    "results",
    "sweep",
    "tasks",
    "taylor",
    "theory",
    "train",
    "widths",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in __all__:  # the namespaces
        return importlib.import_module(f"jaxdyn.{name}")
    raise AttributeError(f"module 'jaxdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
