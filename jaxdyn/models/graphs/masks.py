"""The edges of a layered graph as arrays of zeros and ones, which may be traced.

A mask for each layer says which edges from the layers it reads are there. The numbers of vertices and the layers read are static: graphs
that share them share a compilation, and are vmapped once they are stacked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxdyn.models.graphs.graph import Graph


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Masks:
    """Which edges there are.

    Attributes:
        sizes: number of vertices of the layers 0 … L; layer 0 are the inputs, layer L the outputs (static).
        reads: for each layer from 1 on, the earlier layers it reads, in order (static).
        masks: for each layer from 1 on, booleans [sources, targets], sources as in `reads`, side by side.
    """

    sizes: tuple[int, ...] = field(metadata={"static": True})
    reads: tuple[tuple[int, ...], ...] = field(metadata={"static": True})
    masks: tuple[Any, ...]

    @staticmethod
    def of(graph: Graph, *, reads: Sequence[Sequence[int]] | None = None) -> "Masks":
        """The masks of a graph whose outputs are its last layer.

        Args:
            graph: the graph.
            reads: the layers that each layer may read; those that it does when None.

        Raises:
            ValueError: for outputs that are not the whole last layer in order, or edges from a layer that is not in `reads`.

        Example:
            >>> from jaxdyn.models.graphs import graph
            >>> Masks.of(graph(([0, 0, 1], [1, 2, 2]))).masks[1].tolist()
            [[True], [True]]
        """
        order, layers, sizes = graph.order, graph.layers, graph.sizes
        last = order[len(order) - sizes[-1] :]
        if not np.array_equal(last, graph.outputs):
            early = [graph.name(int(vertex)) for vertex in graph.outputs if layers[vertex] < graph.depth]
            raise ValueError(
                "Masks need the outputs to be the last layer, in order, but "
                + (f"{early[:5]} are outputs of earlier layers." if early else "they are listed in another order.")
            )
        wanted = reads_of([graph]) if reads is None else tuple(tuple(sorted(row)) for row in reads)
        place, into = graph.places, layers[graph.targets]
        masks = []
        for layer in range(1, len(sizes)):
            is_here = into == layer
            sources, targets = graph.sources[is_here], graph.targets[is_here]
            missing = np.setdiff1d(layers[sources], wanted[layer - 1])
            if missing.size:
                raise ValueError(f"Layer {layer} reads layer {missing[0]}, which `reads` does not list.")
            offset = np.zeros(len(sizes), np.int64)
            row = list(wanted[layer - 1])
            offset[row] = np.concatenate([[0], np.cumsum([sizes[i] for i in row])[:-1]])
            mask = np.zeros((sum(sizes[i] for i in row), sizes[layer]), bool)
            mask[offset[layers[sources]] + place[sources], place[targets]] = True
            masks.append(mask)
        return Masks(sizes, wanted, tuple(masks))


def stack(graphs: Sequence[Graph]) -> Masks:
    """Several graphs of one shape with a leading axis on their masks, to be vmapped: `jax.vmap(f)(stack(graphs))`.

    Inside a sweep, close over them and pick one: `jax.tree.map(lambda mask: mask[seed], masks)`. A store of such a sweep cannot grow by
    seeds, since the arrays are other ones then; draw the masks inside with `random_masks`.

    Raises:
        ValueError: for graphs with different numbers of vertices in their layers.

    Example:
        >>> from jaxdyn.models.graphs import graph
        >>> stack([graph(([0, 0, 1], [1, 2, 2])), graph(([0, 1], [1, 2]))]).masks[1].shape
        (2, 2, 1)
    """
    sizes = {graph.sizes for graph in graphs}
    if len(sizes) != 1:
        raise ValueError(f"Graphs of one shape have equal layers, but these have {sorted(sizes)}.")
    reads = reads_of(graphs)
    found = [Masks.of(graph, reads=reads) for graph in graphs]
    return Masks(found[0].sizes, reads, tuple(np.stack(parts) for parts in zip(*(m.masks for m in found), strict=True)))


def reads_of(graphs: Sequence[Graph]) -> tuple[tuple[int, ...], ...]:
    """For each layer from 1 on, the layers that it reads in one graph or another."""
    depth = graphs[0].depth
    pairs = np.unique(np.concatenate([g.layers[g.targets] * (depth + 1) + g.layers[g.sources] for g in graphs]))
    return tuple(tuple((pairs[pairs // (depth + 1) == layer] % (depth + 1)).tolist()) for layer in range(1, depth + 1))
