"""Finite networks as `Model(init, apply, kernel)`."""

from jaxdyn.models import graphs
from jaxdyn.models.assembly import assembly, distinct, dominated, equal, frozen, gaussian, shared, signs
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.block_dag import block_dag
from jaxdyn.models.conv import conv, convolve, flatten, global_average
from jaxdyn.models.dag import dag, masked_dag
from jaxdyn.models.flax import from_linen, from_nnx
from jaxdyn.models.gain import unit_gain
from jaxdyn.models.mlp import identity, mlp
from jaxdyn.models.scaling import maximal_update, ntk, standard
from jaxdyn.models.solvable import frozen_gates, frozen_gates_on, general_quadratic, pure_quadratic, two_layer_relu, uv
from jaxdyn.models.taylor import exact, linear, quadratic, taylor
from jaxdyn.models.vision import group_norm, layer_norm, vit, wide_resnet
from jaxdyn.models.width import Width, widths

__all__ = [
    "Kernels",
    "Model",
    "Width",
    "assembly",
    "block_dag",
    "conv",
    "convolve",
    "dag",
    "distinct",
    "dominated",
    "equal",
    "exact",
    "flatten",
    "from_linen",
    "from_nnx",
    "frozen",
    "frozen_gates",
    "frozen_gates_on",
    "gaussian",
    "general_quadratic",
    "global_average",
    "graphs",
    "group_norm",
    "identity",
    "layer_norm",
    "linear",
    "masked_dag",
    "maximal_update",
    "mlp",
    "ntk",
    "pure_quadratic",
    "quadratic",
    "shared",
    "signs",
    "standard",
    "taylor",
    "two_layer_relu",
    "unit_gain",
    "uv",
    "vit",
    "wide_resnet",
    "widths",
]
