"""How `figures.graph` draws: vertices in columns by layer, edges between them, a histogram of in-degrees."""

from typing import Any

import numpy as np

_GREY = "#6b6b6b"
_NAMED = 40  # vertices that can be named
_POINTS = 17  # of a curved edge


def draw(axes: Any, graph: Any, max_edges: int) -> None:
    """The vertices and edges of a graph."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm

    place = _places(graph)
    chosen = np.arange(graph.num_edges)
    if graph.num_edges > max_edges:
        chosen = np.random.default_rng(0).choice(graph.num_edges, max_edges, replace=False)
    lines = _lines(place[graph.sources[chosen]], place[graph.targets[chosen]])
    alpha = float(np.clip(30 / np.sqrt(len(chosen)), 0.4, 6) / 6)
    axes.add_collection(LineCollection(list(lines), colors=_GREY, linewidths=0.5, alpha=alpha, zorder=1))

    reads = graph.in_degrees[graph.in_degrees > 0]
    norm = LogNorm(reads.min(), max(reads.max(), reads.min() + 1))
    crowd = float(np.clip(900 / max(graph.sizes), 8, 90))
    is_input = graph.in_degrees == 0
    axes.scatter(*place[is_input].T, s=0.6 * crowd, color="#c9c9c9", edgecolors=_GREY, linewidths=0.6, zorder=2)
    size = crowd * (0.4 + np.sqrt(graph.in_degrees[~is_input] / reads.max()))
    dots = axes.scatter(
        *place[~is_input].T, s=size, c=graph.in_degrees[~is_input], cmap="viridis", norm=norm, edgecolors="white",
        linewidths=0.4, zorder=3,
    )  # fmt: skip
    if graph.num_vertices <= _NAMED:
        for vertex, (x, y) in enumerate(place):
            axes.annotate(
                str(graph.name(vertex)), (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7
            )
    bar = axes.figure.colorbar(dots, ax=axes, location="bottom", fraction=0.05, aspect=40, pad=0.02)
    bar.set_label("in-degree")
    _few_ticks(bar.ax.xaxis, int(reads.min()), int(reads.max()))
    bar.outline.set_linewidth(0.5)
    note = "" if len(chosen) == graph.num_edges else f" ({len(chosen)} drawn)"
    axes.set_title(f"{graph.num_vertices} vertices, {graph.num_edges} edges{note}")
    axes.set_xlabel("layer (longest path from an input)")
    axes.set_xticks(np.arange(0, graph.depth + 1, -(-(graph.depth + 1) // 15)))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.04, y=0.06)


def histogram(axes: Any, graph: Any) -> None:
    """In-degrees beyond the first layer, on logarithmic axes where they spread over more than a factor of ten."""
    degrees = graph.in_degrees[graph.layers > (1 if graph.depth > 1 else 0)]
    low, high = int(degrees.min()), int(degrees.max())
    if high > 10 * low:
        edges: np.ndarray = np.unique(np.round(np.geomspace(low, high + 1, 16)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        _few_ticks(axes.xaxis, low, high)
    else:
        step = -(-(high - low + 1) // 20)
        edges = np.arange(low, high + step + 1, step) - 0.5
        axes.locator_params(integer=True, nbins=5)
    axes.hist(degrees, bins=edges, color="#0072B2")
    axes.axvline(graph.min_in_degree, color="#D55E00", lw=1.0, ls=(0, (4, 3)))
    axes.set_title(f"min {graph.min_in_degree}, mean {graph.mean_in_degree:.3g}")
    axes.set_xlabel("in-degree (layers ≥ 2)")
    axes.set_ylabel("vertices")


def _few_ticks(axis: Any, low: int, high: int) -> None:
    """Plain numbers at 1, 2, 5 times powers of ten on a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    ladder = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
    inside = [tick for tick in ladder if low <= tick <= high]
    kept = inside if 2 <= len(inside) <= 6 else inside[:: -(-len(inside) // 5)] if inside else [low]
    axis.set_major_locator(FixedLocator(kept if len(kept) > 1 else sorted({low, high})))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _places(graph: Any) -> np.ndarray:
    """X is the layer, y spreads a layer around the middle, taller for more vertices, [v, 2]."""
    sizes = np.asarray(graph.sizes)
    height = np.sqrt(sizes / sizes.max())
    own = sizes[graph.layers]
    y = np.where(own > 1, 0.5 - graph.places / np.maximum(own - 1, 1), 0.0) * height[graph.layers]
    return np.stack([graph.layers.astype(float), y], axis=1)


def _lines(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Straight lines to the next layer, arcs beyond, [e, points, 2]."""
    t = np.linspace(0, 1, _POINTS)[None, :, None]
    lines = start[:, None] * (1 - t) + end[:, None] * t
    skipped = end[:, 0] - start[:, 0] - 1
    side = np.where(start[:, 1] + end[:, 1] >= 0, 1.0, -1.0)
    lines[:, :, 1] += (side * 0.12 * skipped)[:, None] * 4 * (t * (1 - t))[:, :, 0]
    return lines
