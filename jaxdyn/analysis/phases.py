"""Phases of gradient descent at large learning rates: lazy, catapult, divergent, dead, undecided.

Read off a loss L_t along training (t a dimension of records, the first at the anchor), and the curvature if it was
recorded:

* `divergent`: a value of the loss is not finite, or the run was frozen by `diverge_above` (`diverged_at` ≥ 0);
* `dead`: curvature at the end ≤ `dead_below` · curvature at the start; without curvature: the loss is constant to
  rounding over the last tenth of the steps, yet above `converged_below` · L_0;
* `catapult`: max L > `rise` · L_0, and after the maximum a loss below L_0;
* `lazy`: max L ≤ `rise` · L_0, and a last loss below L_0;
* `undecided`: anything else, that is not back below its start, or L_0 is not finite.

The first that holds counts.

For the quadratic model the phases are the ranges 0-2, 2-4 and above 4 of η c λ_max(K_0); for networks the boundaries
are what is being measured. Loss alone calls a ReLU network without a living neuron a catapult or lazy: its loss rises,
falls to that of the zero function, and stays. A run that has converged to a loss above zero stays constant too, and
only the curvature (the kernel norm, `probes.NTKNorm`) tells it from a dead one: record it.

References:
    Lewkowycz et al., arXiv 2003.02218, section 2. Zhu et al., arXiv 2205.11787, theorems 1, 4 and 5.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray, Dataset
else:
    DataArray = Dataset = Any

PHASES = ("lazy", "catapult", "divergent", "dead", "undecided")
"""All phases, in the order in which figures show them."""


def classify(loss: DataArray, *, curvature: DataArray | None = None, **options: Any) -> DataArray:
    """The phase of every member: `phase` of `evidence`, which takes the same arguments.

    Returns:
        Strings without the dimension of the records; the criteria are in its attributes.

    Raises:
        ValueError: for a missing dimension, unsorted records, or arrays that do not belong together.

    Example:
        >>> import numpy as np, xarray as xr
        >>> loss = xr.DataArray([[1.0, 0.5, 0.2], [1.0, 40.0, 0.1], [1.0, 1e9, np.inf]], dims=("ratio", "step"))
        >>> classify(loss).values.tolist()
        ['lazy', 'catapult', 'divergent']
    """
    return evidence(loss, curvature=curvature, **options)["phase"]


def evidence(
    loss: DataArray,
    *,
    curvature: DataArray | None = None,
    lr: DataArray | SupportsFloat | None = None,
    c: SupportsFloat = 1.0,
    diverged_at: DataArray | None = None,
    stopped_at: DataArray | None = None,
    dim: str = "step",
    rise: SupportsFloat = 1.1,
    dead_below: SupportsFloat = 1e-6,
    converged_below: SupportsFloat = 1e-6,
) -> Dataset:
    """What the phases are read from, a row a run.

    Args:
        loss: training loss along `dim`, any other dimensions.
        curvature: largest kernel eigenvalue along training; its first and last record are used, its other dimensions are the loss's.
            To compare with 2/η it is λ_max(K), not normalised, such as `probes.NTKNorm`.
        lr: learning rate η of each member, or of all: a number or an array whose dimensions are the loss's.
        c: constant of the loss, as of `losses.mse.c(n, k)`; the comparison is of c λ_max(K) with 2/η.
        diverged_at: the step of divergence or -1, as `sweep` returns it; needed only where `diverge_above` froze a finite loss.
        stopped_at: the step at which `sweep(stop=…)` ended a run or -1: what was not recorded beyond is no sign of divergence, and the
            last record before counts as the last.
        dim: dimension of the records.
        rise: a loss above this multiple of its start has risen.
        dead_below: a curvature at most this fraction of its start is dead.
        converged_below: without curvature, a constant loss at most this fraction of its start has converged and is not dead.

    Returns:
        A dataset without `dim`: `phase`; `start`, `peak`, `final` (losses; peak and final may be infinite or NaN),
        `rise` (peak over start), `peak_step`, `return_step` (first record below the start after the peak, NaN where there is
        none), `curvature_ratio` (last over first, NaN without curvature), `relative_rate` and `final_relative_rate` (η c λ at
        the first and the last record: the latter is below 2 where the run ended in curvature below 2/η; NaN without curvature
        or `lr`), `is_divergent`, `is_dead`.

    Raises:
        ValueError: as `classify`.

    Example:
        >>> import numpy as np, xarray as xr
        >>> loss, kernel = (xr.DataArray(a, dims="step") for a in ([1.0, 40.0, 0.1], [3.0, 2.0, 0.5]))
        >>> found = evidence(loss, curvature=kernel, lr=1.0)
        >>> [found[name].item() for name in ("phase", "rise", "peak_step", "return_step", "final_relative_rate")]
        ['catapult', 40.0, 1.0, 2.0, 0.5]
    """
    import xarray as xr

    steps = _steps(loss, dim)
    rise, dead_below, converged_below = float(rise), float(dead_below), float(converged_below)
    members = loss.transpose(..., dim).isel({dim: 0}, drop=True)
    stopped = _match(stopped_at, members, "stopped_at", -1.0)
    losses = np.asarray(_carried(loss, dim, stopped).values)  # [*members, t]

    start, final = losses[..., 0], losses[..., -1]
    is_finite = np.isfinite(losses)
    is_divergent = ~is_finite.all(axis=-1) | (_match(diverged_at, members, "diverged_at", -1.0) >= 0)
    where_peak = np.where(np.isnan(losses), -np.inf, losses).argmax(axis=-1)  # [*members]
    peak = np.take_along_axis(losses, where_peak[..., None], axis=-1)[..., 0]
    is_after = np.arange(len(steps)) > where_peak[..., None]  # [*members, t]
    is_back = is_after & (losses < start[..., None])
    has_returned = is_back.any(axis=-1)
    return_step = np.where(has_returned, steps[is_back.argmax(axis=-1)], np.nan)

    first = last = np.full(start.shape, np.nan)
    if curvature is None:
        ratio = np.full(start.shape, np.nan)
        is_dead = _is_stuck(losses, steps) & (final > converged_below * start) & (stopped < 0)
    else:
        first, last = _ends(curvature, dim, members, stopped)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = last / first
        is_dead = last <= dead_below * first

    has_risen = peak > rise * start
    phase = np.select(
        [~np.isfinite(start), is_divergent, is_dead, has_risen & has_returned, ~has_risen & (final < start)],
        ["undecided", "divergent", "dead", "catapult", "lazy"],
        "undecided",
    )
    unit = _match(lr, members, "lr", np.nan) * float(c)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        risen = peak / start
    columns = {
        "phase": phase,
        "start": start,
        "peak": peak,
        "final": final,
        "rise": risen,
        "peak_step": steps[where_peak],
        "return_step": return_step,
        "curvature_ratio": ratio,
        "relative_rate": unit * first,
        "final_relative_rate": unit * last,
        "is_divergent": is_divergent,
        "is_dead": is_dead,
    }
    attrs = {"rise": rise, "dead_below": dead_below, "converged_below": converged_below}
    found = xr.Dataset({k: (members.dims, v) for k, v in columns.items()}, coords=members.coords, attrs=attrs)
    found["phase"].attrs.update(attrs, dead_by="loss" if curvature is None else "curvature")
    return found


class Bracket(NamedTuple):
    """Where something begins along a coordinate.

    Attributes:
        low: the last value before; −∞ where it holds from the first.
        high: the first value where it holds; ∞ where it never does.
    """

    low: Any
    high: Any


def bracket(condition: DataArray, *, dim: str, above: SupportsFloat = -np.inf) -> Bracket:
    """The *first* value of a coordinate at which a condition holds, and the one before: what a grid knows of a boundary.

    Args:
        condition: booleans with the dimension `dim`, any others; such as `phase == "divergent"`.
        dim: dimension with a sorted numeric coordinate, such as the learning rate.
        above: values up to here are left out.

    Returns:
        The two values, without `dim`.

    Raises:
        ValueError: for a missing dimension, or a coordinate that is not sorted.

    Example:
        >>> import xarray as xr
        >>> phase = xr.DataArray(["lazy", "lazy", "catapult"], dims="rate", coords={"rate": [1.9, 1.98, 2.02]})
        >>> found = bracket(phase != "lazy", dim="rate")
        >>> float(found.low), float(found.high)
        (1.98, 2.02)
    """
    if dim not in condition.dims or dim not in condition.coords:
        raise ValueError(f"The condition has no dimension `{dim}` with a coordinate, only {tuple(condition.dims)}.")
    along = condition.transpose(..., dim)
    along = along.isel({dim: np.asarray(along[dim].values, dtype=float) > float(above)})
    x = np.asarray(along[dim].values, dtype=float)
    if len(x) == 0 or not np.all(np.diff(x) > 0):
        raise ValueError(
            f"The values of `{dim}` above {float(above):g} must be some and in order, but are {x.tolist()}."
        )
    holds = np.asarray(along.values, bool)
    first = np.where(holds.any(axis=-1), holds.argmax(axis=-1), len(x))
    low, high = np.append(-np.inf, x)[first], np.append(x, np.inf)[first]
    members = along.isel({dim: 0}, drop=True)
    return Bracket(members.copy(data=low), members.copy(data=high))


def _steps(loss: Any, dim: str) -> np.ndarray:
    if dim not in loss.dims:
        raise ValueError(f"The loss has no dimension `{dim}`, only {tuple(loss.dims)}; name its records with `dim=`.")
    steps = np.asarray(loss[dim].values, dtype=float)
    if len(steps) < 2 or not np.all(np.diff(steps) > 0):
        raise ValueError(f"A phase needs at least 2 records in order, but `{dim}` is {steps.tolist()}.")
    return steps


def _is_stuck(losses: np.ndarray, steps: np.ndarray) -> Any:
    """Constant to rounding over the last tenth, of which there must be 3 records."""
    tail = losses[..., steps >= steps[-1] - 0.1 * (steps[-1] - steps[0])]
    if tail.shape[-1] < 3:
        return np.zeros(losses.shape[:-1], bool)
    top, bottom = tail.max(axis=-1), tail.min(axis=-1)
    with np.errstate(invalid="ignore"):
        return top - bottom <= 4 * np.finfo(losses.dtype).eps * top


def _carried(array: Any, dim: str, stopped: np.ndarray) -> Any:
    """Records along the last axis; those beyond the step at which a run was stopped repeat the last one before."""
    along = array.transpose(..., dim)
    is_kept = (stopped[..., None] < 0) | (np.asarray(along[dim].values, float) <= stopped[..., None])
    places = np.maximum.accumulate(np.where(is_kept, np.arange(along.sizes[dim]), 0), axis=-1)
    return along.copy(data=np.take_along_axis(np.asarray(along.values), places, axis=-1))


def _ends(curvature: Any, dim: str, members: Any, stopped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last curvature, laid out like the members."""
    if dim not in curvature.dims:
        raise ValueError(
            f"The curvature has no dimension `{dim}`, only {tuple(curvature.dims)}; rename its records, such as "
            f"curvature.rename(probe_step={dim!r})."
        )
    first, last = (_match(curvature.isel({dim: i}, drop=True), members, "curvature", np.nan) for i in (0, -1))
    if (stopped >= 0).any():
        last = np.asarray(_carried(curvature.transpose(*members.dims, dim), dim, stopped).values)[..., -1]
    return first, last


def _match(array: Any, members: Any, name: str, missing: float) -> np.ndarray:
    """Values laid out like the members: of an array, a number for all, or `missing` where there is neither."""
    if not hasattr(array, "dims"):
        return np.full(members.shape, missing if array is None else float(array))
    if set(array.dims) - set(members.dims):
        raise ValueError(
            f"`{name}` has the dimensions {tuple(array.dims)}, but the members of the loss {members.dims}."
        )
    import xarray as xr

    try:
        aligned, _ = xr.align(array, members, join="exact")
    except ValueError as error:
        raise ValueError(f"`{name}` and the loss have different coordinates: {error}") from error
    return np.asarray(aligned.broadcast_like(members).transpose(*members.dims).values)
