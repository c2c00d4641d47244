r"""What a run had become when its loss first came down to a level: the budget of equal training loss.

Between the two records around the crossing everything is read off linearly in the *logarithm* of the loss,

    v = v_0 + (log L_0 − log level)/(log L_0 − log L_1) · (v_1 − v_0),      L_0 > level ≥ L_1 the first such pair.

A run that jumps over the level in one record is read off between records all the same; record more often where that matters.
"""

from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray
else:
    DataArray = Any


def at_level(values: DataArray, loss: DataArray, *, level: SupportsFloat, dim: str = "step") -> DataArray:
    """Values where the loss first reaches a level.

    Args:
        values: what is read off, with `dim` or without, and any dimensions of `loss`; the logarithm of what spans decades.
        loss: positive losses along `dim`, any other dimensions.
        level: the level, > 0.
        dim: dimension of the records.

    Returns:
        Over the other dimensions of `loss`: the values; NaN where the loss never comes down to the level. The first record where the
        run begins below it.

    Raises:
        ValueError: for a level that is not positive, or a loss without the dimension.

    Example:
        >>> import xarray as xr
        >>> loss = xr.DataArray([1.0, 0.1, 0.001], dims="step", coords={"step": [0, 10, 20]})
        >>> float(at_level(loss["step"], loss, level=0.01))  # half of the way from 0.1 to 0.001
        15.0
    """
    import xarray as xr

    if not float(level) > 0:
        raise ValueError(f"`level` is a loss, above 0, but is {level}.")
    if dim not in loss.dims:
        raise ValueError(f"The loss has no dimension `{dim}`; its dimensions are {tuple(loss.dims)}.")
    whole = values.astype(float).broadcast_like(loss)
    read = xr.apply_ufunc(_read, whole, loss.astype(float), float(level), input_core_dims=[[dim], [dim], []])
    return read.transpose(*(name for name in loss.dims if name != dim)).rename(values.name)


def _read(values: Any, loss: Any, level: float) -> Any:
    is_below = loss <= level
    first = np.argmax(is_below, axis=-1)[..., None]
    before = np.maximum(first - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        high, low = (np.log(np.take_along_axis(loss, at, -1)[..., 0]) for at in (before, first))
        start, end = (np.take_along_axis(values, at, -1)[..., 0] for at in (before, first))
        part = np.where(high > np.log(level), (high - np.log(level)) / (high - low), 1.0)
        part = np.where(np.isfinite(part), part, 1.0)  # from infinity, or a loss of zero
        return np.where(is_below.any(axis=-1), np.where(part < 1, start + part * (end - start), end), np.nan)
