"""Families of layered graphs: complete, densely connected, random with a law of in-degrees, small worlds, pruned.

All are drawn from an integer seed by a numpy generator and have exactly the layers asked for: every vertex beyond the inputs has a
parent in the layer before, every hidden vertex a child. Unless said otherwise the first hidden layer reads all inputs and the outputs
read all of the last hidden layer.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786 (in-degrees up to a power of m). Huang et al., arXiv 1608.06993 (densely connected). Watts,
    Strogatz, Nature 393 (1998) (small worlds).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdyn.models.graphs.graph import Graph, graph

Law = Callable[[Any], Any]
"""The quantile function of a law of in-degrees: uniform numbers in [0, 1), of numpy or traced by JAX, to whole numbers, elementwise."""


def constant(m: int) -> Law:
    """In-degree m for all.

    Example:
        >>> constant(3)(np.array([0.2, 0.9])).tolist()
        [3, 3]
    """
    _positive(m)
    return lambda u: u.__array_namespace__().full(u.shape, m)


def uniform(m: int, *, factor: float | int = 3.0) -> Law:
    """In-degrees uniform on the whole numbers from m to factor · m.

    Args:
        m: the smallest.
        factor: how many times as large the largest is, at least 1.

    Example:
        >>> uniform(2)(np.array([0.0, 0.5, 0.99])).tolist()
        [2, 4, 6]
    """
    _positive(m)
    _at_least_one(factor, "factor")
    most = int(np.floor(factor * m))

    def law(u: Any) -> Any:
        xp = u.__array_namespace__()
        return xp.minimum(xp.floor(m + u * (most + 1 - m)), most).astype(int)

    return law


def heavy_tailed(m: int, *, power: float | int, tail: float | int = 1.0) -> Law:
    """In-degrees with P(in ≥ s) ≈ (m / s)^tail from m up to m^power, a Pareto law cut off there.

    Args:
        m: the smallest.
        power: c, at least 1; the theory allows any.
        tail: its exponent, positive; below 1 a few vertices have most of the edges.
    """
    _positive(m)
    _at_least_one(power, "power")
    if tail <= 0:
        raise ValueError(f"`tail` must be positive, but is {tail}.")
    high = float(m) ** power + 1
    lost = (m / high) ** tail  # of the probability, beyond the cut

    def law(u: Any) -> Any:
        xp = u.__array_namespace__()
        chance = 1 - u * (1 - lost)
        return xp.minimum(xp.floor(m * chance ** (-1 / tail)), float(np.floor(high - 1))).astype(int)

    return law


def fixed_mean(m: int, *, mean: float | int, most: int) -> Law:
    """In-degrees s from m to `most` with chances ∝ s^(-tail), the tail such that their mean is as given: a fixed budget of edges.

    Args:
        m: the smallest.
        mean: from m to most; at m itself all are equal.
        most: the largest.

    Raises:
        ValueError: for a mean out of reach.
    """
    if not _positive(m) <= mean < most:
        raise ValueError(f"The mean of in-degrees from {m} to {most} is not {mean}.")
    if m == mean:
        return constant(m)
    degrees = np.arange(m, most + 1)

    def chances(tail: float) -> np.ndarray:
        logs = -tail * np.log(degrees)
        found: np.ndarray = np.exp(logs - logs.max())
        return found / found.sum()

    below, above = -50.0, 50.0
    for _ in range(80):
        middle = (below + above) / 2
        below, above = (middle, above) if chances(middle) @ degrees > mean else (below, middle)
    below_or_at = np.cumsum(chances(above))[:-1]  # the last is 1 but for rounding

    def law(u: Any) -> Any:
        xp = u.__array_namespace__()
        return m + xp.searchsorted(xp.asarray(below_or_at, dtype=u.dtype), u, side="right")

    return law


def layered(sizes: Sequence[int]) -> Graph:
    """The complete layered graph: every vertex reads all of the layer before, as in a fully connected network.

    Args:
        sizes: vertices of the layers, inputs and outputs included.

    Example:
        >>> layered((3, 4, 1)).num_edges
        16
    """
    check_sizes(sizes)
    return _from_masks(sizes, [np.ones((size, before), bool) for before, size in itertools.pairwise(sizes)], reach=1)


def densely_connected(sizes: Sequence[int]) -> Graph:
    """Every vertex beyond the first hidden layer reads all earlier hidden layers; outputs too.

    Args:
        sizes: vertices of the layers, inputs and outputs included.

    Example:
        >>> densely_connected((3, 4, 5, 1)).in_degrees.tolist()[-1]
        9
    """
    check_sizes(sizes)
    masks = [np.ones((sizes[layer], _available(sizes, layer, None)), bool) for layer in range(1, len(sizes))]
    return _from_masks(sizes, masks, reach=None)


def random_layered(sizes: Sequence[int], *, law: Law, seed: int, reach: int | None = None) -> Graph:
    """A random graph with a law of in-degrees. Parents are drawn without replacement from earlier hidden layers.

    Where a vertex would have no parent in the layer before, one of its parents is replaced; where a hidden vertex would have no child,
    a random vertex of the next layer gets one parent more.

    Args:
        sizes: vertices of the layers, inputs and outputs included.
        law: of the in-degrees from the second hidden layer on: `constant`, `uniform`, `heavy_tailed`, `fixed_mean` or your own.
        seed: of the numpy generator.
        reach: how many layers back parents may be; all earlier hidden layers when None.

    Raises:
        ValueError: for sizes that cannot be, or an in-degree larger than the number of possible parents.

    Example:
        >>> found = random_layered((3, 8, 8, 1), law=constant(4), seed=0)
        >>> found.sizes, found.min_in_degree
        ((3, 8, 8, 1), 4)
    """
    check_sizes(sizes)
    check_reach(reach)
    generator = np.random.default_rng(seed)
    masks = []
    for layer in range(1, len(sizes)):
        size, available = sizes[layer], _available(sizes, layer, reach)
        if layer in (1, len(sizes) - 1):
            mask = np.zeros((size, available), bool)
            mask[:, available - sizes[layer - 1] :] = True
        else:
            degrees = law(generator.random(size))
            check_degrees(degrees, layer, available)
            mask = _lowest(generator.random((size, available)), degrees)
            _touch(generator, mask, sizes[layer - 1])
        masks.append(mask)
    _connect(generator, masks, sizes, reach)
    return _from_masks(sizes, masks, reach)


def small_world(sizes: Sequence[int], *, neighbours: int, rewire: float | int, seed: int) -> Graph:
    """Layers as rings: a vertex reads the nearest of the layer before, and each edge is rewired to a random one with some probability.

    Args:
        sizes: vertices of the layers, inputs and outputs included.
        neighbours: in-degree from the second hidden layer on.
        rewire: probability, from 0 (a lattice) to 1 (random).
        seed: of the numpy generator.

    Raises:
        ValueError: for more neighbours than vertices, or a probability outside [0, 1].

    Example:
        >>> small_world((2, 6, 6, 1), neighbours=2, rewire=0.1, seed=0).min_in_degree
        2
    """
    check_sizes(sizes)
    if not 0 <= rewire <= 1:
        raise ValueError(f"`rewire` is a probability, but is {rewire}.")
    generator = np.random.default_rng(seed)
    masks = []
    for layer, (before, size) in enumerate(itertools.pairwise(sizes), start=1):
        if layer in (1, len(sizes) - 1):
            masks.append(np.ones((size, before), bool))
            continue
        if not 1 <= neighbours <= before:
            raise ValueError(
                f"`neighbours` is from 1 to the {before} vertices of layer {layer - 1}, but is {neighbours}."
            )
        centre = np.arange(size) * before // size
        near = (centre[:, None] + np.arange(neighbours)[None, :] - neighbours // 2) % before
        priority = generator.random((size, before))  # of the random ends, in [0, 1)
        is_kept = generator.random((size, neighbours)) >= rewire
        np.put_along_axis(priority, near, np.where(is_kept, -1.0, 2.0), axis=1)  # rewired ends come back last
        masks.append(_lowest(priority, np.full(size, neighbours)))
    _connect(generator, masks, sizes, 1)
    return _from_masks(sizes, masks, reach=1)


def pruned(whole: Graph, *, keep: float | int, seed: int) -> Graph:
    """A random part of the edges of a graph, with the same vertices and layers.

    One edge from the layer before is kept for every vertex, and one to some vertex for every vertex that has any. In `models.dag` the
    weights that remain are those of the whole.

    Args:
        whole: the graph, such as `layered(sizes)`.
        keep: probability with which an edge stays, in (0, 1].
        seed: of the numpy generator.

    Raises:
        ValueError: for a probability outside (0, 1].

    Example:
        >>> pruned(layered((3, 20, 20, 1)), keep=0.2, seed=0).sizes
        (3, 20, 20, 1)
    """
    if not 0 < keep <= 1:
        raise ValueError(f"`keep` is a probability above 0, but is {keep}.")
    generator = np.random.default_rng(seed)
    is_kept = generator.random(whole.num_edges) < keep
    shuffled = generator.permutation(whole.num_edges)
    is_next = whole.layers[whole.sources[shuffled]] == whole.layers[whole.targets[shuffled]] - 1
    near = shuffled[is_next]
    is_kept[near[np.unique(whole.targets[near], return_index=True)[1]]] = True
    is_kept[shuffled[np.unique(whole.sources[shuffled], return_index=True)[1]]] = True
    edges = (whole.sources[is_kept], whole.targets[is_kept])
    return graph(edges, inputs=whole.inputs.tolist(), outputs=whole.outputs.tolist()).renamed(whole.names)


def check_reach(reach: int | None) -> None:
    """Refuse what is no number of layers."""
    if reach is not None and reach < 1:
        raise ValueError(f"`reach` is at least 1, or None for all earlier hidden layers, but is {reach}.")


def _available(sizes: Sequence[int], layer: int, reach: int | None) -> int:
    """Number of possible parents: of the hidden layers within reach, or the inputs for the first layer."""
    return sum(sizes[first_read(layer, reach) : layer])


def first_read(layer: int, reach: int | None) -> int:
    """The first layer that a layer may read; inputs are read by the first layer only."""
    return 0 if layer == 1 else 1 if reach is None else max(1, layer - reach)


def check_degrees(degrees: np.ndarray, layer: int, available: int) -> None:
    """Refuse in-degrees that no vertex of a layer can have."""
    if degrees.min() < 1 or degrees.max() > available:
        raise ValueError(
            f"In-degrees of layer {layer} are from {degrees.min()} to {degrees.max()}, but a vertex there can have 1 to "
            f"{available} parents; enlarge the layers before, or lower the law."
        )


def _lowest(priority: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The entries of each row with the lowest priorities, as booleans."""
    mask = np.zeros(priority.shape, bool)
    is_low = np.arange(priority.shape[1])[None, :] < counts[:, None]
    np.put_along_axis(mask, np.argsort(priority, axis=1), is_low, axis=1)
    return mask


def _touch(generator: np.random.Generator, mask: np.ndarray, before: int) -> None:
    """Give every row a parent among the last `before` columns, in exchange for another."""
    for row in np.flatnonzero(~mask[:, -before:].any(axis=1)):
        mask[row, generator.choice(np.flatnonzero(mask[row]))] = False
        mask[row, mask.shape[1] - before + generator.integers(before)] = True


def _connect(generator: np.random.Generator, masks: list[np.ndarray], sizes: Sequence[int], reach: int | None) -> None:
    """Give every hidden vertex a child in the next layer where it has none at all."""
    has_child = [np.zeros(size, bool) for size in sizes]
    for layer, mask in enumerate(masks, start=1):
        column = 0
        for earlier in range(first_read(layer, reach), layer):
            has_child[earlier] |= mask[:, column : column + sizes[earlier]].any(axis=0)
            column += sizes[earlier]
    for layer in range(1, len(sizes) - 1):
        offset = masks[layer].shape[1] - sizes[layer]
        for vertex in np.flatnonzero(~has_child[layer]):
            masks[layer][generator.integers(sizes[layer + 1]), offset + vertex] = True


def _from_masks(sizes: Sequence[int], masks: Sequence[np.ndarray], reach: int | None) -> Graph:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    sources, targets = [], []
    for layer, mask in enumerate(masks, start=1):
        rows, columns = np.nonzero(mask)
        sources.append(starts[first_read(layer, reach)] + columns)
        targets.append(starts[layer] + rows)
    return graph((np.concatenate(sources), np.concatenate(targets)))


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse what are no numbers of vertices of layers."""
    if len(sizes) < 3 or any(isinstance(size, bool) or not hasattr(size, "__index__") or size < 1 for size in sizes):
        raise ValueError(
            f"`sizes` are the numbers of vertices of at least three layers, inputs and outputs included, but are {tuple(sizes)}."
        )


def _positive(m: int) -> int:
    if m < 1:
        raise ValueError(f"`m` is a number of parents, at least 1, but is {m}.")
    return m


def _at_least_one(number: float | int, name: str) -> None:
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1, but is {number}.")
