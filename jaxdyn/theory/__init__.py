"""Closed-form predictions: what a simulation is compared with."""

from jaxdyn.theory import linearized, pl
from jaxdyn.theory.critical import critical_learning_rate, curvature, relative_rate

__all__ = ["critical_learning_rate", "curvature", "linearized", "pl", "relative_rate"]
