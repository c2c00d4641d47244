"""Finite networks as `Model(init, apply, kernel)`."""

from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.conv import conv, convolve, flatten, global_average
from jaxdyn.models.flax import from_linen, from_nnx
from jaxdyn.models.mlp import identity, mlp
from jaxdyn.models.scaling import maximal_update, ntk, standard
from jaxdyn.models.taylor import exact, linear, quadratic, taylor
from jaxdyn.models.vision import group_norm, layer_norm, vit, wide_resnet
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
    "global_average",
    "group_norm",
    "identity",
    "layer_norm",
    "linear",
    "maximal_update",
    "mlp",
    "ntk",
    "quadratic",
    "standard",
    "taylor",
    "vit",
    "wide_resnet",
    "widths",
]
