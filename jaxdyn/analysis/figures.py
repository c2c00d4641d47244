"""Figures with one look: arrays onto matplotlib axes. Nothing is shown and no global state is touched.

Colours are Okabe and Ito's, which readers with any colour vision tell apart.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn.analysis.scaling import PowerLaw

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (4.2, 3.4)) -> tuple[Any, np.ndarray]:
    """An empty page of axes.

    Args:
        rows: number of rows.
        columns: number of columns.
        size: width and height of one panel in inches.

    Returns:
        A `matplotlib.figure.Figure` and its axes, [rows, columns].

    Example:
        >>> figure(1, 2)[1].shape
        (1, 2)
    """
    from matplotlib.figure import Figure

    page = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    axes = page.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        one.set_prop_cycle(color=COLOURS)
        one.grid(True, which="major", color="0.9", linewidth=0.8)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
        one.title.set_size(10)
    return page, axes


def power_law(
    axes: Any, array: Any, dim: str, *, over: str, fit: PowerLaw | None = None, slope: float = -0.5, label: str = ""
) -> None:
    """Members as light points, their geometric mean, the fitted line, and a dashed line of the slope theory gives.

    Args:
        axes: matplotlib axes.
        array: an `xarray.DataArray` with dimensions `dim` and `over`, positive.
        dim: the abscissa.
        over: the members.
        fit: the fitted power law; its exponent goes into the label.
        slope: slope of the dashed line, drawn through the first mean.
        label: name in the legend.
    """
    values = np.asarray(array.transpose(over, dim).values, float)
    x = np.asarray(array[dim].values, float)
    means = np.exp(np.log(values).mean(axis=0))
    text = label if fit is None else f"{label}: {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]".removeprefix(": ")
    (line,) = axes.plot(x, means, "o", ms=5, label=text)
    axes.plot(x, values.T, ".", ms=3, alpha=0.25, color=line.get_color(), zorder=1)
    if fit is not None:
        axes.plot(x, fit.predict(x), "-", lw=1.2, color=line.get_color())
    axes.plot(x, means[0] * (x / x[0]) ** slope, "--", lw=0.9, color="0.5", zorder=0)
    axes.set(xscale="log", yscale="log", xlabel=dim)
    axes.set_xticks(x, [f"{tick:g}" for tick in x])
    axes.minorticks_off()
    axes.legend(fontsize=8, frameon=False, title=f"dashed: slope {slope:g}", title_fontsize=8)


def curves(axes: Any, array: Any, *, x: str, over: str, label: str = "") -> None:
    """The median over members with a band from the lower to the upper quartile.

    Args:
        axes: matplotlib axes.
        array: an `xarray.DataArray` with dimensions `x` and `over`.
        x: the abscissa.
        over: the members.
        label: name in the legend.
    """
    values = np.asarray(array.transpose(over, x).values, float)
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
    abscissa = array[x].values
    (line,) = axes.plot(abscissa, middle, lw=1.4, label=label)
    axes.fill_between(abscissa, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel(x)


def save(page: Any, path: str | Path) -> Path:
    """Write a page as an image; the ending says which kind.

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(target, dpi=150)
    return target
