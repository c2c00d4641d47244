"""Brackets: the first failing value of a grid, and summaries that keep what the grid does not know."""

import numpy as np
import xarray as xr

from jaxdyn.analysis import brackets, scaling


def test_first_failing_value_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    grid = np.array([1.0, 2.0, 5.0, 9.0])
    holds = xr.DataArray(
        rng.random((6, 4, 3)) < 0.7, dims=("case", "rate", "seed"), coords={"rate": grid, "case": list("abcdef")}
    )
    found = brackets.first_failing(holds, "rate")
    assert found.low.dims == ("case", "seed")
    for case in range(6):
        for seed in range(3):
            low, high = 0.0, np.inf
            for i, rate in enumerate(grid):
                if not holds.values[case, i, seed]:
                    high = rate
                    break
                low = rate
            assert (found.low.values[case, seed], found.high.values[case, seed]) == (low, high)


def test_intervals_hold_those_of_both_ends():
    low, high = np.array([2.0, 3.0, 2.5, 4.0]), np.array([2.5, 3.5, 3.0, 5.0])
    found = brackets.geometric_mean(low, high)
    np.testing.assert_allclose(found.low, np.exp(scaling.mean_interval(np.log(low)).low))
    np.testing.assert_allclose(found.high, np.exp(scaling.mean_interval(np.log(high)).high))
    np.testing.assert_allclose(found.mean, np.prod(low * high) ** (1 / 8))


def test_open_ends_stay_open():
    below = brackets.geometric_mean([0.0, 2.0, 2.0], [1.0, 3.0, 3.0])
    assert below.low == 0
    assert np.isfinite(below.high)
    above = brackets.geometric_mean([2.0, 2.0, 2.0], [3.0, np.inf, 3.0])
    assert np.isinf(above.high)
    assert 0 < above.low <= above.mean < np.inf
    assert np.isnan(brackets.geometric_mean([0.0, 1.0], [np.inf, 2.0]).mean)
