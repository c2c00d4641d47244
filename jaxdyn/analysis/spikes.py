"""Spikes of the training loss: where one starts, by a rule with four stated numbers; how many, and what was recorded around each.

    A spike starts at record t when the detector is armed, L_t > factor · m_t and L_t > floor,
    with m_t the least of the `window` losses before t. The detector is then disarmed, and armed
    again at the first later record with L < rearm · m, m the least loss of the spike's start.

The papers give no rule; counts depend on these four numbers, so none has a default and all go into the attributes of
the result, and `sensitivity` counts over a grid of them. A spike that settles above rearm · m leaves the detector disarmed, and what
follows is not counted: `count` says at how many records that was so. It reports per run, per step and per epoch, which may order
differently: runs with smaller batches take more steps. Spikes are not catapults until the curvature is seen to fall across them:
`annotate` looks.

References:
    Zhu et al., arXiv 2306.04815 (spikes as catapults; the rule is ours).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from jaxdyn.analysis import _detector

if TYPE_CHECKING:
    from xarray import DataArray, Dataset
else:
    DataArray = Dataset = Any


def find(
    loss: DataArray,
    *,
    factor: SupportsFloat,
    window: int,
    floor: SupportsFloat,
    rearm: SupportsFloat,
    dim: str = "step",
) -> DataArray:
    """Where spikes start.

    Args:
        loss: losses along `dim`, recorded at every step or at least evenly; any other dimensions.
        factor: a spike exceeds this multiple of the least loss in the window, > 1.
        window: number of *records* looked back, ≥ 1; fewer at the beginning, none at the first.
        floor: losses at or below are never a spike: rounding at the end of training.
        rearm: the spike is over below this multiple of the least loss before it, in [1, factor].
        dim: dimension of the records.

    Returns:
        Booleans like `loss`, true where a spike starts; `.sum(dim)` counts. NaN is neither a spike nor a least loss;
        the overflow to infinity of a divergence is a spike.

    Raises:
        ValueError: for a missing dimension or a number out of its range.

    Example:
        >>> import xarray as xr
        >>> loss = xr.DataArray([1.0, 0.5, 2.0, 3.0, 0.5, 0.4, 1.2, 0.3], dims="step")
        >>> find(loss, factor=2, window=3, floor=0.02, rearm=1.1).values.astype(int).tolist()
        [0, 0, 1, 0, 0, 0, 1, 0]
    """
    import xarray as xr

    along, rule = _detector.checked(loss, dim, factor=factor, window=window, floor=floor, rearm=rearm)
    starts, _, _ = _detector.detect(np.asarray(along.values), **rule)
    return xr.DataArray(starts, dims=along.dims, coords=along.coords, attrs=rule).transpose(*loss.dims)


def count(
    loss: DataArray, *, dim: str = "step", steps_per_epoch: DataArray | float | None = None, **rule: Any
) -> Dataset:
    """How many spikes, per run, per step and per epoch.

    Args:
        loss: losses along `dim`, whose coordinate (positions where it has none) counts steps; any other dimensions.
        dim: dimension of the records.
        steps_per_epoch: n / b, a number or an array over dimensions of `loss` such as the batch size; None leaves epochs out.
        rule: the four numbers of `find`.

    Returns:
        `per_run`, `disarmed` (records from the start of a spike until the detector is armed again, at which no other can start: many of
        them beside few spikes are an undercount), `steps` (from the first record to the last loss that is not NaN), `per_step`, and
        `per_epoch` where asked for.
        A run without steps has NaN per step.

    Raises:
        ValueError: as `find`.

    Example:
        >>> import xarray as xr
        >>> loss = xr.DataArray([1.0, 0.5, 2.0, 3.0, 0.5, 0.4, 1.2, 0.3, float("nan")], dims="step")
        >>> found = count(loss, factor=2, window=3, floor=0.02, rearm=1.1, steps_per_epoch=4)
        >>> int(found.per_run), int(found.disarmed), int(found.steps), round(float(found.per_epoch), 3)
        (2, 3, 7, 1.143)
    """
    import xarray as xr

    along, rule = _detector.checked(loss, dim, **rule)
    marks = [
        xr.DataArray(one, dims=along.dims, coords=along.coords)
        for one in _detector.detect(np.asarray(along.values), **rule)[:2]
    ]
    per_run, disarmed = (one.sum(dim) for one in marks)
    times = xr.DataArray(_detector.times(loss, dim), dims=dim)
    steps = times.where(loss.drop_vars(dim, errors="ignore").notnull()).max(dim) - times.isel({dim: 0})
    per_step = per_run / steps.where(steps > 0)
    found = {"per_run": per_run, "disarmed": disarmed, "steps": steps, "per_step": per_step}
    if steps_per_epoch is not None:
        found["per_epoch"] = per_step * steps_per_epoch
    return xr.Dataset(found, attrs=rule)


def sensitivity(loss: DataArray, *, dim: str = "step", **rules: Sequence[SupportsFloat]) -> DataArray:
    """Counts per run on a grid of the four numbers: what a count owes to its rule.

    Args:
        loss: as in `find`.
        dim: dimension of the records.
        rules: values of each of the four numbers of `find`.

    Returns:
        Counts with the dimensions `factor, window, floor, rearm` before those of the runs; NaN where rearm > factor, which is no rule.

    Raises:
        ValueError: as `find`, or where `loss` has a dimension of that name.

    Example:
        >>> import xarray as xr
        >>> loss = xr.DataArray([1.0, 0.5, 2.0, 3.0, 0.5, 0.4, 1.2, 0.3], dims="step")
        >>> sensitivity(loss, factor=[2, 4], window=[3], floor=[0.02], rearm=[1.1]).values.ravel().tolist()
        [2.0, 1.0]
    """
    import xarray as xr

    grid: dict[str, list[Any]] = {name: list(rules[name]) for name in ("factor", "window", "floor", "rearm")}
    taken = [name for name in grid if name in loss.dims]
    if taken:
        raise ValueError(f"The loss has a dimension `{taken[0]}`, which the grid needs; rename it.")
    members = tuple(name for name in loss.dims if name != dim)
    shape = tuple(len(values) for values in grid.values())
    counts = np.full((*shape, *(loss.sizes[name] for name in members)), np.nan)
    for index in np.ndindex(*shape):
        rule = {name: values[i] for (name, values), i in zip(grid.items(), index, strict=True)}
        if rule["rearm"] <= rule["factor"]:
            counts[index] = find(loss, **rule, dim=dim).sum(dim).transpose(*members).values
    coords = grid | {name: loss.coords[name] for name in members if name in loss.coords}
    return xr.DataArray(counts, dims=(*grid, *members), coords=coords)


def annotate(
    loss: DataArray,
    *,
    dim: str = "step",
    top: DataArray | None = None,
    rest: DataArray | None = None,
    curvature: DataArray | None = None,
    learning_rate: DataArray | SupportsFloat | None = None,
    critical_rate: DataArray | None = None,
    **rule: Any,
) -> Dataset:
    """One row a spike: where it lies, how high it is, and what was recorded around it.

    Other arrays may be recorded on a cadence of their own, along one dimension of any name whose coordinate counts steps.

    Args:
        loss: as in `count`.
        dim: dimension of the records of `loss`.
        top: loss in P_{≤s} (`loss_top` of `probes.SubspaceLoss`), given with `rest`.
        rest: loss in P_{>s}.
        curvature: λ_max of the tangent kernel (`probes.NTKNorm`), or the sharpness.
        learning_rate: η, a number or an array over dimensions of the runs, or of the records too; given with `critical_rate`.
        critical_rate: η_crit(X_b) of the batch that enters the next step (`probes.BatchCriticalRate`).
        rule: the four numbers of `find`.

    Returns:
        A dataset with dimension `spike`, ordered by run and then time, and the runs' dimensions as coordinates. Always:
        `start`, `peak_step`, `end` (numbers of completed steps: the first record of the spike, its largest loss, the first
        record at which the detector is armed again, or another spike starts; −1 if neither happens), `least` (loss before) and `peak`.
        If given: `top_share`, top / (top + rest) at the record of the pair within the spike where the sum is largest;
        `curvature_before`, at the last record before the start, `curvature_after`, at the first from the end on, and
        `curvature_change`, their difference; `rate_ratio`, η / η_crit(X_b) at the last record before the start,
        `is_super_critical` (the ratio exceeds 1) and `super_critical_share`, of the records from the one before the start until
        before the peak. NaN, or false, where nothing was recorded there.

    Raises:
        ValueError: as `find`; for half of a pair; for an array that does not have exactly one dimension beside those of the runs.

    Example:
        >>> import xarray as xr
        >>> loss = xr.DataArray([1.0, 0.5, 2.0, 3.0, 0.5, 0.4], dims="step")
        >>> curvature = xr.DataArray([9.0, 4.0], dims="probe_step", coords={"probe_step": [0, 5]})
        >>> found = annotate(loss, factor=2, window=3, floor=0.02, rearm=1.1, curvature=curvature)
        >>> int(found.start[0]), int(found.peak_step[0]), int(found.end[0]), float(found.curvature_change[0])
        (2, 3, 4, -5.0)
    """
    import xarray as xr

    if (top is None) != (rest is None):
        raise ValueError("Give `top` and `rest` together, or neither: the share of one needs both.")
    if (learning_rate is None) != (critical_rate is None):
        raise ValueError(
            "Give `learning_rate` and `critical_rate` together, or neither: a rate is critical only beside another."
        )
    along, rule = _detector.checked(loss, dim, **rule)
    members = along.isel({dim: 0}, drop=True)
    losses = np.asarray(along.values).reshape(along.sizes[dim], -1).T  # [members, t]
    starts, is_up, least = (one.T for one in _detector.detect(losses.T, **rule))
    member, start = np.nonzero(starts)  # one entry a spike, ordered by run
    end = _first_after(~is_up | starts, member, start)  # t where the spike outlasts the run
    steps = _detector.times(along, dim)
    _, peak = _largest(losses, member, start, end)
    last = np.append(steps, -1)[end]
    found: dict[str, Any] = {
        "start": steps[start],
        "peak_step": steps[peak],
        "end": last,
        "least": least[member, start],
        "peak": losses[member, peak],
    }
    before, after = steps[start - 1], np.where(last < 0, np.inf, last)  # a first record is never a start
    if top is not None and rest is not None:
        (upper, times), (lower, _) = _rows(top, members), _rows(rest, members)
        first, behind = np.searchsorted(times, steps[start]), np.searchsorted(times, after)
        is_there, at = _largest(upper + lower, member, first, behind)
        share = upper[member, at] / (upper + lower)[member, at]
        found["top_share"] = np.where(is_there, share, np.nan)
    if curvature is not None:
        values, times = _rows(curvature, members)
        found["curvature_before"] = _at(values, member, np.searchsorted(times, before, side="right") - 1)
        found["curvature_after"] = _at(values, member, np.searchsorted(times, after))
        found["curvature_change"] = found["curvature_after"] - found["curvature_before"]
    if critical_rate is not None and learning_rate is not None:
        values, times = _rows(_rate(learning_rate) / critical_rate, members)
        first = np.searchsorted(times, before, side="right") - 1
        found["rate_ratio"] = _at(values, member, first)
        found["is_super_critical"] = found["rate_ratio"] > 1
        found["super_critical_share"] = _share(values > 1, member, first, np.searchsorted(times, steps[peak]))
    index = np.unravel_index(member, members.shape) if members.ndim else ()
    labels = {
        name: ("spike", np.asarray(members[name].values)[which] if name in members.coords else which)
        for name, which in zip(members.dims, index, strict=True)
    }
    return xr.Dataset({name: ("spike", value) for name, value in found.items()}, coords=labels, attrs=rule)


def _rate(learning_rate: Any) -> Any:
    """The rate as an array with dimensions, or a plain number."""
    return learning_rate if hasattr(learning_rate, "dims") else float(learning_rate)


def _rows(array: DataArray, members: DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Records of every run, [members, records], and the numbers of completed steps at which they were taken."""
    own = [name for name in array.dims if name not in members.dims]
    if len(own) != 1:
        raise ValueError(
            f"An array that annotates spikes has one dimension of records beside those of the runs {members.dims}, but this one has "
            f"{array.dims}."
        )
    whole = array.broadcast_like(members).transpose(*members.dims, own[0])
    return np.asarray(whole.values).reshape(-1, array.sizes[own[0]]), _detector.times(array, str(own[0]))


def _at(values: np.ndarray, member: np.ndarray, record: np.ndarray) -> np.ndarray:
    """One number a spike; NaN where the record lies outside."""
    is_there = (record >= 0) & (record < values.shape[1])
    return np.where(is_there, values[member, np.where(is_there, record, 0)], np.nan)


def _first_after(marks: np.ndarray, member: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The first marked record behind `start` in the row of `member`; the number of records where there is none."""
    length = marks.shape[1]
    positions = np.where(marks, np.arange(length), length)
    ahead = np.minimum.accumulate(positions[:, ::-1], axis=1)[:, ::-1]  # the first mark at or behind each record
    ahead = np.concatenate([ahead, np.full((len(marks), 1), length)], axis=1)
    return ahead[member, start + 1]


def _largest(
    values: np.ndarray, member: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each row's span [start, end) is largest, the first such record, NaN left out; and whether there is any."""
    spike, record = _spans(start, end)
    size = values[member[spike], record]
    order = np.lexsort((record, np.where(np.isnan(size), np.inf, -size), spike))
    firsts = np.searchsorted(spike[order], np.arange(len(start)))
    is_there = end > start
    at = np.zeros(len(start), int)
    at[is_there] = record[order][firsts[is_there]]
    return is_there, at


def _share(marks: np.ndarray, member: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The share of marked records in each span [start, end); NaN in an empty one."""
    spike, record = _spans(np.maximum(start, 0), end)
    total = np.bincount(spike, minlength=len(start))
    marked = np.bincount(spike, marks[member[spike], record], minlength=len(start))
    return np.divide(marked, total, out=np.full(len(start), np.nan), where=total > 0)


def _spans(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All records of the spans [start, end), one after the other, and which span each belongs to."""
    lengths = np.maximum(end - start, 0)
    span = np.repeat(np.arange(len(start)), lengths)
    return span, np.arange(len(span)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + start[span]
