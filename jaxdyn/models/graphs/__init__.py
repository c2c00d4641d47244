"""Directed acyclic graphs, validated, and families of them."""

from jaxdyn.models.graphs.drawn import random_masks
from jaxdyn.models.graphs.families import (
    constant,
    densely_connected,
    fixed_mean,
    heavy_tailed,
    layered,
    pruned,
    random_layered,
    small_world,
    uniform,
)
from jaxdyn.models.graphs.graph import Graph, graph
from jaxdyn.models.graphs.masks import Masks, stack
from jaxdyn.models.graphs.wiring import by_density, dense, gathered

__all__ = [
    "Graph",
    "Masks",
    "by_density",
    "constant",
    "dense",
    "densely_connected",
    "fixed_mean",
    "gathered",
    "graph",
    "heavy_tailed",
    "layered",
    "pruned",
    "random_layered",
    "random_masks",
    "small_world",
    "stack",
    "uniform",
]
