"""Spikes of the training loss: where one starts, by a rule with four stated numbers.

    A spike starts at record t when the detector is armed, L_t > factor · m_t and L_t > floor,
    with m_t the least of the `window` losses before t. The detector is then disarmed, and armed
    again at the first later record with L < rearm · m, m the least loss of the spike's start.

The papers give no rule; counts depend on these four numbers, so none has a default and all go into the attributes of
the result. Report counts per run, per step and per epoch: runs with smaller batches take more steps. Spikes are not
catapults until the curvature is seen to fall across them.

References:
    Zhu et al., arXiv 2306.04815 (spikes as catapults; the rule is ours).
"""

from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray
else:
    DataArray = Any


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

    if dim not in loss.dims:
        raise ValueError(f"The loss has no dimension `{dim}`, only {tuple(loss.dims)}; name its records with `dim=`.")
    factor, floor, rearm = float(factor), float(floor), float(rearm)
    if window < 1:
        raise ValueError(f"`window` counts records and must be at least 1, but is {window}.")
    if not 1 <= rearm <= factor or factor == 1:
        raise ValueError(f"1 ≤ rearm ≤ factor and factor > 1 are needed, but rearm={rearm} and factor={factor}.")
    if not floor >= 0:
        raise ValueError(f"`floor` must be at least 0, but is {floor}.")

    along = loss.transpose(dim, ...)
    starts = _starts(np.asarray(along.values), factor, window, floor, rearm)
    attrs = {"factor": factor, "window": window, "floor": floor, "rearm": rearm}
    return xr.DataArray(starts, dims=along.dims, coords=along.coords, attrs=attrs).transpose(*loss.dims)


def _starts(losses: np.ndarray, factor: float, window: int, floor: float, rearm: float) -> np.ndarray:
    """The rule, record by record, for all members at once; losses are [t, *members]."""
    least = _least_before(losses, window)
    with np.errstate(invalid="ignore"):
        is_high = (losses > factor * least) & (losses > floor)  # [t, *members]
    starts = np.zeros(losses.shape, bool)
    is_armed = np.ones(losses.shape[1:], bool)
    before = np.full(losses.shape[1:], np.nan)  # the least loss before the present spike
    for t in range(len(losses)):
        is_armed |= losses[t] < rearm * before
        starts[t] = is_armed & is_high[t]
        before = np.where(starts[t], least[t], before)
        is_armed &= ~starts[t]
    return starts


def _least_before(losses: np.ndarray, window: int) -> np.ndarray:
    """Least of the `window` losses before each record, NaN left out; doubling takes log2(window) passes."""
    least = _later(losses, 1)  # the least of `reach` losses before each record
    reach = 1
    while reach < window:
        step = min(reach, window - reach)
        least = np.fmin(least, _later(least, step))
        reach += step
    return least


def _later(array: np.ndarray, by: int) -> np.ndarray:
    """The array moved `by` records later, NaN in front."""
    moved = np.full(array.shape, np.nan, dtype=array.dtype)
    moved[by:] = array[: max(len(array) - by, 0)]
    return moved
