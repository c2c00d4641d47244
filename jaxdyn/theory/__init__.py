"""Closed-form predictions: what a simulation is compared with."""

from jaxdyn.theory import catapult, linearized, pl, radial, rfm
from jaxdyn.theory.critical import (
    batch_critical_learning_rate,
    critical_learning_rate,
    curvature,
    hessian_critical_learning_rate,
    relative_rate,
)

__all__ = [
    "batch_critical_learning_rate",
    "catapult",
    "critical_learning_rate",
    "curvature",
    "hessian_critical_learning_rate",
    "linearized",
    "pl",
    "radial",
    "relative_rate",
    "rfm",
]
