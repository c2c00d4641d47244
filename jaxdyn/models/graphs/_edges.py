"""Edges as two arrays of vertex numbers, from whatever they come in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Edges(NamedTuple):
    """Edges between the vertices 0 … num_vertices - 1.

    Attributes:
        num_vertices: v.
        sources: [e].
        targets: [e].
        names: of the vertices, or None.
    """

    num_vertices: int
    sources: np.ndarray
    targets: np.ndarray
    names: tuple[Any, ...] | None


def read(edges: Any, names: Sequence[Any] | None) -> Edges:
    """The edges of an edge list, a sparse matrix or a networkx graph.

    Raises:
        ValueError: for what is none of them, repeated names, or numbers that are no vertices.
    """
    if hasattr(edges, "tocsr"):
        found = _from_matrix(edges)
    elif hasattr(edges, "is_directed") and hasattr(edges, "nodes"):
        found = _from_networkx(edges)
    else:
        found = _from_pairs(edges)
    if names is None:
        return found
    labels = tuple(names)
    if found.names is not None:
        raise ValueError("The vertices have names already, since the edges use them; drop `names=`.")
    if len(set(labels)) < len(labels):
        repeated = sorted({str(name) for name in labels if labels.count(name) > 1})
        raise ValueError(f"Names are distinct, but these are not: {', '.join(repeated)}.")
    if found.num_vertices > len(labels):
        raise ValueError(f"There are {len(labels)} names, but the edges use vertex {found.num_vertices - 1}.")
    return found._replace(num_vertices=len(labels), names=labels)


def _from_matrix(matrix: Any) -> Edges:
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"An adjacency matrix is square, but this one has shape {tuple(matrix.shape)}.")
    found = matrix.tocsr().tocoo()  # entries given several times are summed there
    is_edge = found.data != 0
    return Edges(matrix.shape[0], found.row[is_edge].astype(np.int64), found.col[is_edge].astype(np.int64), None)


def _from_networkx(graph: Any) -> Edges:
    if not graph.is_directed():
        raise ValueError("The edges of a network have a direction, but this networkx graph has none; use a `DiGraph`.")
    names = tuple(graph.nodes)
    number = {name: i for i, name in enumerate(names)}
    pairs = np.fromiter((number[end] for edge in graph.edges() for end in edge[:2]), np.int64).reshape(-1, 2)
    return Edges(len(names), pairs[:, 0], pairs[:, 1], names)


def _from_pairs(edges: Any) -> Edges:
    try:
        sources, targets = (np.asarray(ends) for ends in edges)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Edges are `(sources, targets)`, a scipy.sparse matrix or a networkx.DiGraph, but got a "
            f"{type(edges).__name__}. From pairs: `zip(*pairs)`."
        ) from error
    if sources.ndim != 1 or sources.shape != targets.shape or not sources.size:
        raise ValueError(
            f"`sources` and `targets` are two sequences of one length, at least 1, but have the shapes {sources.shape} and "
            f"{targets.shape}."
        )
    ends = np.concatenate([sources, targets])
    if ends.dtype.kind in "iu":
        if ends.min() < 0:
            raise ValueError(f"Vertices are numbered from 0, but an edge uses {ends.min()}.")
        return Edges(int(ends.max()) + 1, sources.astype(np.int64), targets.astype(np.int64), None)
    if ends.dtype.kind not in "US":
        raise ValueError(f"Vertices are whole numbers or strings, but the edges hold {ends.dtype}.")
    values, first, number = np.unique(ends, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    rank = np.argsort(by_appearance)[number]
    names = tuple(str(value) for value in values[by_appearance])
    return Edges(len(names), rank[: sources.size], rank[sources.size :], names)
