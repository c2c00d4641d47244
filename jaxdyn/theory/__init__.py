"""Closed-form predictions: what a simulation is compared with."""

from jaxdyn.theory import linearized, pl, radial, rfm
from jaxdyn.theory.critical import critical_learning_rate, curvature, relative_rate

__all__ = ["critical_learning_rate", "curvature", "linearized", "pl", "radial", "relative_rate", "rfm"]
