"""Is a network on a graph as fast as the better of what one would write by hand, whatever its density?

Three layers with 100 000 edges in all, 128 examples, value and gradient, at 100, 10 and 1 % density. The rivals do the same calculation:

* `dense`: products with masked weight matrices, `h @ (W * mask)`,
* `gather`: `segment_sum(h[:, sources] * w, targets)`, with examples first or last, whichever is the faster,
* `scipy`: products with `scipy.sparse` matrices in compressed rows, and their transposes on the way back. It cannot be compiled, mapped
  or put on an accelerator, and is reported beside.

Each rival alternates with ours alone: whoever follows a slow rival finds its caches emptied. The number quoted is time(ours) / time(the
better of dense and gather); the aim is at most 1.2.
"""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxdyn as jd
from benchmarks import harness

DENSITIES = (1.0, 0.1, 0.01)


def main(quick: bool = False, path: Path | None = None) -> None:
    """Run, print, write."""
    edges, n, rounds = (600, 4, 2) if quick else (100_000, 128, 21)
    rows = [_one(density, edges, n, rounds) for density in (DENSITIES[:2] if quick else DENSITIES)]
    table = Table(title=f"Networks on graphs: {edges} edges, {n} examples, value and gradient, milliseconds")
    for column in ("density", "ours", "dense", "gather first", "gather last", "scipy", "ours / better"):
        table.add_column(column, justify="right")
    for row in rows:
        times = [
            1e3 * row["times"][name]["median"] for name in ("ours", "dense", "gather_first", "gather_last", "scipy")
        ]
        table.add_row(f"{row['density']:g}", *(f"{time:.2f}" for time in times), f"{row['ours_over_better']:.2f}")
    Console().print(table)
    print(harness.write("dag", rows, path, load_average=os.getloadavg()))


def _one(density: float, num_edges: int, n: int, rounds: int) -> dict[str, Any]:
    size = round((num_edges / 3 / density) ** 0.5)
    graph = _graph(size, density)
    model = jd.models.dag(graph, activation=jnp.tanh)
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (n, size))
    layers = _layers(graph, params, size)

    def ours_loss(p: Any, x: Any) -> Any:
        return jnp.sum(model.apply(p, x) ** 2) / n

    def dense_loss(weights: Any, masks: Any, scales: Any, x: Any) -> Any:
        h = x
        for i, (weight, mask, scale) in enumerate(zip(weights, masks, scales, strict=True)):
            z = (h @ (weight * mask)) * scale
            h = z if i == 2 else jnp.tanh(z)
        return jnp.sum(h**2) / n

    def gather_first_loss(weights: Any, ends: Any, scales: Any, x: Any) -> Any:
        h = x
        for i, (weight, (sources, targets), scale) in enumerate(zip(weights, ends, scales, strict=True)):
            terms = (h[:, sources] * weight).T
            z = jax.ops.segment_sum(terms, targets, num_segments=size, indices_are_sorted=True).T * scale
            h = z if i == 2 else jnp.tanh(z)
        return jnp.sum(h**2) / n

    def gather_last_loss(weights: Any, ends: Any, scales: Any, x: Any) -> Any:
        h = x.T
        for i, (weight, (sources, targets), scale) in enumerate(zip(weights, ends, scales, strict=True)):
            terms = h[sources] * weight[:, None]
            z = jax.ops.segment_sum(terms, targets, num_segments=size, indices_are_sorted=True) * scale[:, None]
            h = z if i == 2 else jnp.tanh(z)
        return jnp.sum(h**2) / n

    weights, ends, scales = ([layer[name] for layer in layers] for name in ("weight", "ends", "scale"))
    matrices = [jnp.zeros((size, size)).at[e].set(w) for e, w in zip(ends, weights, strict=True)]
    masks = [jnp.zeros((size, size)).at[e].set(1.0) for e in ends]
    compiled = {
        "ours": (ours_loss, (params, x)),
        "dense": (dense_loss, (matrices, masks, scales, x)),
        "gather_first": (gather_first_loss, (weights, ends, scales, x)),
        "gather_last": (gather_last_loss, (weights, ends, scales, x)),
    }
    rivals: dict[str, Any] = {
        name: functools.partial(jax.jit(jax.value_and_grad(loss)), *arguments)
        for name, (loss, arguments) in compiled.items()
    }
    rivals["scipy"] = _scipy(layers, size, np.asarray(x))

    with jax.numpy_rank_promotion("allow"):
        _agree({name: rival() for name, rival in rivals.items()}, ends)
        own = rivals.pop("ours")
        pairs = {name: harness.interleave({"ours": own, name: rival}, rounds) for name, rival in rivals.items()}
    times = {name: pair[name] for name, pair in pairs.items()}
    better = min(("dense", "gather_first", "gather_last"), key=lambda name: float(times[name]["median"]))
    times["ours"] = pairs[better]["ours"]
    return {
        "density": density,
        "edges": graph.num_edges,
        "vertices_per_layer": size,
        "examples": n,
        "better": better,
        "ours_over_better": harness.ratio(pairs[better], "ours", better),
        "ours_over_scipy": harness.ratio(pairs["scipy"], "ours", "scipy"),
        "times": times,
    }


def _graph(size: int, density: float) -> Any:
    """Four layers of one size, each vertex with the same in-degree from the layer before, at least one child each."""
    degree = max(1, round(size * density))
    shift = np.random.default_rng(0)
    sources, targets = [], []
    for layer in range(3):
        priority = shift.random((size, size))
        priority[np.arange(size), shift.permutation(size)] = -1  # every vertex is somebody's parent
        columns = np.argsort(priority, axis=1)[:, :degree]
        rows = np.repeat(np.arange(size), degree)
        pairs = rows * size + columns.reshape(-1)
        sources.append(layer * size + pairs % size)
        targets.append((layer + 1) * size + pairs // size)
    return jd.models.graphs.graph((np.concatenate(sources), np.concatenate(targets)))


def _layers(graph: Any, params: Any, size: int) -> list[dict[str, Any]]:
    found = []
    for layer in range(1, 4):
        is_here = graph.layers[graph.targets] == layer
        ends = (graph.sources[is_here] - (layer - 1) * size, graph.targets[is_here] - layer * size)
        degrees = graph.in_degrees[graph.layers == layer]
        found.append(
            {
                "weight": params[f"layer_{layer}"]["weight"],
                "ends": tuple(jnp.asarray(end, jnp.int32) for end in ends),
                "scale": jnp.asarray(1 / np.sqrt(degrees), jnp.float32),
            }
        )
    return found


def _scipy(layers: list[dict[str, Any]], size: int, x: np.ndarray) -> Any:
    """Value and gradients with sparse matrices; the gradient of an edge is a row-wise inner product at its ends."""
    import scipy.sparse

    n, plain = len(x), [jax.tree.map(np.asarray, layer) for layer in layers]
    matrices = [scipy.sparse.csr_matrix((layer["weight"], layer["ends"][::-1]), shape=(size, size)) for layer in plain]
    transposed = [matrix.T.tocsr() for matrix in matrices]

    def call() -> Any:
        values = [np.ascontiguousarray(x.T)]
        for i, (layer, matrix) in enumerate(zip(plain, matrices, strict=True)):
            z = (matrix @ values[-1]) * layer["scale"][:, None]
            values.append(z if i == 2 else np.tanh(z))
        loss = np.sum(values[-1] ** 2) / n
        back, gradients = 2 * values[-1] / n, []
        for i in (2, 1, 0):
            if i < 2:
                back = back * (1 - values[i + 1] ** 2)
            back = back * plain[i]["scale"][:, None]
            sources, targets = plain[i]["ends"]
            gradients.append(np.einsum("en,en->e", values[i][sources], back[targets]))
            back = transposed[i] @ back
        return loss, gradients[::-1]

    return call


def _agree(found: dict[str, Any], ends: Any) -> None:
    """All rivals give the same value and the same gradients at the edges."""
    value, own = found["ours"]
    expected = [own[f"layer_{layer}"]["weight"] for layer in (1, 2, 3)]
    for name, (other, gradients) in found.items():
        np.testing.assert_allclose(other, value, rtol=1e-4)
        if name == "ours":
            continue
        at_edges = [g[e] for g, e in zip(gradients, ends, strict=True)] if name == "dense" else gradients
        for a, b in zip(at_edges, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3 * float(np.max(np.abs(b))))
