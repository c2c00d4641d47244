"""Order in a directed graph, a whole frontier of vertices at a time: layers, ancestors, a cycle."""

import numpy as np


def layers(num_vertices: int, sources: np.ndarray, targets: np.ndarray, in_degrees: np.ndarray) -> np.ndarray:
    """The length of the longest path from a vertex without predecessor, [v]; -1 on and behind a cycle.

    Kahn's algorithm in rounds: the vertices all of whose predecessors are done in round l are layer l.
    """
    start, neighbours = _adjacency(num_vertices, sources, targets)
    waiting, found = in_degrees.copy(), np.full(num_vertices, -1, np.int64)
    frontier, layer = np.flatnonzero(in_degrees == 0), 0
    while frontier.size:
        found[frontier] = layer
        reached, counts = np.unique(_neighbours(start, neighbours, frontier), return_counts=True)
        waiting[reached] -= counts
        frontier, layer = reached[waiting[reached] == 0], layer + 1
    return found


def ancestors(num_vertices: int, sources: np.ndarray, targets: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Whether each vertex is one of these, or one that they depend on, [v]."""
    start, neighbours = _adjacency(num_vertices, targets, sources)
    is_found = np.zeros(num_vertices, bool)
    frontier = np.unique(of)
    while frontier.size:
        is_found[frontier] = True
        reached = np.unique(_neighbours(start, neighbours, frontier))
        frontier = reached[~is_found[reached]]
    return is_found


def order(layers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The vertices by layer, then by number; those of layer 0 as given."""
    by_layer = np.argsort(layers, kind="stable")
    return np.concatenate([inputs, by_layer[len(inputs) :]])


def cycle(sources: np.ndarray, targets: np.ndarray, is_left: np.ndarray) -> list[int]:
    """The vertices of one cycle among those left over by `layers`, the first one repeated at the end."""
    inside = is_left[sources] & is_left[targets]
    ends, first = np.unique(targets[inside], return_index=True)
    before = dict(zip(ends.tolist(), sources[inside][first].tolist(), strict=True))
    seen: dict[int, int] = {}
    path: list[int] = []
    vertex = next(iter(before))
    while vertex not in seen:  # every vertex left over has a predecessor that is left over
        seen[vertex] = len(path)
        path.append(vertex)
        vertex = before[vertex]
    return [*path[seen[vertex] :], vertex][::-1]


def _adjacency(num_vertices: int, sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the successors of each vertex start, [v + 1], and all of them, [e]."""
    start = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=num_vertices))])
    return start, targets[np.argsort(sources, kind="stable")]


def _neighbours(start: np.ndarray, neighbours: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """The successors of all these vertices, repetitions included."""
    counts = start[vertices + 1] - start[vertices]
    first = np.repeat(start[vertices] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return neighbours[first + np.arange(counts.sum())]
