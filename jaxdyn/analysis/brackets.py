"""Summaries of numbers that are only known to lie between two values of a grid, as `phases.bracket` finds them.

They keep what the grid does not know: the interval of a mean reaches from the lower end for the low ends to the upper end for the high
ones.
"""

from typing import Any

import numpy as np

from jaxdyn.analysis.scaling import Interval, mean_interval


def geometric_mean(low: Any, high: Any) -> Interval:
    """The geometric mean of bracketed numbers, with a 95 % interval that holds the brackets.

    Args:
        low: lower ends, one a member, at least 0, [s].
        high: upper ends, infinite where they are not known, [s].

    Returns:
        `(mean, low, high)`: the mean is that of √(low · high), a bracket with an open end standing for its other end; the lower end is 0,
        the upper infinite, where a bracket is open there. NaN where an end is, or a bracket is open on both sides.

    Example:
        >>> [round(number, 2) for number in geometric_mean(np.array([2.0, 2.0]), np.array([8.0, 8.0]))]
        [4.0, 2.0, 8.0]
        >>> [round(number, 2) for number in geometric_mean(np.array([2.0, 4.0]), np.array([8.0, np.inf]))][2]
        inf
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    if np.isnan(low).any() or np.isnan(high).any() or ((low == 0) & np.isinf(high)).any():
        return Interval(np.nan, np.nan, np.nan)
    start = np.where(low == 0, high, low)
    middle = np.sqrt(start * np.where(np.isinf(high), start, high))
    lower = 0.0 if (low == 0).any() else float(np.exp(mean_interval(np.log(low)).low))
    upper = np.inf if np.isinf(high).any() else float(np.exp(mean_interval(np.log(high)).high))
    return Interval(float(np.exp(np.log(middle).mean())), lower, upper)
