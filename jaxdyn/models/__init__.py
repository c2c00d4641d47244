"""Finite networks as `Model(init, apply, kernel)`."""

from jaxdyn.models.assembly import (
    assembly,
    distinct,
    dominated,
    equal,
    frozen,
    gaussian,
    shared,
    signs,
)
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.conv import conv, convolve, flatten, global_average
from jaxdyn.models.flax import from_linen, from_nnx
from jaxdyn.models.mlp import mlp
from jaxdyn.models.scaling import maximal_update, ntk, standard
from jaxdyn.models.taylor import exact, linear, quadratic, taylor
from jaxdyn.models.width import Width, widths

__all__ = [
    "Kernels",
    "Model",
    "Width",
    "assembly",
    "conv",
    "convolve",
    "distinct",
    "dominated",
    "equal",
    "exact",
    "flatten",
    "from_linen",
    "from_nnx",
    "frozen",
    "gaussian",
    "global_average",
    "linear",
    "maximal_update",
    "mlp",
    "ntk",
    "quadratic",
    "shared",
    "signs",
    "standard",
    "taylor",
    "widths",
]
