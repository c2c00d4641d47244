"""The local geometry of f at (params, x): plain functions, no time, no recording."""

from jaxdyn.geometry import alignment, ball, hessian, multilinear, operators, spectrum, subspace
from jaxdyn.geometry.agop import agop, agop_factor, layer_agop, neural_feature_matrix
from jaxdyn.geometry.alignment import cosine, factor_cosine, matrix_power, pearson
from jaxdyn.geometry.blocks import as_matrix
from jaxdyn.geometry.hessian import (
    HessianNorms,
    Supremum,
    function_hessian_norm,
    function_hessian_spectra,
    function_hessian_supremum,
    sharpness,
)
from jaxdyn.geometry.kernel import ntk, ntk_blocks, ntk_plan
from jaxdyn.geometry.kernel.independence import check as check_examples
from jaxdyn.geometry.operators import Operator
from jaxdyn.geometry.spectrum import Density, Spectrum
from jaxdyn.geometry.subspace import Parts, kernel_norm, project, subspace_loss

__all__ = [
    "Density",
    "HessianNorms",
    "Operator",
    "Parts",
    "Spectrum",
    "Supremum",
    "agop",
    "agop_factor",
    "alignment",
    "as_matrix",
    "ball",
    "check_examples",
    "cosine",
    "factor_cosine",
    "function_hessian_norm",
    "function_hessian_spectra",
    "function_hessian_supremum",
    "hessian",
    "kernel_norm",
    "layer_agop",
    "matrix_power",
    "multilinear",
    "neural_feature_matrix",
    "ntk",
    "ntk_blocks",
    "ntk_plan",
    "operators",
    "pearson",
    "project",
    "sharpness",
    "spectrum",
    "subspace",
    "subspace_loss",
]
