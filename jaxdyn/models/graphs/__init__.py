"""Directed acyclic graphs, validated, and families of them."""

from jaxdyn.models.graphs.graph import Graph, graph
from jaxdyn.models.graphs.masks import Masks, stack
from jaxdyn.models.graphs.wiring import by_density, dense, gathered

__all__ = ["Graph", "Masks", "by_density", "dense", "gathered", "graph", "stack"]
