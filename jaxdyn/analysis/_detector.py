"""The detector behind `analysis.spikes`: its rule, record by record, for all members of an ensemble at once."""

from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray
else:
    DataArray = Any


def checked(
    loss: DataArray, dim: str, *, factor: SupportsFloat, window: int, floor: SupportsFloat, rearm: SupportsFloat
) -> tuple[DataArray, dict[str, Any]]:
    """The losses with their records first, and the four numbers."""
    if dim not in loss.dims:
        raise ValueError(f"The loss has no dimension `{dim}`, only {tuple(loss.dims)}; name its records with `dim=`.")
    factor, floor, rearm = float(factor), float(floor), float(rearm)
    if window < 1:
        raise ValueError(f"`window` counts records and must be at least 1, but is {window}.")
    if not 1 <= rearm <= factor or factor == 1:
        raise ValueError(f"1 ≤ rearm ≤ factor and factor > 1 are needed, but rearm={rearm} and factor={factor}.")
    if not floor >= 0:
        raise ValueError(f"`floor` must be at least 0, but is {floor}.")
    return loss.transpose(dim, ...), {"factor": factor, "window": window, "floor": floor, "rearm": rearm}


def times(array: DataArray, dim: str) -> np.ndarray:
    """The numbers of completed steps of the records."""
    return np.asarray(array[dim].values) if dim in array.coords else np.arange(array.sizes[dim])


def detect(
    losses: np.ndarray, *, factor: float, window: int, floor: float, rearm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rule, record by record, for all members at once; losses are [t, *members].

    Returns:
        Where spikes start, where one is under way (from its start until the detector is armed again), and the least loss of the
        window before each record; all [t, *members].
    """
    least = _least_before(losses, window)
    with np.errstate(invalid="ignore"):
        is_high = (losses > factor * least) & (losses > floor)  # [t, *members]
    starts, is_up = np.zeros(losses.shape, bool), np.zeros(losses.shape, bool)
    is_armed = np.ones(losses.shape[1:], bool)
    before = np.full(losses.shape[1:], np.nan)  # the least loss before the present spike
    for t in range(len(losses)):
        is_armed |= losses[t] < rearm * before
        starts[t] = is_armed & is_high[t]
        before = np.where(starts[t], least[t], before)
        is_armed &= ~starts[t]
        is_up[t] = ~is_armed
    return starts, is_up, least


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
