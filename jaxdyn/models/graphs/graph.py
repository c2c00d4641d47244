"""A directed acyclic graph of neurons: layers, in-degrees, and the order in which everything is stored.

Vertices are numbered 0 … v - 1 and may have names. Inputs have no predecessor, outputs no successor. The *layer* of a vertex is the
length of the longest path from an input to it. Edges are kept in the order (layer of the target, target, source), so that the edges
into a layer are one stretch.

The width m in the sense of the theory is the smallest in-degree of the vertices beyond the first layer, `min_in_degree`: "all neurons
except the input and first layers", outputs included, since their fan-in must be large too.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxdyn.models.graphs import _order
from jaxdyn.models.graphs._edges import Edges, read


@dataclass(frozen=True, eq=False)
class Graph:
    """A validated graph; `models.graphs.graph` makes one.

    Attributes:
        num_vertices: v.
        sources: where each edge begins, [e].
        targets: where it ends, [e].
        layers: of each vertex, [v].
        in_degrees: of each vertex, [v].
        inputs: the vertices without predecessor, [d], in the order of the columns of x.
        outputs: the vertices without successor, [k], in the order of the columns of f.
        names: of the vertices, or None.
    """

    num_vertices: int
    sources: np.ndarray
    targets: np.ndarray
    layers: np.ndarray
    in_degrees: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    names: tuple[Any, ...] | None = None

    @property
    def num_edges(self) -> int:
        """Number of edges, which is the number of weights."""
        return len(self.sources)

    @property
    def depth(self) -> int:
        """The layer of the last vertices, L."""
        return int(self.layers.max())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of vertices in the layers 0 … L."""
        return tuple(np.bincount(self.layers).tolist())

    @property
    def order(self) -> np.ndarray:
        """The vertices sorted by layer, [v]; inputs as in `inputs`, the others by number."""
        return _order.order(self.layers, self.inputs)

    @property
    def places(self) -> np.ndarray:
        """The place of each vertex within its layer, [v]."""
        places = np.empty(self.num_vertices, np.int64)
        places[self.order] = np.concatenate([np.arange(size) for size in self.sizes])
        return places

    @property
    def min_in_degree(self) -> int:
        """The smallest in-degree beyond the first layer, m of the theory; of the first layer where there is no other."""
        return int(self._later().min())

    @property
    def mean_in_degree(self) -> float:
        """The mean in-degree over the same vertices."""
        return float(self._later().mean())

    def up_to(self, vertices: Sequence[Any]) -> "Graph":
        """The graph of these vertices, as outputs, and all that they depend on: of their pre-activations.

        Args:
            vertices: numbers or names; none may depend on another.

        Returns:
            A `Graph` whose names are the names, or numbers, that the vertices have here.

        Example:
            >>> chain = graph(([0, 1, 2], [1, 2, 3]))
            >>> chain.up_to([2]).names
            (0, 1, 2)
        """
        kept = _order.ancestors(self.num_vertices, self.sources, self.targets, self.index(vertices))
        labels = self.names or tuple(range(self.num_vertices))
        number = np.cumsum(kept) - 1
        is_kept = kept[self.targets]
        names = tuple(labels[i] for i in np.flatnonzero(kept))
        edges = Edges(int(kept.sum()), number[self.sources[is_kept]], number[self.targets[is_kept]], names)
        inputs = number[self.inputs[kept[self.inputs]]]
        return _build(edges, inputs, number[self.index(vertices)])

    def renamed(self, names: Sequence[Any] | None) -> "Graph":
        """The same graph with other names, or none.

        Raises:
            ValueError: for another number of names than vertices, or repeated ones.
        """
        if names is not None and (len(names) != self.num_vertices or len(set(names)) < len(names)):
            raise ValueError(f"There are {self.num_vertices} vertices, but {len(set(names))} distinct names.")
        return replace(self, names=None if names is None else tuple(names))

    def index(self, vertices: Sequence[Any]) -> np.ndarray:
        """The numbers of vertices given by number or name, [len(vertices)].

        Raises:
            ValueError: for a vertex that is not there.
        """
        return _index(self.num_vertices, self.names, vertices)

    def name(self, vertex: int | np.integer) -> Any:
        """The name of a vertex, or its number where it has none."""
        return vertex if self.names is None else self.names[vertex]

    def _later(self) -> np.ndarray:
        later: np.ndarray = self.in_degrees[self.layers > 1]
        return later if later.size else self.in_degrees[self.layers == 1]


def graph(
    edges: Any,
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    names: Sequence[Any] | None = None,
) -> Graph:
    """A graph from its edges.

    Args:
        edges: `(sources, targets)`, two sequences of vertex numbers or of names; a `scipy.sparse` matrix, whose entry [u, v] ≠ 0 is an
            edge u → v; or a `networkx.DiGraph`, whose nodes become names (mind that it takes seconds and 200 MB a million edges).
        inputs: the vertices without predecessor, in the order of the columns of x; by number when None. Given, they are checked.
        outputs: the vertices without successor, in the order of the columns of f; by number when None. Given, they are checked:
            any other dead end is an error.
        names: of vertices given by number, distinct; there are as many vertices as names.

    Returns:
        A `Graph`.

    Raises:
        ValueError: naming the vertices of a cycle, self-loops, repeated edges or names, isolated vertices, inputs that are missing
            or have predecessors, outputs that are missing or have successors, dead ends.

    Example:
        >>> diamond = graph((["x", "x", "a", "b"], ["a", "b", "y", "y"]))
        >>> diamond.names, diamond.layers.tolist(), diamond.in_degrees.tolist()
        (('x', 'a', 'b', 'y'), [0, 1, 1, 2], [0, 1, 1, 2])
    """
    if isinstance(edges, Graph):
        if names is not None:
            raise ValueError("This graph has its names already; give `names` when it is made.")
        known = Edges(edges.num_vertices, edges.sources, edges.targets, edges.names)
        first = edges.inputs if inputs is None else edges.index(inputs)
        last = edges.outputs if outputs is None else edges.index(outputs)
        return _build(known, first, last)
    known = read(edges, names)

    def numbers(vertices: Sequence[Any] | None) -> np.ndarray | None:
        return None if vertices is None else _index(known.num_vertices, known.names, vertices)

    return _build(known, numbers(inputs), numbers(outputs))


def _build(edges: Edges, inputs: np.ndarray | None, outputs: np.ndarray | None) -> Graph:
    """Layers, checks and the order of the edges."""
    num, sources, targets = edges.num_vertices, edges.sources, edges.targets

    def called(vertices: Any) -> str:
        labels = [repr(edges.names[i]) if edges.names else str(i) for i in np.asarray(vertices)[:5]]
        return ", ".join(labels) + (f" and {len(vertices) - 5} more" if len(vertices) > 5 else "")

    _refuse(sources[sources == targets], "Self-loops make a cycle of one, but there are some at", called)
    in_degrees, out_degrees = (np.bincount(ends, minlength=num) for ends in (targets, sources))
    isolated = np.flatnonzero((in_degrees == 0) & (out_degrees == 0))
    _refuse(isolated, "Isolated vertices take no part in the network; drop or connect", called)
    layers = _order.layers(num, sources, targets, in_degrees)
    if (layers < 0).any():
        cycle = _order.cycle(sources, targets, layers < 0)
        raise ValueError(f"The graph has a cycle: {' → '.join(called([i]) for i in cycle)}; remove one of its edges.")
    inputs = _ends(inputs, in_degrees, "inputs", "predecessor", called)
    outputs = _ends(outputs, out_degrees, "outputs", "successor", called)
    place = np.empty(num, np.int64)
    place[_order.order(layers, inputs)] = np.arange(num)
    by_place = np.argsort(place[targets] * num + place[sources], kind="stable")
    sources, targets = sources[by_place], targets[by_place]
    again = (sources[1:] == sources[:-1]) & (targets[1:] == targets[:-1])
    if again.any():
        pairs = np.flatnonzero(again)
        raise ValueError(
            f"An edge may appear once, but {called([sources[pairs[0]]])} → {called([targets[pairs[0]]])} is there again "
            f"({len(pairs)} repetitions); drop them."
        )
    return Graph(num, sources, targets, layers, in_degrees, inputs, outputs, edges.names)


def _ends(given: np.ndarray | None, degrees: np.ndarray, what: str, neighbour: str, called: Any) -> np.ndarray:
    """Inputs or outputs: those given, if they are exactly the vertices without such a neighbour."""
    found = np.flatnonzero(degrees == 0)
    if given is None:
        return found
    values, counts = np.unique(given, return_counts=True)
    _refuse(values[counts > 1], f"`{what}` repeats", called)
    _refuse(given[degrees[given] > 0], f"The {what} have no {neighbour}, but there is one of", called)
    kind = (
        "add them to the list, or their predecessors to the graph:"
        if what == "inputs"
        else "add them to the list, or use `graph.up_to(outputs)`, which drops them:"
    )
    _refuse(
        np.setdiff1d(found, given), f"Some vertices have no {neighbour} but are missing in `{what}`; {kind}", called
    )
    return given


def _refuse(vertices: np.ndarray, message: str, called: Any) -> None:
    if len(vertices):
        raise ValueError(f"{message} {called(vertices)}.")


def _index(num_vertices: int, names: tuple[Any, ...] | None, vertices: Sequence[Any]) -> np.ndarray:
    where = range(num_vertices) if names is None else {name: i for i, name in enumerate(names)}
    missing = [vertex for vertex in vertices if vertex not in where]
    if missing:
        known = f"0 to {num_vertices - 1}" if names is None else f"{', '.join(map(repr, names[:5]))}, …"
        raise ValueError(f"There is no vertex {missing[0]!r}; the vertices are {known}.")
    return np.asarray([where[vertex] for vertex in vertices], np.int64)
