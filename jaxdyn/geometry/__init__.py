from jaxdyn.geometry.blocks import as_matrix
from jaxdyn.geometry.ntk import ntk, ntk_blocks, ntk_plan  # temporary
