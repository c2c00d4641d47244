"""Summaries of brackets keep what the grid does not know."""

import numpy as np

from jaxdyn.analysis import brackets, scaling


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
