"""Reading off at a level: exact on curves that are straight in the logarithm, invariant to what does not matter."""

import numpy as np
import pytest
import xarray as xr

from jaxdyn.analysis import crossings


def curves(rates=(0.1, 0.3), every=10, steps=100):
    step = np.arange(0, steps + 1, every)
    return xr.DataArray(
        np.exp(-np.asarray(rates)[:, None] * step), dims=("rate", "step"), coords={"rate": list(rates), "step": step}
    )


def test_exponential_curves_are_read_off_exactly():
    loss = curves()
    found = crossings.at_level(loss["step"], loss, level=0.02)
    np.testing.assert_allclose(found, -np.log(0.02) / np.array([0.1, 0.3]))
    line = crossings.at_level(3 - 2 * loss["step"], loss, level=0.02)
    np.testing.assert_allclose(line, 3 - 2 * found)
    np.testing.assert_allclose(crossings.at_level(np.log(loss), loss, level=0.02), np.log(0.02))


def test_the_first_crossing_counts():
    loss = xr.DataArray([1.0, 0.01, 1.0, 0.0001], dims="step", coords={"step": [0, 1, 2, 3]})
    np.testing.assert_allclose(crossings.at_level(loss["step"], loss, level=0.1), 0.5)


def test_what_never_arrives_is_missing_and_what_begins_below_is_its_first_record():
    loss = xr.DataArray([[1.0, 0.5, np.nan], [0.01, 2.0, 3.0], [np.inf, 0.05, 0.01]], dims=("run", "step"))
    values = xr.DataArray([7.0, 8.0, 9.0], dims="step")
    np.testing.assert_array_equal(crossings.at_level(values, loss, level=0.1), [np.nan, 7.0, 8.0])


def test_what_does_not_fit_is_refused():
    loss = curves()
    with pytest.raises(ValueError, match="above 0"):
        crossings.at_level(loss, loss, level=0.0)
    with pytest.raises(ValueError, match="no dimension `time`"):
        crossings.at_level(loss, loss, level=0.1, dim="time")
