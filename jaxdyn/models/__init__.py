"""Finite networks as `Model(init, apply, kernel)`."""

from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.conv import conv, convolve, flatten, global_average
from jaxdyn.models.flax import from_linen, from_nnx
from jaxdyn.models.mlp import mlp
from jaxdyn.models.scaling import maximal_update, ntk, standard
from jaxdyn.models.solvable import (
    frozen_gates,
    frozen_gates_on,
    gaussian,
    general_quadratic,
    pure_quadratic,
    signs,
    two_layer_relu,
    uv,
)
from jaxdyn.models.taylor import exact, linear, quadratic, taylor
from jaxdyn.models.width import Width, widths

__all__ = [
    "Kernels",
    "Model",
    "Width",
    "conv",
    "convolve",
    "exact",
    "flatten",
    "from_linen",
    "from_nnx",
    "frozen_gates",
    "frozen_gates_on",
    "gaussian",
    "general_quadratic",
    "global_average",
    "linear",
    "maximal_update",
    "mlp",
    "ntk",
    "pure_quadratic",
    "quadratic",
    "signs",
    "standard",
    "taylor",
    "two_layer_relu",
    "uv",
    "widths",
]
