r"""Networks on any directed acyclic graph. Vertices are neurons.

    f_v = g σ_v(f̃_v),    f̃_v = in(v)^(-1/2) Σ_{u → v} w_uv f_u,    w_uv ~ N(0, 1)

with the identity at inputs and outputs, no biases, and g = 1 unless `gain` is given: the NTK scaling of the paper. What a weight is at
the start depends on the seed and on the places of its two vertices in their layers alone: not on the way of execution, and not on the
other edges. So pruning leaves the remaining weights as they are, and a narrow graph that is part of a wide one has its weights.

`dag` takes a `Graph` and has one parameter for each edge. `masked_dag` takes `Masks`, whose arrays may be traced: random graphs of one
shape share a compilation and are vmapped, for the price of dense products.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, section 2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Model
from jaxdyn.models.gain import check_gain, with_gain
from jaxdyn.models.graphs.graph import Graph, graph
from jaxdyn.models.graphs.masks import Masks
from jaxdyn.models.graphs.wiring import Product, Wiring, by_density
from jaxdyn.models.mlp import Activation, identity

Activations = Activation | Mapping[Any, Activation] | Sequence[Activation]
"""One σ for all vertices, or one for each: by number or name, or a sequence over all vertices."""


def dag(
    edges: Any,
    *,
    activation: Activations,
    gain: Any = 1.0,
    outputs: Sequence[Any] | None = None,
    product: Product = by_density,
) -> Model:
    """A network on a directed acyclic graph.

    Args:
        edges: a `Graph`, or what `models.graphs.graph` makes one of: `(sources, targets)`, a scipy.sparse matrix, a networkx.DiGraph.
        activation: elementwise σ of the vertices that are neither input nor output; a mapping `{vertex: σ}`, or a sequence over all
            vertices, gives each its own (entries at inputs and outputs are not used).
        gain: g, f_v = g σ_v at all vertices that have an activation: a number, or `models.unit_gain(activation)`, √2 for ReLU.
        outputs: the outputs in the order of the columns of f, all vertices without successor; by number when None. For the
            pre-activations of other vertices use `graph.up_to(vertices)`.
        product: how a layer is executed: `graphs.by_density`, or `graphs.dense` or `graphs.gathered` for all layers.

    Returns:
        A `Model`. Parameters are `{"layer_1": {"weight": [e_1]}, …}`, one number for each edge into that layer in the order of
        `graph.sources`, `graph.targets`. Inputs [n, *d] are flattened; their columns are the inputs of the graph in order.

    Raises:
        ValueError: for an invalid graph, naming the vertices, a vertex without activation, or a gain that is not positive.

    Example:
        >>> model = dag((["x", "x", "a", "b"], ["a", "b", "y", "y"]), activation=jnp.tanh)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((5, 1))).shape
        (5, 1)
    """
    check_gain(gain)
    network = graph(edges, outputs=outputs) if outputs is not None or not isinstance(edges, Graph) else edges
    stages = _stages(network, _per_vertex(network, activation, gain))
    layer_of, place_of = network.layers, network.places
    finals = _finals(network, place_of)

    def init(key: Any) -> Params:
        return {
            f"layer_{number}": {
                "weight": _draw(key, number, place_of[stage.targets], layer_of[stage.sources], place_of[stage.sources])
            }
            for number, stage in enumerate(stages, start=1)
        }

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        values = [_flat(x, len(network.inputs))]
        for number, stage in enumerate(stages, start=1):
            read = [values[layer] for layer in stage.reads]
            h = jnp.concatenate(read, axis=1) if len(read) > 1 else read[0]
            z = product(stage.wiring, params[f"layer_{number}"]["weight"], h)
            values.append(_activate(stage.activations, z * jnp.asarray(stage.scale, z.dtype)[None, :]))
        if len(finals) == 1 and finals[0].is_whole:
            return values[finals[0].layer]
        columns = jnp.concatenate([values[final.layer][:, final.places] for final in finals], axis=1)
        return columns[:, np.argsort(np.concatenate([final.ranks for final in finals]))]

    return Model(init, apply)


def masked_dag(masks: Masks, *, activation: Activation | Sequence[Activation], gain: Any = 1.0) -> Model:
    """A network on a graph whose edges are arrays, possibly traced.

    The outputs are the last layer. A vertex of a later layer without any edge is σ(0).

    Args:
        masks: which edges there are.
        activation: elementwise σ of the hidden layers, or one for each hidden layer.
        gain: g, as in `dag`.

    Returns:
        A `Model`. Parameters are `{"layer_1": {"weight": [sources, targets]}, …}` with zeros, initially and forever under gradient
        descent, where there is no edge. Edges have the initial weights that `dag` gives them.

    Raises:
        ValueError: for another number of activations than hidden layers, or a gain that is not positive.

    Example:
        >>> masks = Masks.of(graph(([0, 0, 1, 2], [1, 2, 3, 3])))
        >>> model = masked_dag(masks, activation=jnp.tanh)
        >>> model.apply(model.init(jax.random.key(0)), jnp.ones((5, 1))).shape
        (5, 1)
    """
    check_gain(gain)
    num_hidden = len(masks.sizes) - 2
    activations = [activation] * num_hidden if callable(activation) else list(activation)
    if len(activations) != num_hidden:
        raise ValueError(f"There are {num_hidden} hidden layers, but {len(activations)} activations.")
    activations = [*(with_gain(one, gain) for one in activations), identity]

    def init(key: Any) -> Params:
        params = {}
        for number, (reads, mask) in enumerate(zip(masks.reads, masks.masks, strict=True), start=1):
            source_layers = np.concatenate([np.full(masks.sizes[layer], layer) for layer in reads])
            source_places = np.concatenate([np.arange(masks.sizes[layer]) for layer in reads])
            cells = _draw_cells(key, number, masks.sizes[number], source_layers, source_places)
            params[f"layer_{number}"] = {"weight": cells * jnp.asarray(mask, cells.dtype)}
        return params

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        values = [_flat(x, masks.sizes[0])]
        for number, (reads, mask) in enumerate(zip(masks.reads, masks.masks, strict=True), start=1):
            h = jnp.concatenate([values[layer] for layer in reads], axis=1)
            live = jnp.asarray(mask, h.dtype)
            degree = jnp.sum(live, axis=0)
            scale = jnp.where(degree > 0, jax.lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
            z = (h @ (params[f"layer_{number}"]["weight"] * live)) * scale[None, :]
            values.append(activations[number - 1](z))
        return values[-1]

    return Model(init, apply)


class _Stage(NamedTuple):
    """What a layer needs.

    Attributes:
        reads: the layers it reads, side by side.
        wiring: its edges.
        scale: in(v)^(-1/2) of its vertices.
        activations: groups of places with one σ each.
        sources: the source of each edge.
        targets: its target.
    """

    reads: tuple[int, ...]
    wiring: Wiring
    scale: np.ndarray
    activations: tuple[tuple[Activation, np.ndarray], ...]
    sources: np.ndarray
    targets: np.ndarray


class _Final(NamedTuple):
    """The outputs of one layer: their places in it, their columns in f, and whether they are the whole layer in order."""

    layer: int
    places: np.ndarray
    ranks: np.ndarray
    is_whole: bool


def _stages(network: Graph, activations: list[Activation]) -> list[_Stage]:
    sizes, order, places = network.sizes, network.order, network.places
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    edge_bounds = np.searchsorted(network.layers[network.targets], np.arange(len(sizes) + 1))
    stages = []
    for layer in range(1, len(sizes)):
        stretch = slice(edge_bounds[layer], edge_bounds[layer + 1])
        sources, targets = network.sources[stretch], network.targets[stretch]
        source_layers = network.layers[sources]
        reads = np.unique(source_layers)
        offsets = np.zeros(len(sizes), np.int64)
        offsets[reads] = np.concatenate([[0], np.cumsum(np.asarray(sizes)[reads])[:-1]])
        columns = offsets[source_layers] + places[sources]
        num_columns = int(np.asarray(sizes)[reads].sum())
        wiring = Wiring(places[targets].astype(np.int32), columns.astype(np.int32), sizes[layer], num_columns)
        members = order[bounds[layer] : bounds[layer + 1]]
        scale = 1 / np.sqrt(network.in_degrees[members])
        groups = _groups([activations[vertex] for vertex in members])
        stages.append(_Stage(tuple(reads.tolist()), wiring, scale, groups, sources, targets))
    return stages


def _finals(network: Graph, places: np.ndarray) -> list[_Final]:
    layers = network.layers[network.outputs]
    found = []
    for layer in np.unique(layers):
        ranks = np.flatnonzero(layers == layer)
        own = places[network.outputs[ranks]]
        is_whole = np.array_equal(own, np.arange(network.sizes[layer]))
        found.append(_Final(int(layer), own, ranks, is_whole))
    return found


def _per_vertex(network: Graph, activation: Activations, gain: Any) -> list[Activation]:
    """The gain times σ of each vertex, the identity at inputs and outputs."""
    scaled: dict[int, Activation] = {}

    def own(function: Activation) -> Activation:
        return scaled.setdefault(id(function), with_gain(function, gain))

    linear = set(network.inputs.tolist()) | set(network.outputs.tolist())
    vertices = range(network.num_vertices)
    if isinstance(activation, Mapping):
        given = dict(zip(network.index(list(activation)).tolist(), activation.values(), strict=True))
        missing = [network.name(vertex) for vertex in vertices if vertex not in linear and vertex not in given]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(f"`activation` has no entry for {', '.join(map(repr, missing[:5]))}{more}.")
        return [identity if vertex in linear else own(given[vertex]) for vertex in vertices]
    if callable(activation):
        return [identity if vertex in linear else own(activation) for vertex in vertices]
    if len(activation) != network.num_vertices:
        raise ValueError(
            f"`activation` is one function, a mapping, or a sequence over all {network.num_vertices} vertices, but has "
            f"{len(activation)} entries."
        )
    return [identity if vertex in linear else own(activation[vertex]) for vertex in vertices]


def _groups(activations: list[Activation]) -> tuple[tuple[Activation, np.ndarray], ...]:
    """Equal functions together, with their places."""
    found: dict[int, tuple[Activation, list[int]]] = {}
    for place, function in enumerate(activations):
        found.setdefault(id(function), (function, []))[1].append(place)
    return tuple((function, np.asarray(places)) for function, places in found.values())


def _activate(groups: tuple[tuple[Activation, np.ndarray], ...], z: Any) -> Any:
    if len(groups) == 1:
        return groups[0][0](z)
    parts = [function(z[:, places]) for function, places in groups]
    return jnp.concatenate(parts, axis=1)[:, np.argsort(np.concatenate([places for _, places in groups]))]


def _flat(x: Any, num_inputs: int) -> Any:
    h = x.reshape(x.shape[0], -1)
    if h.shape[1] != num_inputs:
        raise ValueError(
            f"This graph has {num_inputs} inputs, but x has shape {tuple(x.shape)}, i.e. dimension {h.shape[1]}; every input is one "
            "column of x."
        )
    return h


def _draw(key: Any, layer: int, places: Any, source_layers: Any, source_places: Any) -> Float[Array, " e"]:
    """Standard normal weights of edges, each from the key of its two ends."""
    own = jax.random.fold_in(key, layer)

    def one(place: Any, source_layer: Any, source_place: Any) -> Any:
        return _weight(jax.random.fold_in(own, place), source_layer, source_place)

    return jax.vmap(one)(*(jnp.asarray(part, jnp.uint32) for part in (places, source_layers, source_places)))


def _draw_cells(key: Any, layer: int, size: int, source_layers: Any, source_places: Any) -> Float[Array, "s t"]:
    """The same for all edges that there could be, [sources, targets]."""
    own = jax.random.fold_in(key, layer)
    sources = [jnp.asarray(part, jnp.uint32) for part in (source_layers, source_places)]

    def column(place: Any) -> Any:
        target: Callable[..., Any] = lambda a, b: _weight(jax.random.fold_in(own, place), a, b)  # noqa: E731
        return jax.vmap(target)(*sources)

    return jax.vmap(column, out_axes=1)(jnp.arange(size, dtype=jnp.uint32))


def _weight(target_key: Any, source_layer: Any, source_place: Any) -> Any:
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(target_key, source_layer), source_place), ())
