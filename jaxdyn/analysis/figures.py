"""Figures in one plain style: power laws and curves of ensembles, drawn on axes that are passed in.

Matplotlib's object-oriented interface throughout: no pyplot, no global state, nothing is shown. The colours are those
of Okabe and Ito, which readers with any colour vision can tell apart. In a notebook a figure shows itself as the last
expression of a cell once `%matplotlib inline` has run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataArray

    from jaxdyn.analysis.scaling import PowerLaw
    from jaxdyn.models.graphs import Graph
else:
    Axes = Figure = DataArray = PowerLaw = Graph = Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, the strong colours first."""

GREY = "#6b6b6b"

STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 10.5,
}
"""Matplotlib settings of the style."""


@contextmanager
def style() -> Iterator[None]:
    """The style, within a `with` block, for what you draw yourself.

    Matplotlib reads the sizes of titles and legends when they are set, so set them inside the block too; or put
    `@style()` above the function that makes the figure.

    Example:
        >>> import matplotlib
        >>> with style():
        ...     matplotlib.rcParams["axes.spines.top"]
        False
    """
    import matplotlib
    from cycler import cycler

    settings: Any = {**STYLE, "axes.prop_cycle": cycler(color=COLORS)}
    with matplotlib.rc_context(settings):
        yield


def figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (3.4, 2.8)) -> tuple[Figure, Any]:
    """A figure with a grid of axes.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        size: width and height of one of them, in inches.

    Returns:
        The figure and its axes as a [rows, columns] array of objects.

    Example:
        >>> page, axes = figure(2, 3)
        >>> axes.shape
        (2, 3)
    """
    from matplotlib.figure import Figure as Page

    with style():
        page = Page(figsize=(columns * size[0], rows * size[1]), layout="constrained")
        return page, page.subplots(rows, columns, squeeze=False)


def power_law(
    axes: Axes,
    array: DataArray,
    dim: str,
    *,
    over: str,
    fit: PowerLaw | None = None,
    label: str = "",
    reference: float | None = -0.5,
) -> None:
    """A power law on logarithmic axes: every member, the geometric means, the fitted line, and a line of known slope.

    Several calls on the same axes take the next colour each; the reference line is drawn by the first.

    Args:
        axes: where.
        array: positive values with the dimensions `dim` and `over` only; values that are not finite are left out.
        dim: dimension of the fit.
        over: dimension of the members.
        fit: what `scaling.power_law` returned for this array, with floats; its exponent and interval go into the
            legend.
        label: name in the legend.
        reference: exponent of the dashed line through the first mean, or None.

    Raises:
        ValueError: for an array with other dimensions.
    """
    if set(array.dims) != {dim, over}:
        raise ValueError(
            f"Draw one power law at a time: the array has the dimensions {tuple(array.dims)}, not {(dim, over)}."
        )
    x = np.asarray(array[dim].values, dtype=float)
    values = np.asarray(array.transpose(dim, over).values, dtype=float)  # [w, s]
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    means = np.exp(_without_warnings(np.nanmean, np.log(values), axis=1))
    with style():
        color = axes.plot([], [])[0].get_color()  # the next one of the cycle
        axes.plot(x, values, ".", color=color, alpha=0.3, ms=4, mew=0, zorder=2)
        text = label
        if fit is not None:
            exponent = f"{fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]".replace("-", "−")
            text = f"{label}: {exponent}" if label else exponent
            axes.plot(x, fit(x), color=color, lw=1.2, zorder=3)
        axes.plot(x, means, "o", color=color, ms=4.5, mec="white", mew=0.6, zorder=4, label=text or None)
        if reference is not None and not any(line.get_gid() == "reference" for line in axes.lines):
            line = means[0] * (x / x[0]) ** reference
            name = f"slope {_fraction(reference)}"
            axes.plot(x, line, color=GREY, lw=1.0, ls=(0, (4, 3)), zorder=1, label=name, gid="reference")
        _log_log(axes, x)
        axes.set_xlabel(dim)
        entries = zip(*axes.get_legend_handles_labels(), strict=True)
        shown = sorted(entries, key=lambda entry: entry[0].get_gid() == "reference")  # the reference last
        if shown:
            axes.legend(*zip(*shown, strict=True), loc="best")


def curves(
    axes: Axes,
    array: DataArray,
    *,
    x: str = "step",
    hue: str | None = None,
    over: str | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
) -> None:
    """Curves of an ensemble: the median over the members in a band of quantiles, a colour for each value of `hue`.

    A median is drawn where more than half of the members are finite, so that a curve ends where most runs diverged.

    Args:
        axes: where; its scales are left as they are.
        array: values with the dimensions `x`, `hue` and `over`, as far as they are given, and no other.
        x: dimension along the axis.
        hue: dimension told apart by colour: shades in order for numbers, distinct colours for names.
        over: dimension of the members.
        quantiles: lower and upper end of the band.

    Raises:
        ValueError: for an array with other dimensions.
    """
    named = [dim for dim in (hue, over, x) if dim is not None]
    if set(array.dims) != set(named):
        raise ValueError(f"The array has the dimensions {tuple(array.dims)}, but `x`, `hue` and `over` name {named}.")
    values = np.asarray(array.transpose(*named).values, dtype=float)
    values = values.reshape(array.sizes[hue] if hue else 1, array.sizes[over] if over else 1, array.sizes[x])
    values = np.where(np.isfinite(values), values, np.nan)  # [h, r, t]
    along = np.asarray(array[x].values, dtype=float)
    labels = array[hue].values.tolist() if hue else [None]
    with style():
        for member, label, color in zip(values, labels, _colors(labels, axes), strict=True):
            low, middle, high = _without_warnings(np.nanquantile, member, [quantiles[0], 0.5, quantiles[1]], axis=0)
            is_shown = np.isfinite(member).mean(axis=0) > 0.5
            low, middle, high = (np.where(is_shown, line, np.nan) for line in (low, middle, high))
            axes.plot(along, middle, color=color, label=_name(label))
            if over is not None:
                axes.fill_between(along, low, high, color=color, alpha=0.18, lw=0)
        axes.set_xlabel(x)
        if hue is not None:
            axes.legend(title=hue, title_fontsize=STYLE["legend.fontsize"])


def phase_diagram(axes: Axes, phase: DataArray, *, x: str, y: str, over: str, lines: Sequence[float] = ()) -> None:
    """The phases of `phases.classify` in the plane of two axes: a cell has the colour of the phase most members are in.

    A cell in which fewer than nine tenths of the members agree is pale. Cells reach half-way to the next, on a logarithmic abscissa.

    Args:
        axes: where.
        phase: strings, with the dimensions `x`, `y` and `over` only.
        x: dimension along the abscissa, positive and sorted, such as the relative learning rate.
        y: dimension along the ordinate; its labels are written beside the rows, the first at the bottom.
        over: dimension of the members.
        lines: abscissas of dashed lines, such as 2 and 4.

    Raises:
        ValueError: for an array with other dimensions.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, NullLocator
    from matplotlib.transforms import ScaledTranslation

    from jaxdyn.analysis.phases import PHASES

    if set(phase.dims) != {x, y, over}:
        raise ValueError(
            f"The phases have the dimensions {tuple(phase.dims)}, but `x`, `y` and `over` name {(x, y, over)}."
        )
    values = phase.transpose(y, x, over).values  # [y, x, s]
    share = np.stack([(values == name).mean(axis=-1) for name in PHASES])  # [phases, y, x]
    most = share.argmax(axis=0)
    palette = np.array([to_rgb(color) for color in (COLORS[0], COLORS[4], COLORS[1], COLORS[6], "#c8c8c8")])
    colors = palette[most]
    colors = np.where((share.max(axis=0) < 0.9)[..., None], 0.5 * colors + 0.5, colors)
    at = np.log(np.asarray(phase[x].values, dtype=float))
    inner = (at[1:] + at[:-1]) / 2
    edges = np.exp(np.concatenate([[2 * at[0] - inner[0]], inner, [2 * at[-1] - inner[-1]]]))
    with style():
        axes.pcolormesh(edges, np.arange(len(values) + 1) - 0.5, colors)
        axes.set_xscale("log")
        for line in lines:
            axes.axvline(line, color="black", ls="--", lw=1.0)
        ticks = sorted({*lines, *(t for t in (0.5, 1, 2, 4, 8, 16, 32) if edges[0] <= t <= edges[-1])})
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(values)), [str(label) for label in phase[y].values.tolist()])
        axes.grid(visible=False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        shown = sorted(set(most.reshape(-1).tolist()))
        patches = [Patch(color=palette[i], label=PHASES[i]) for i in shown]
        below = axes.transAxes + ScaledTranslation(0.0, -30 / 72, axes.figure.dpi_scale_trans)
        axes.legend(
            handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=below, ncols=len(shown)
        )


def leave_room(axes: Axes, num_lines: int) -> None:
    """Extend a logarithmic ordinate downwards, so that a legend of so many lines at the bottom covers no data.

    Args:
        axes: where everything has been drawn.
        num_lines: lines of the legend.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** (0.11 * num_lines), high)


def graph(network: Graph, *, max_edges: int = 2000) -> Figure:
    """A graph, its layers from left to right, and the histogram of its in-degrees.

    The colour and size of a vertex say its in-degree; inputs are grey. Edges that skip layers are curved. Vertices are named where there
    are at most 40.

    Args:
        network: a `models.graphs.Graph`.
        max_edges: as many edges are drawn at most, chosen at random with a fixed seed; a note says so.

    Returns:
        The figure; its first two axes are the graph and the histogram.

    Example:
        >>> from jaxdyn.models import graphs
        >>> page = graph(graphs.random_layered((3, 8, 8, 1), law=graphs.uniform(2), seed=0))
        >>> [axes.get_xlabel() for axes in page.axes[:2]]
        ['layer (longest path from an input)', 'in-degree (layers ≥ 2)']
    """
    from matplotlib.figure import Figure as Page

    from jaxdyn.analysis import _graph

    with style():
        page = Page(figsize=(8.0, 4.2), layout="constrained")
        left, right = page.subplots(1, 2, width_ratios=(4, 1))
        _graph.draw(left, network, max_edges)
        _graph.histogram(right, network)
        return page


def vertices(axes: Axes, network: Graph, *, max_edges: int = 2000) -> None:
    """The left part of `graph` alone, on axes that are passed in.

    Args:
        axes: where.
        network: a `models.graphs.Graph`.
        max_edges: as many edges are drawn at most.
    """
    from jaxdyn.analysis import _graph

    with style():
        _graph.draw(axes, network, max_edges)


def save(page: Figure, path: str | Path, *, dpi: int = 200) -> Path:
    """Write a figure; the suffix of the path says the format.

    Args:
        page: the figure.
        path: where, such as `width.png` or `width.pdf`; missing folders are made.
        dpi: dots per inch of a pixel format.

    Returns:
        The path.

    Raises:
        ValueError: for a suffix that is no format of matplotlib's.
    """
    path = Path(path)
    formats = page.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats:
        raise ValueError(f"No figure format ends in {path.suffix!r} ({path}); use one of {', '.join(sorted(formats))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        page.savefig(path, dpi=dpi, facecolor="white")
    return path


def _log_log(axes: Any, x: np.ndarray) -> None:
    """Logarithmic axes: the coordinates themselves as ticks of x; 1, 2, 5 on y where it spans few decades."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    def power(value: float, _: Any) -> str:
        return f"{value:g}" if 1e-3 <= value <= 1e4 else f"$10^{{{round(np.log10(value))}}}$"

    def between(value: float, _: Any) -> str:
        low, high = axes.get_ylim()
        return f"{value:g}" if high < 300 * low and 1e-4 < value < 1e4 else ""

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(power))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axes.yaxis.set_minor_formatter(FuncFormatter(between))
    every = -(-len(x) // 6)
    axes.xaxis.set_major_locator(FixedLocator(sorted(x)[::every]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _colors(labels: list[Any], axes: Any) -> list[Any]:
    """A colour for each label: dark to light for numbers, the palette otherwise."""
    import matplotlib

    if len(labels) > 1 and all(isinstance(label, int | float) for label in labels):
        return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(labels))))
    if len(labels) == 1:
        return [axes.plot([], [])[0].get_color()]
    return [COLORS[i % len(COLORS)] for i in range(len(labels))]


def _name(label: Any) -> str | None:
    return f"{label:.4g}" if isinstance(label, float) else None if label is None else str(label)


def _fraction(number: float) -> str:
    from fractions import Fraction

    return str(Fraction(number).limit_denominator(12)).replace("-", "−")


def _without_warnings(function: Any, *arguments: Any, **options: Any) -> Any:
    """A nan-function on data that may have no finite member at all."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*arguments, **options)
