"""The local geometry of f at (params, x): plain functions, no time, no recording."""

from jaxdyn.geometry.blocks import as_matrix
from jaxdyn.geometry.ntk import ntk, ntk_blocks, ntk_plan

__all__ = ["as_matrix", "ntk", "ntk_blocks", "ntk_plan"]
